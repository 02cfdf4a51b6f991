"""Two trained adapters and their base behind one server: each replies as it does alone, also in one batch."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from tests.support.own_forward import own_choices
from tests.support.served import running
from tutelage import config
from tutelage.builders.served_models import open_served_models
from tutelage.builders.trained_model import open_trained_model
from tutelage.generate.engine import Engine
from tutelage.model.attention.packed import use_generation_attention
from tutelage.report.console.progress import Screen
from tutelage.train.run import run

torch.set_num_threads(1)
SHORT = ("train.max_steps=3", "evaluate.before=false", "evaluate.max_new_tokens=2")
RUNS = {"json": ("lora.rank=4", "seed=3"), "other": ("lora.rank=6", "lora.alpha=24", "seed=11")}
BASE = "model"
QUESTIONS = ("My sister asks for 3 lamps.", "Where is the old shop?", "My sister asks for 9 tickets!", "So")
NEW_TOKENS = 20


@pytest.fixture(scope="module")
def runs(tiny_recipe: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    recipe, screen = tiny_recipe(folder), Screen(Console(file=io.StringIO()))
    for name, chosen in RUNS.items():
        run(config.load(recipe, (*SHORT, f"name={name}", *chosen)), screen)
    return folder / "runs"


def alone(runs: Path, name: str) -> Callable[[list[int], list[int]], list[int]]:
    """What the run's own model, opened without the other, chooses in place of each token of a reply."""
    opened = open_trained_model(str(runs / (name if name in RUNS else "json")), tuned=True, base=False, log=print)

    def choices(prompt: list[int], reply: list[int]) -> list[int]:
        with opened.as_named("tuned" if name in RUNS else "base") as model:
            use_generation_attention(model)
            return own_choices(model.eval(), np.asarray(prompt, dtype=np.int32), reply)

    return choices


def test_adapters_and_base_in_one_batch_reply_as_each_alone(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [*RUNS, BASE]
    asked = list(product(names, QUESTIONS))
    served = open_served_models([f"{name}={runs / name}" for name in RUNS], active_replies=16, log=lambda _line: None)
    assert len(served.engines) == 1
    in_steps: list[set[Any]] = []
    with running(served=served, batch=16, queue=16) as server:
        hidden, step = Engine._hidden, Engine._step

        def noted(engine: Engine, part: Any, ids: Any, positions: Any, adapters: Any) -> Any:
            in_steps.append(set(adapters))
            return hidden(engine, part, ids, positions, adapters)

        def once_all_are_here(*arguments: Any) -> Any:
            end = time.monotonic() + 20
            while server.service.worker.counts.requests < len(asked) and time.monotonic() < end:
                time.sleep(0.01)
            return step(*arguments)

        monkeypatch.setattr(Engine, "_hidden", noted)
        monkeypatch.setattr(Engine, "_step", once_all_are_here)
        client = server.client()

        def reply(name_and_question: tuple[str, str]) -> Any:
            name, question = name_and_question
            return client.chat.completions.create(
                model=name, messages=[{"role": "user", "content": question}], temperature=0, max_tokens=NEW_TOKENS,
                extra_body={"return_token_ids": True},
            )  # fmt: skip

        with ThreadPoolExecutor(len(asked)) as threads:
            replies = list(threads.map(reply, asked))

    assert any(len(adapters) == len(names) for adapters in in_steps), "they never met in one step"
    own = {name: alone(runs, name) for name in names}
    texts: dict[str, list[str]] = {name: [] for name in names}
    for (name, question), answer in zip(asked, replies, strict=True):
        ids = answer.choices[0].token_ids
        assert answer.model == name
        assert ids == own[name](answer.prompt_token_ids, ids), f"{name}: {question}"
        texts[name].append(answer.choices[0].message.content)
    for one, other in combinations(names, 2):
        assert texts[one] != texts[other], f"{one} and {other} say the same: the test would not see them mixed up"

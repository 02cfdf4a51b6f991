from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.support.commands import Ran
from tests.support.compared_runs import weights
from tests.support.fake_endpoint import Reply, fake_endpoint, said
from tutelage.runs.choice import read_choice
from tutelage.train.run import Finished

LIMIT = 20
ADAPTER = "adapter/adapter_model.safetensors"
TINY = (
    "train.checkpoint_every=2", "train.keep_checkpoints=10", "train.epochs=2", "evaluate.before=false",
    "evaluate.task=[]", "evaluate.general=[]", "evaluate.max_new_tokens=12",
)  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One run for all tests of this file, which copy it."""
    return {"parent": tmp_path_factory.mktemp("checkpoints")}


@pytest.fixture
def trained(
    finished: dict[str, Path], train_tiny: Callable[..., Finished], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A run of six steps with the checkpoints 2, 4 and 6; its held-out rows are those it was trained on."""
    if "run" not in finished:
        rows = json.dumps([str(tmp_path / "home" / "train.jsonl")])
        folder = train_tiny(*TINY, f"data.validation={rows}").folder
        shutil.copytree(tmp_path / "home", finished["parent"] / "home")
        finished["run"] = finished["parent"] / "home" / folder.relative_to(tmp_path / "home")
        finished["home"] = tmp_path / "home"
    else:  # rows are found where they were
        shutil.copytree(finished["parent"] / "home", finished["home"], dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    copy = tmp_path / "copy" / "tiny"
    shutil.copytree(finished["run"], copy)
    return copy


def prefers(step: int, run: Path) -> Callable[[dict[str, Any], int], Reply]:
    """A judge that knows what a checkpoint said, of 2, 4 and 6, and likes it better."""

    def answer(body: dict[str, Any], _: int) -> Reply:
        lines = Path(f"comparisons/{run.name}-checkpoints/replies.jsonl").read_text("utf-8").splitlines()
        texts = {json.loads(line)["text"] for line in lines[(step // 2 - 1) * LIMIT : step // 2 * LIMIT]}
        parts = body["messages"][1]["content"].split("\n\n#")
        first, second = (part.partition("\n")[2] for part in parts[-3:-1])
        return said("tie" if (first in texts) == (second in texts) else "1" if first in texts else "2")

    return answer


def words(run: Path, url: str, *more: str, model: str = "m") -> tuple[str, ...]:
    judge = ("--by", "judge", "--endpoint", url, "--model", model)
    return ("compare", str(run), "--checkpoints", "--limit", str(LIMIT), *judge, *more)


def test_what_a_judge_prefers_is_what_the_run_ends_with(run: Callable[..., Ran], trained: Path):
    ended_with = (trained / ADAPTER).read_bytes()
    with fake_endpoint(prefers(2, trained)) as fake:
        plan = json.loads(run(*words(trained, fake.url, "--dry-run", "--json"), model=None).out)
        assert (plan["prompts"], plan["models"], plan["pairs"], plan["requests"]) == (LIMIT, 3, 2 * LIMIT, 4 * LIMIT)
        assert plan["likely_tokens"] < plan["most_tokens"]
        assert fake.requests == []
        done = run(*words(trained, fake.url, "--choose"), model=None)
        assert done.code == 0, done.err
        requests = len(fake.requests)
        again = run(*words(trained, fake.url, "--choose", "--json"), model=None)
        assert len(fake.requests) == requests
        assert "Preferred to step 6: step 2." in done.out
        assert json.loads(again.out)["chosen_step"] == 2
        assert "ends with step 2, as it did" in again.err
        choice, result = read_choice(trained), json.loads((trained / "result.json").read_text())
        assert choice is not None
        assert (choice.step, choice.heldout_step, choice.decided_by) == (2, 6, "judge m")
        assert (result["chosen_step"], result["best_step"]) == (2, 6)
        assert "Step chosen by preference" in (trained / "report.html").read_text("utf-8")
        masters = load_file(trained / "checkpoints" / "step-000002" / "masters.safetensors")
        kept = weights(trained)
        assert {name.replace(".default", "") for name in masters} == set(kept)
        for name, master in masters.items():
            assert torch.equal(kept[name.replace(".default", "")].float(), master)
        assert (trained / "finished-000006-with-000006" / ADAPTER).read_bytes() == ended_with

    with fake_endpoint(lambda _body, _: said("tie")) as fake:  # another judge, by whom nothing is shown
        done = run(*words(trained, fake.url, "--choose", model="other"), model=None)
    assert done.code == 0, done.err
    assert "None is shown to be preferred" in done.out
    assert (trained / ADAPTER).read_bytes() == ended_with


def test_a_judge_that_names_the_first_reply_chooses_nothing(run: Callable[..., Ran], trained: Path):
    with fake_endpoint(lambda _body, _: said("1")) as fake:
        done = run(*words(trained, fake.url, "--base"), model=None)
    assert done.code == 0, done.err
    assert "before training" in done.out
    assert "None is shown to be preferred" in done.out
    assert not (trained / "choice.json").exists()


@pytest.mark.parametrize(
    ("more", "missing", "expected"),
    [
        (("--choose",), "", "no verdict to choose by"),
        (("--only", "task"), "", "--only is not for checkpoints"),
        ((), "result.json", "once a run is finished"),
        ((), "checkpoints/step-000006", "What held-out loss chose is not among them"),
    ],
)
def test_what_cannot_be_chosen_is_said(
    run: Callable[..., Ran], trained: Path, more: tuple[str, ...], missing: str, expected: str
):
    if (trained / missing).is_file():
        (trained / missing).unlink()
    elif missing:
        shutil.rmtree(trained / missing)
    done = run("compare", str(trained), "--checkpoints", "--limit", "2", *more, model=None)
    assert done.code == 1
    assert expected in done.err
    assert "Traceback" not in done.err


def test_checkpoints_alone_take_the_option_to_choose(run: Callable[..., Ran]):
    done = run("compare", "old.jsonl", "new.jsonl", "--choose", model=None)
    assert done.code == 1
    assert "--choose goes with --checkpoints" in done.err

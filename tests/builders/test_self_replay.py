"""The base's own replies: only what its checks let through, made once, the same on a resume."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tutelage import config
from tutelage.builders import self_replay as self_replay_module
from tutelage.builders.self_replay import TRIES, with_self_replay
from tutelage.errors import ConfigError, DataError, SourceNotFoundError
from tutelage.formats.memory import kept_rows
from tutelage.generate.requests import EndedReply, Sampling
from tutelage.report.console.progress import Screen
from tutelage.runs import folder as run_files
from tutelage.train.run import Finished

TrainTiny = Callable[..., Finished]
QUIET = ("evaluate.before=false", "evaluate.task=")
CHECKED = [
    {"prompt": "Say a.", "checks": [{"kind": "contains_any", "values": ["a"]}]},
    {"prompt": "Say b.", "checks": [{"kind": "contains_any", "values": ["b"]}]},
    {"prompt": "Say c.", "checks": [{"kind": "contains_any", "values": ["c"]}]},
]


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, list[str]]]:
    """What the base was asked, attempt by attempt: drawn or not, and the prompts. It says a at once, b when drawn."""
    attempts: list[tuple[bool, list[str]]] = []

    def replies(_model: Any, _renderer: Any, conversations: Any, *, sampling: Sampling | None, **_: Any) -> Any:
        prompts = [messages[-1].content for messages in conversations]
        attempts.append((sampling is not None, prompts))
        said = {
            "Say a.": "a",
            "Say b.": "b" if sampling else "x",
            "Say c.": "",
            "Long.": "on and on",
            "Free.": " free ",
        }
        return [EndedReply(said[prompt], 3, "length" if prompt == "Long." else "stop_token") for prompt in prompts]

    monkeypatch.setattr(self_replay_module, "ended_replies", replies)
    return attempts


def settings_with(recipe: Path, *overrides: str) -> config.Settings:
    return config.load(recipe, overrides)


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rows_of(settings: config.Settings) -> list[list[str]]:
    kept = kept_rows(settings.data.replay[-1])
    assert kept is not None
    rows = [json.loads(line) for line in kept[0].read_text(encoding="utf-8").splitlines()]
    return [[turn["content"] for turn in row["messages"]] for row in rows]


def test_what_fails_its_checks_is_drawn_anew_and_then_left_out(
    asked: list[tuple[bool, list[str]]], tiny_recipe: Callable[[Path], Path], tmp_path: Path, quiet_screen: Screen
) -> None:
    general = written(tmp_path / "prompts.jsonl", CHECKED)
    plain = [
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "theirs"}]}
        for text in ("Free.", "Long.")
    ]
    rows = written(tmp_path / "rows.jsonl", plain)
    settings = settings_with(tiny_recipe(tmp_path / "home"), f'data.self_replay=["{general}", "{rows}"]')

    made = with_self_replay(settings, quiet_screen)

    assert rows_of(made) == [["Say a.", "a"], ["Say b.", "b"], ["Free.", "free"]]
    assert asked[0] == (False, ["Say a.", "Say b.", "Say c.", "Free.", "Long."])
    assert asked[1] == (True, ["Say b.", "Say c."]), "without checks nothing says that another reply is better"
    assert asked[2:] == [(True, ["Say c."])] * (TRIES - 2)
    again = with_self_replay(settings, quiet_screen)
    assert again == made
    assert len(asked) == TRIES, "the base was asked once"
    assert with_self_replay(made, quiet_screen) is made, "settings of a run that goes on"
    other = with_self_replay(settings.model_copy(update={"seed": 8}), quiet_screen)
    assert other.data.replay == made.data.replay, "the same rows"
    assert len(asked) == 2 * TRIES, "drawn with another seed"


def test_no_reply_of_use_is_an_error(
    asked: list[tuple[bool, list[str]]], tiny_recipe: Callable[[Path], Path], tmp_path: Path, quiet_screen: Screen
) -> None:
    general = written(tmp_path / "prompts.jsonl", CHECKED[2:])
    settings = settings_with(tiny_recipe(tmp_path / "home"), f'data.self_replay=["{general}"]')
    with pytest.raises(DataError, match="No reply of the base is fit") as caught:
        with_self_replay(settings, quiet_screen)
    assert caught.value.found == "1 empty"
    assert asked


def test_rows_that_a_run_began_with_are_not_replaced_by_others(
    asked: list[tuple[bool, list[str]]], tiny_recipe: Callable[[Path], Path], tmp_path: Path, quiet_screen: Screen
) -> None:
    general = written(tmp_path / "prompts.jsonl", CHECKED)
    settings = settings_with(tiny_recipe(tmp_path / "home"), f'data.self_replay=["{general}"]')
    made = with_self_replay(settings, quiet_screen)
    kept = kept_rows(made.data.replay[-1])
    assert kept is not None
    kept[0].unlink()
    assert with_self_replay(made, quiet_screen).data.replay == made.data.replay, "made again, the same"
    kept[0].unlink()
    written(general, CHECKED[:1])
    with pytest.raises(SourceNotFoundError, match="come out otherwise now"):
        with_self_replay(made, quiet_screen)
    assert asked


@pytest.mark.parametrize("method", ["full", pytest.param("lora", marks=pytest.mark.nightly)])
def test_a_run_replays_what_its_base_said(train_tiny: TrainTiny, tmp_path: Path, method: str) -> None:
    rows = [{"prompt": f"Number {n}?", "checks": [{"kind": "min_words", "count": 0}]} for n in range(12)]
    prompts = written(tmp_path / "prompts.jsonl", rows)
    quick = (
        f"model.method={method}",
        "train.max_steps=3",
        "evaluate.before=false",
        "evaluate.task=",
        "data.replay_ratio=0.2",
    )
    finished = train_tiny(*quick, f'data.self_replay=["{prompts}"]', "data.self_replay_tokens=200")
    saved = config.load(finished.folder / run_files.SETTINGS)
    assert saved.data.replay[-1].startswith("<selfreplay:")
    ledger = (finished.folder / run_files.LEDGER).read_text(encoding="utf-8")
    assert "Replay:" in ledger


def test_prompts_of_the_general_set_are_not_trained_on(tiny_recipe: Callable[[Path], Path], tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path / "home")
    general = tmp_path / "home" / "general.jsonl"
    with pytest.raises(ConfigError, match="self_replay") as caught:
        settings_with(recipe, f'data.self_replay=["{general}"]')
    assert "must not be trained on" in str(caught.value.found)

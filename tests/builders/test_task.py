"""Rows of the task: which checkers they get, and which rows are refused, by their addresses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import CHATML
from tutelage import config
from tutelage.builders.dataset import Prepared, prepare
from tutelage.errors import ConfigError, DataError
from tutelage.evaluate.grading import grade

CALLING = CHATML.replace(
    "message['content']",
    "(message['content'] or '') + ((message.tool_calls | map(attribute='function') | list | tojson) if "
    "message.tool_calls else '')",
)
CALLING_IN_WORDS = CHATML.replace(
    "message['content']",
    "(message['content'] or '') + (('call ' + message.tool_calls[0].function.name + ' '"
    " + (message.tool_calls[0].function.arguments | tojson)) if message.tool_calls else '')",
)

Prepare = Callable[..., Prepared]


def said(reply: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "Well?"}, {"role": "assistant", "content": reply}]}


def called(**arguments: Any) -> dict[str, Any]:
    function = {"name": "lookup", "arguments": arguments}
    call = {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": function}]}
    return {"messages": [{"role": "user", "content": "Where?"}, call]}


@pytest.fixture
def prepared(write_model_folder: Callable[..., Path], tmp_path: Path) -> Prepare:
    """Prepares rows as the task with checkers and a template; `log` is told what is said."""

    def go(
        *rows: dict[str, Any], checkers: tuple[str, ...] = (), template: str = CALLING, log: list[str] | None = None
    ) -> Prepared:
        for name, lines in (("train", [said("Hello.")]), ("task", rows)):
            text = "\n".join(map(json.dumps, lines)) + "\n"
            (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")
        settings = {
            "model": {"name": "tiny"},
            "data": {"train": [str(tmp_path / "train.jsonl")], "workers": 1},
            "evaluate": {"task": [str(tmp_path / "task.jsonl")], "checkers": list(checkers)},
        }
        folder = write_model_folder(tmp_path / "model", template=template)
        asked = config.from_mapping(settings, [], where="a test")
        return prepare(asked, folder, log=([] if log is None else log).append)

    return go


@pytest.mark.parametrize(
    ("rows", "checkers", "because"),
    [
        ([said('{"a": 1}'), said('{"b": 1}')], ("json_fields",), ""),
        ([said('{"a": 1}'), said("words")], ("exact_match", "rouge_l"), "task.jsonl:2 is not a JSON object"),
        ([said("words"), called(x=1)], ("tool_calls", "tool_names"), "task.jsonl:2 calls a tool"),
    ],
)
def test_without_a_choice_the_rows_decide_and_it_is_said(
    prepared: Prepare, rows: list[dict[str, Any]], checkers: tuple[str, ...], because: str
) -> None:
    log: list[str] = []

    assert prepared(*rows, log=log).checkers == checkers
    assert len(log) == bool(because)
    assert all(because in line and "evaluate.checkers" in line for line in log)


def test_the_choice_counts_once_each(prepared: Prepare) -> None:
    log: list[str] = []

    task = prepared(said("It is 5."), checkers=("number", "token_f1", "number"), log=log)

    assert (task.checkers, log) == (("number", "token_f1"), [])
    graded = grade(task.task, (), ["5"], (), checkers=task.checkers)
    assert graded.outcomes == {"score number": [True], "score token_f1": [2 / (1 + 3)]}


@pytest.mark.parametrize(
    ("row", "checker", "found"),
    [
        (called(x=1), "exact_match", "an empty reply"),
        (called(x=1), "rouge_l", "an empty reply"),
        (said("none"), "number", "no number in 'none'"),
        (said("none"), "json_fields", "none"),
    ],
)
def test_a_row_without_a_reference_is_named(prepared: Prepare, row: dict[str, Any], checker: str, found: str) -> None:
    with pytest.raises(DataError) as caught:
        prepared(said('{"a": 1}'), row, checkers=(checker,))

    assert str(caught.value.where).endswith("task.jsonl:2")
    assert caught.value.found == found
    assert "evaluate.checkers" in str(caught.value.fix)


def test_calls_are_scored_as_the_template_writes_them(prepared: Prepare) -> None:
    task = prepared(called(city="Lyon", days=2), said("Hello."))

    replies = ['[{"name": "lookup", "arguments": {"days": 2, "city": "Lyon"}}]', "Hello."]
    assert grade(task.task, (), replies, (), checkers=task.checkers).outcomes == {
        "score tool_calls": [True, True],
        "score tool_names": [True, True],
    }


def test_calls_that_the_template_writes_in_another_form_are_refused(prepared: Prepare) -> None:
    """Otherwise each reply would count as wrong, the row's own among them."""
    with pytest.raises(DataError, match="cannot be read back") as caught:
        prepared(called(city="Lyon"), template=CALLING_IN_WORDS)

    assert str(caught.value.where).endswith("task.jsonl:1")
    assert "lookup" in str(caught.value.found)


def test_calls_are_not_looked_for_where_no_row_makes_one(prepared: Prepare) -> None:
    with pytest.raises(DataError, match="No row of the task calls a tool"):
        prepared(said("Hello."), checkers=("tool_names",))


def test_a_document_is_no_task(prepared: Prepare) -> None:
    with pytest.raises(DataError, match="has no reply") as caught:
        prepared(said("Hello."), {"text": "Hello."})

    assert str(caught.value.where).endswith("task.jsonl:2")


def test_a_checker_that_is_not_known_is_refused_with_the_nearest_name(prepared: Prepare) -> None:
    with pytest.raises(ConfigError) as caught:
        prepared(said("Hello."), checkers=("rogue_l",))

    assert "evaluate.checkers[0]" in str(caught.value.found)
    assert '"rogue_l"' in str(caught.value.found)
    assert 'did you mean "rouge_l"?' in str(caught.value.found)

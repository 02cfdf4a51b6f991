"""Checks of a general set that hold a reply against a schema or tests, and items whose check fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tutelage.builders import task as task_builder
from tutelage.builders.task import runnable
from tutelage.errors import ConfigError, DataError
from tutelage.evaluate import answer_checks
from tutelage.evaluate.answer_checks import Code
from tutelage.evaluate.checkers.sandbox import CodeRun, why_not_isolated
from tutelage.evaluate.checks import CHECKS
from tutelage.evaluate.general import GeneralItem, passes, read_general
from tutelage.evaluate.grading import MOST_NAMED, grade
from tutelage.runs.unchecked import Unchecked
from tutelage.types import Address

NOT_ISOLATED = why_not_isolated()
isolates = pytest.mark.skipif(NOT_ISOLATED is not None, reason=f"the system does not isolate: {NOT_ISOLATED}")
DOUBLE = {"kind": "code", "tests": "assert double(4) == 8"}


def item(check: dict[str, Any], number: int = 1) -> GeneralItem:
    return GeneralItem(Address("general.jsonl", number), "", "?", (CHECKS[check["kind"]].model_validate(check),))


def read(folder: Path, check: dict[str, Any]) -> list[GeneralItem]:
    path = folder / "general.jsonl"
    path.write_text(json.dumps({"prompt": "?", "checks": [check]}), encoding="utf-8")
    return read_general(str(path))


def test_a_schema_is_read_once_and_holds() -> None:
    pytest.importorskip("jsonschema", reason="the extra json-schema is not installed")
    asked = item({"kind": "json_schema", "schema": {"type": "array", "items": {"type": "integer"}, "minItems": 1}})

    assert [passes(asked, reply) for reply in ("[1, 2]", " [3]\n", "[]", '["a"]', "1", "no")] == [
        True, True, False, False, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize("schema", [{"type": "no such type"}, {"items": 3}, 3])
def test_a_schema_that_is_none_is_named_when_read(tmp_path: Path, schema: Any) -> None:
    pytest.importorskip("jsonschema", reason="the extra json-schema is not installed")

    with pytest.raises(DataError) as caught:
        read(tmp_path, {"kind": "json_schema", "schema": schema})

    assert caught.value.where == f"{tmp_path / 'general.jsonl'}:1"


@isolates
def test_code_passes_its_tests_or_not(tmp_path: Path) -> None:
    (asked,) = runnable(read(tmp_path, DOUBLE), unisolated=False)

    assert passes(asked, "Sure:\n```python\ndef double(x):\n    return 2 * x\n```")
    assert not passes(asked, "def double(x): return x")
    assert not passes(asked, "I cannot do that.")


def isolation_of(item: GeneralItem, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    seen: list[bool] = []

    def ran(*_: Any, isolated: bool, **__: Any) -> CodeRun:
        seen.append(isolated)
        return CodeRun("finished")

    monkeypatch.setattr(answer_checks, "run_reply", ran)
    assert passes(item, "x")
    return seen


def test_code_is_isolated_unless_it_cannot_be_and_need_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_builder, "why_not_isolated", lambda: None)
    for unisolated in (False, True):
        (asked,) = runnable([item(DOUBLE)], unisolated=unisolated)
        assert isolation_of(asked, monkeypatch) == [True]

    monkeypatch.setattr(task_builder, "why_not_isolated", lambda: "new namespaces: Operation not permitted")
    (asked,) = runnable([item(DOUBLE)], unisolated=True)
    assert isolation_of(asked, monkeypatch) == [False]
    with pytest.raises(ConfigError, match="cannot be run apart") as caught:
        runnable([item({"kind": "plain_text"}), item(DOUBLE, 2)], unisolated=False)
    assert (caught.value.where or "").startswith("general.jsonl:2")
    assert runnable([item({"kind": "plain_text"})], unisolated=False) == (item({"kind": "plain_text"}),)


def test_a_row_of_data_cannot_choose_to_run_without_isolation() -> None:
    with pytest.raises(ValueError, match="_isolated"):
        Code.model_validate(DOUBLE | {"_isolated": False})


def test_a_check_that_fails_is_counted_and_named_and_counts_neither_way(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jsonschema", reason="the extra json-schema is not installed")
    lost = {"kind": "json_schema", "schema": {"$ref": "#/nowhere"}}
    items = [item({"kind": "json"}, 1), *(item(lost, number) for number in range(2, 10))]

    graded = grade((), items, [], ["1"] * 9)

    assert graded.outcomes == {"general": [True, *[None] * 8]}
    assert graded.mean("general") == 1.0
    unchecked = graded.unchecked["general"]
    assert (unchecked.replies, len(unchecked.rows)) == (8, MOST_NAMED)
    assert unchecked.rows[0].startswith("general.jsonl:2 (a $ref leads nowhere")


def test_where_every_check_fails_there_is_no_share() -> None:
    pytest.importorskip("jsonschema", reason="the extra json-schema is not installed")
    graded = grade((), [item({"kind": "json_schema", "schema": {"$ref": "#/nowhere"}})], [], ["1"])

    assert graded.mean("general") is None
    assert graded.unchecked == {"general": Unchecked(1, graded.unchecked["general"].rows)}

"""Rows of IFEval as a general set: its keys, its bad rows, and all 541 rows of the published file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from benchmarks.ifeval.replies import following

from tutelage.errors import DataError
from tutelage.evaluate.checks import FollowsInstruction
from tutelage.evaluate.general import passes, read_general
from tutelage.evaluate.instructions.kinds import INSTRUCTIONS

MATERIAL = Path(__file__).resolve().parents[3].parent / "shared/material/data/ifeval_input_data.jsonl"
needs_material = pytest.mark.skipif(not MATERIAL.is_file(), reason="the collection of published files is not here")

ROW: dict[str, Any] = {
    "key": 7,
    "prompt": "Write three words or more, without a comma.",
    "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
    "kwargs": [{"num_words": None}, {"num_words": 3, "relation": "at least", "keywords": None}],
}
CONTRADICTORY = {1627, 3369, 3371, 3718, 374}
"""Keys of rows that forbid what they want repeated: no reply follows all their instructions."""


def written(folder: Path, *rows: Any) -> str:
    path = folder / "ifeval.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(path)


def test_rows_become_items_of_a_general_set(tmp_path: Path) -> None:
    path = written(tmp_path, ROW, {"prompt": "Hi", "checks": [{"kind": "plain_text"}]})

    item, other = read_general(path)

    assert (str(item.address), item.name, item.topic) == (f"{path}:1", "7", "length_constraints + punctuation")
    assert item.prompt == ROW["prompt"]
    assert [check.kind for check in item.checks] == ["instruction", "instruction"]
    assert [passes(item, reply) for reply in ("one two three", "one, two three", "one two", "")] == [
        True, False, False, False,
    ]  # fmt: skip
    assert other.prompt == "Hi"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": None}, "key.int: .* valid integer"),
        ({"prompt": ""}, "prompt: "),
        ({"instruction_id_list": []}, "instruction_id_list: "),
        ({"instruction_id_list": "punctuation:no_comma"}, "instruction_id_list: .* valid (list|array)"),
        ({"kwargs": [{}]}, "2 instructions, and arguments for 1"),
        ({"kwargs": [{}, {"num_words": 3}]}, "length_constraints:number_words: relation: Field required"),
        ({"kwargs": [{}, {"num_words": "3", "relation": "at least"}]}, "num_words: .* valid integer"),
        ({"instruction_id_list": ["punctuation:no_comma", "length:words"]}, "'length:words' is no instruction"),
    ],
    ids=str,
)
def test_a_bad_row_is_named_with_its_address(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = written(tmp_path, ROW, {**ROW, **change})

    with pytest.raises(DataError, match="general set cannot be read") as caught:
        read_general(path)

    assert caught.value.where == f"{path}:2"
    assert caught.value.expected is not None
    assert "kwargs" in caught.value.expected
    assert re.search(message, caught.value.found or ""), caught.value.found


@needs_material
def test_all_rows_of_the_published_file_can_be_followed() -> None:
    lines = MATERIAL.read_text(encoding="utf-8").splitlines()
    items = read_general(str(MATERIAL))
    keys = [json.loads(line)["key"] for line in lines]
    checks = [[check for check in item.checks if isinstance(check, FollowsInstruction)] for item in items]

    assert len(items) == len(keys) == 541
    assert {check.id for group in checks for check in group} == set(INSTRUCTIONS)
    followed = {
        key
        for key, item, group in zip(keys, items, checks, strict=True)
        if any(passes(item, reply) for reply in following([(check.id, check.arguments) for check in group]))
    }
    assert set(keys) - followed == CONTRADICTORY

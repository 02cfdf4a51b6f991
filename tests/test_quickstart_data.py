"""The quickstart's data: sizes, closed sets, order numbers that can be read off, and splits that do not overlap."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tutelage import config, formats
from tutelage.curate import most_similar
from tutelage.ledger import Ledger
from tutelage.types import Conversation

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "datasets" / "support"
SPLITS = {"train": 400, "validation": 50, "test": 100}
FIELDS = ["product", "category", "urgent", "order"]
LANGUAGES = 4
MOST_ALIKE = 0.5


def rows(split: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (FOLDER / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()]


def said(row: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """System prompt, the user's words, the reply's object."""
    system, user, reply = row["messages"]
    assert (system["role"], user["role"], reply["role"]) == ("system", "user", "assistant")
    return system["content"], user["content"], json.loads(reply["content"])


def conversations(split: str) -> list[Conversation]:
    ledger = Ledger()
    found = list(formats.read([str(FOLDER / f"{split}.jsonl")], ledger=ledger))
    assert ledger.rows_dropped == 0
    return found


@pytest.mark.parametrize(("split", "least"), SPLITS.items())
def test_every_row_is_read(split: str, least: int) -> None:
    assert len(conversations(split)) == len(rows(split)) >= least


@pytest.mark.parametrize("split", SPLITS)
def test_replies_are_exactly_the_fields(split: str) -> None:
    for number, row in enumerate(rows(split), start=1):
        _, _, reply = said(row)
        where = f"{split}.jsonl:{number}"
        assert list(reply) == FIELDS, where
        assert row["messages"][2]["content"] == json.dumps(reply, ensure_ascii=False), where
        assert isinstance(reply["product"], str | None), where
        assert isinstance(reply["category"], str), where
        assert isinstance(reply["urgent"], bool), where
        assert isinstance(reply["order"], str | None), where


def test_labels_are_closed_sets_and_none_is_rare() -> None:
    counted = {split: {field: Counter(said(row)[2][field] for row in rows(split)) for field in FIELDS[:3]}
               for split in SPLITS}  # fmt: skip
    for field in FIELDS[:3]:
        learnt = counted["train"][field]
        assert 2 <= len(learnt) <= 12, field
        assert min(learnt.values()) >= 10, f"{field}: {learnt}"
        for split in ("validation", "test"):
            assert set(counted[split][field]) <= set(learnt), f"{split}: {field}"
    assert set(counted["test"]["category"]) == set(counted["train"]["category"])


@pytest.mark.parametrize("split", SPLITS)
def test_order_numbers_stand_in_the_text(split: str) -> None:
    with_order = 0
    for number, row in enumerate(rows(split), start=1):
        _, words, reply = said(row)
        numbers = re.findall(r"\b[A-Z]\d{4}\b", words)
        where = f"{split}.jsonl:{number}: {words}"
        if reply["order"] is None:
            assert not numbers, where
        else:
            with_order += 1
            assert reply["order"] in words, where
            assert re.fullmatch(r"[A-Z]\d{4}", reply["order"]), where
    assert 0.2 <= with_order / len(rows(split)) <= 0.8


def test_order_numbers_cannot_be_learnt_by_heart() -> None:
    seen = {said(row)[2]["order"] for row in rows("train")} - {None}
    for split in ("validation", "test"):
        assert not seen & ({said(row)[2]["order"] for row in rows(split)} - {None})


@pytest.mark.parametrize("split", SPLITS)
def test_there_are_four_languages(split: str) -> None:
    counted = Counter(row["language"] for row in rows(split))

    assert len(counted) == LANGUAGES
    assert min(counted.values()) >= 0.05 * len(rows(split)), counted


def test_one_system_prompt_names_the_fields() -> None:
    prompts = {said(row)[0] for split in SPLITS for row in rows(split)}

    assert len(prompts) == 1
    assert all(field in next(iter(prompts)) for field in FIELDS)


@pytest.mark.parametrize("split", SPLITS)
def test_no_prompt_stands_twice_in_a_split(split: str) -> None:
    counted = Counter(re.sub(r"\W+", " ", said(row)[1].casefold()).strip() for row in rows(split))

    assert [words for words, times in counted.items() if times > 1] == []


@pytest.mark.parametrize(("left", "right"), [("train", "validation"), ("train", "test"), ("validation", "test")])
def test_splits_share_no_near_duplicates(left: str, right: str) -> None:
    found = most_similar(conversations(left), conversations(right))

    assert found is not None
    print(f"{left}/{right}: most alike {found.similarity:.3f} ({found.first}, {found.second})")  # noqa: T201 the measured maximum is to be seen
    assert found.near_duplicates == 0
    assert found.similarity < MOST_ALIKE


def test_the_recipe_names_these_files() -> None:
    settings = config.load(ROOT / "recipes" / "quickstart.toml")

    named = [*settings.data.train, *settings.data.validation, *settings.evaluate.task, *settings.evaluate.general]
    assert named == [
        "datasets/support/train.jsonl",
        "datasets/general_train.jsonl",
        "datasets/support/validation.jsonl",
        "datasets/support/test.jsonl",
        "datasets/general.jsonl",
    ]
    assert all((ROOT / name).is_file() for name in named)
    assert os.path.getsize(ROOT / "datasets" / "general.jsonl") > 0

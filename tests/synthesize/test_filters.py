"""Each rule takes what it is for, whole words only, in any script."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from tutelage.synthesize.filters import published_filters
from tutelage.types import Address

SEEDS = Path(__file__).parents[3] / "shared/material/data/selfinstruct_seed_tasks.jsonl"
HERE = Address("request 1", 1, "item")


@pytest.mark.parametrize(
    ("instruction", "reason"),
    [
        ("Translate the text.", "instruction_too_short"),
        ("Translate this short text.", None),
        ("写诗吧", "instruction_too_short"),
        ("写一首关于春天的诗", None),
        ("word " * 151, "instruction_too_long"),
        ("word " * 150, None),
        ("Describe what the picture shows in detail.", "beyond_text"),
        ("Describe the MAP of this region in words.", "beyond_text"),
        ("Explain what a mapping between sets is.", None),  # no whole word
        ("Go to the nearest shop and buy bread.", "beyond_text"),
        ("- List five common fruits please", "begins_with_punctuation"),
        ("<b>List five common fruits please", "begins_with_punctuation"),
        ("Write a program that sorts a list.", "asks_for_a_program"),
        ("write a Program that sorts a list.", "asks_for_a_program"),
        ("Write a programme of events for the day.", "asks_for_a_program"),
        ("Élaborez un plan de repas pour la semaine.", None),
    ],
)
def test_rules(instruction: str, reason: str | None) -> None:
    found = published_filters().drop(instruction, HERE)
    assert (found and found.reason) == reason


@pytest.mark.skipif(not SEEDS.is_file(), reason="the published seed tasks are not here")
def test_few_of_the_published_seeds_would_go() -> None:
    lines = SEEDS.read_text(encoding="utf-8").splitlines()
    found = [published_filters().drop(json.loads(line)["instruction"], HERE) for line in lines]
    assert Counter(one.reason for one in found if one) == {
        "instruction_too_short": 1,
        "asks_for_a_program": 1,
        "beyond_text": 1,
    }

"""A small table and a task file on it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from tutelage import config
from tutelage.config.settings import Settings

TOWNS = ("Lyon", "Porto", "Graz", "Bergen", "Turku", "Gent", "Brno", "Cork")
THINGS = ("a red bicycle", "two old lamps", "the green door", "one blue boat", "a very tall tree")

TASK = """
name = "town_mood"
cluster = "sentiment"
table = "towns.jsonl"
license = "CC-BY-NC-4.0"
choices = ["good", "bad"]
rationale = "why"

[columns]
text = "text"
why = "why"
answer = {column = "label", labels = {0 = "bad", 1 = "good"}}

[[templates]]
input = "{{ text }}\\nIs that good or bad?"

[[templates]]
input = "{{ options_list }}\\nJudge: {{ text }}"

[[templates]]
input = "Say something {{ answer }}."
target = "{{ text }}"
"""


def town_rows(count: int, *, offset: int = 0) -> list[dict[str, Any]]:
    """Rows that no two of are alike."""
    rows = []
    for number in range(offset, offset + count):
        town, thing = TOWNS[number % len(TOWNS)], THINGS[number % len(THINGS)]
        label = number % 2
        text = f"In {town} on day {number} I saw {thing} and number {number * 7919} was written on its side"
        rows.append({"text": text, "label": label, "why": f"{thing} is {'fine' if label else 'worn'}."})
    return rows


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[..., Path]:
    def write(rows: Iterable[dict[str, Any]], name: str = "towns.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture
def write_task(tmp_path: Path) -> Callable[..., Path]:
    def write(text: str = TASK, name: str = "town_mood.toml") -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def settings_of() -> Callable[..., Settings]:
    def settings(*overrides: str) -> Settings:
        return config.load_curation(None, list(overrides), sources=["-"])

    return settings

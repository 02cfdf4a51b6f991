"""docs/reliability.md: every kind of fault that was found has its line, and tests that carry its number."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
KINDS = {"R": 29, "M": 7, "D": 13, "E": 4, "B": 25, "P": 4}
"""Models, methods and rows; masks; rows; data in; runs and files; plan and machine."""
NUMBERS = [f"{letter}{number}" for letter, count in KINDS.items() for number in range(1, count + 1)]


def names_by_number() -> dict[str, set[str]]:
    """Names of test functions, by each number at their front."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        for name, numbers in re.findall(
            r"^\s*def (test_((?:[rmdebp]\d+_)+)\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE
        ):
            for number in re.findall(r"[rmdebp]\d+", numbers):
                found.setdefault(number.upper(), set()).add(name)
    return found


def test_every_fault_has_a_test_that_carries_its_number() -> None:
    assert sorted(set(NUMBERS) - set(names_by_number())) == []


def test_every_fault_has_a_line_that_names_one_of_its_tests() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    lines = dict(re.findall(r"^\| ([RMDEBP]\d+) \| .*`tests/[\w/.]+(?:::\w+)*::(\w+)`", page, re.MULTILINE))
    assert list(lines) == NUMBERS
    by_number = names_by_number()
    assert {number: name for number, name in lines.items() if name not in by_number[number]} == {}

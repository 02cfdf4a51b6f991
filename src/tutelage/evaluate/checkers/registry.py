"""The checkers of the task's replies, by the names that `evaluate.checkers` takes."""

from __future__ import annotations

from tutelage.evaluate.checkers.checker import Checker
from tutelage.evaluate.checkers.json_schema import JSON_CHECKERS
from tutelage.evaluate.checkers.numbers import NUMBER_CHECKERS
from tutelage.evaluate.checkers.text import TEXT_CHECKERS
from tutelage.evaluate.checkers.tool_calls import CALL_CHECKERS

CHECKERS: dict[str, Checker] = {
    checker.name: checker for checker in (*TEXT_CHECKERS, *NUMBER_CHECKERS, *JSON_CHECKERS, *CALL_CHECKERS)
}

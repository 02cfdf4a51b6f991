"""Checks whose rules come from data, in a process of their own with a time limit: a pattern can backtrack for ever.

Python's `re` tries alternatives one after the other and cannot be told to stop; a thread cannot end it, and a signal
reaches the main thread alone. So one process per program matches, and is ended where it takes too long.
"""

from __future__ import annotations

import atexit
import json
import os
import re
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any, Literal

from tutelage.errors import DependencyError
from tutelage.evaluate.checkers.json_schema import schema_check
from tutelage.system.workers import Workers, serve

LIMIT_SECONDS = 5.0
"""Of one reply. Our choice: a pattern that is meant well takes microseconds, also on a machine that is busy."""
SHOWN_CHARACTERS = 60

Kind = Literal["regex", "json_schema"]


def fits(kind: Kind, rule: Any, text: str) -> bool:
    """Whether a text is as a rule from data says.

    Args:
        kind: `regex`: `re.search` finds the pattern, ^ and $ match at lines; `json_schema`: it is JSON of this schema.
        rule: the pattern, or the schema as it was decoded.
        text: a stripped reply.

    Raises:
        TimeoutError: that took more than `LIMIT_SECONDS`.
        ValueError: a reference of the schema leads nowhere.
    """
    asked = rule if kind == "regex" else json.dumps(rule)
    return bool(_workers(os.getpid(), LIMIT_SECONDS).submit((kind, asked, text)).result())


@lru_cache
def _workers(process: int, limit_seconds: float) -> Workers:  # noqa: ARG001 a fork must not share its parent's pipe
    """The one process that checks, started with the first check; it ends with this one."""
    workers = Workers(__name__, None, 1, where=_where, fix="leave this row out", limit_seconds=limit_seconds)
    workers.__enter__()
    atexit.register(workers.__exit__, None, None, None)
    return workers


def _where(question: tuple[Kind, str, str]) -> str:
    return f"{question[0]} {question[1][:SHOWN_CHARACTERS]}"


def serve_worker() -> None:
    """In the process that checks."""
    serve(_prepare)


def _prepare(_start: None) -> Callable[[tuple[Kind, str, str]], bool]:
    with suppress(DependencyError):  # loaded now, as it takes longer than a check may
        schema_check({})
    return lambda question: _check(*question[:2])(question[2])


@lru_cache
def _check(kind: Kind, rule: str) -> Callable[[str], bool]:
    if kind == "json_schema":
        return schema_check(json.loads(rule))
    pattern = re.compile(rule, re.MULTILINE)
    return lambda text: pattern.search(text) is not None

"""Code in a reply: where it stands, and whether it passes the tests of its row."""

from __future__ import annotations

import re
from typing import Final

from tutelage.evaluate.checkers.sandbox import DEFAULT_LIMITS, CodeRun, Limits, run_code

_FENCE: Final = re.compile(r"^[ ]{0,3}```[ \t]*(?:python3?|py)[ \t]*\n(.*?)(?:^[ ]{0,3}```|\Z)", re.M | re.S | re.I)
"""A block that is marked as Python; a reply cut off inside it has no end."""


def code_in(reply: str) -> str:
    """The first block of Python in a reply; where none is marked so, all of it."""
    block = _FENCE.search(reply)
    return reply if block is None else block[1]


def run_reply(reply: str, tests: str, *, limits: Limits = DEFAULT_LIMITS, isolated: bool = True) -> CodeRun:
    """Run the code of a reply, then the tests; see `sandbox.run_code`.

    Raises:
        EngineError: the system does not permit the isolation.
    """
    return run_code(code_in(reply), tests, limits=limits, isolated=isolated)

"""Of several processes that share replies, one checks them: code in a reply runs once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from tutelage.evaluate import suite
from tutelage.evaluate.checks import CHECKS
from tutelage.evaluate.general import GeneralItem
from tutelage.evaluate.grading import Graded
from tutelage.evaluate.heldout import HeldoutLoss
from tutelage.generate.requests import EndedReply
from tutelage.types import Address

ITEM = GeneralItem(
    Address("general.jsonl", 1), "", "?", (CHECKS["min_words"].model_validate({"kind": "min_words", "count": 1}),)
)
ASKED = suite._Asked({"general": [EndedReply("yes", 1, "stop")]})
QUESTIONS = suite.EvalSuite((), (), (ITEM,), 4, 1)


def measured(*, is_main: bool, of_main: Graded | None) -> suite.EvalResult:
    """What a process comes to; another one is told what the main one found."""
    group = SimpleNamespace(size=1, is_main=is_main, gather=lambda own: [own if of_main is None else of_main])
    return suite._graded(QUESTIONS, ASKED, HeldoutLoss(), {}, cast(Any, group))


def test_the_main_process_checks_and_others_take_its_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[int] = []
    grade = suite.grade

    def counting(*asked: Any, **how: Any) -> Graded:
        checked.append(1)
        return grade(*asked, **how)

    monkeypatch.setattr(suite, "grade", counting)

    main = measured(is_main=True, of_main=None)
    other = measured(is_main=False, of_main=Graded({"general": [True]}, {}))

    assert checked == [1]
    assert main.measures.general == other.measures.general == 1.0
    assert main.outcomes["general"] == other.outcomes["general"] == [True]

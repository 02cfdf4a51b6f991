"""The step `quality`: the first failing rule drops, all failing rules are named, each can report, mask or run alone."""

from __future__ import annotations

import builtins
import pickle
from typing import Any

import pytest
from pydantic import ValidationError

from tests.curate.quality.rows import chat
from tutelage.config.curation_quality import QualitySettings
from tutelage.curate.quality import Quality
from tutelage.curate.quality.language import _identifier
from tutelage.curate.quality.rules import RULES
from tutelage.curate.step import Edited, RowStep
from tutelage.errors import DependencyError
from tutelage.types import Drop

BAD = chat("Hi", "I'm sorry, but I can't assist with that. Write to anna.k@webmail.net, it is the best of the")
SOUND = chat("What is the capital of Australia?", "Canberra is the capital of Australia.")


def test_every_rule_has_a_table_of_settings_in_the_same_order() -> None:
    assert [name for name in QualitySettings.model_fields if name != "rules"] == [rule.name for rule in RULES]


def test_the_first_failing_rule_drops_and_the_others_are_named() -> None:
    outcome = Quality(QualitySettings())(BAD)
    assert isinstance(outcome, Drop)
    assert outcome.reason == "cut"
    assert outcome.detail.startswith("cut: ")
    assert "refusal: " in outcome.detail
    assert "personal: " in outcome.detail
    assert "anna" not in outcome.detail.replace("...'", "")[:0] + outcome.detail.split("personal: ")[1]


def test_a_rule_that_reports_keeps_the_row() -> None:
    settings = QualitySettings.model_validate({"cut": {"action": "report"}, "refusal": {"action": "off"}})
    outcome = Quality(settings)(BAD)
    assert isinstance(outcome, Edited)
    assert outcome.conversation is BAD
    assert [change.reason for change in outcome.changes] == ["cut", "personal"]


def test_masking_keeps_the_row_without_the_datum() -> None:
    settings = QualitySettings.model_validate({"rules": ["personal"], "personal": {"action": "mask"}})
    outcome = Quality(settings)(BAD)
    assert isinstance(outcome, Edited)
    assert "Write to [EMAIL], it" in str(outcome.conversation.messages[1].content)


@pytest.mark.parametrize("name", [rule.name for rule in RULES if rule.name not in ("toxicity", "language")])
def test_every_rule_runs_alone(name: str) -> None:
    step = Quality(QualitySettings(rules=[name]))
    assert [rule.name for rule in step.rules] == [name]
    assert step(SOUND) is SOUND


def test_an_unknown_rule_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValidationError, match="did you mean 'repetition'"):
        QualitySettings(rules=["repetitions"])


def test_it_goes_to_workers_and_does_the_same_there() -> None:
    step = Quality(QualitySettings())
    assert isinstance(step, RowStep)
    copy = pickle.loads(pickle.dumps(step))
    assert copy(BAD) == step(BAD)
    assert copy(SOUND) is SOUND


def test_a_missing_package_is_said_when_the_step_is_built_and_only_if_it_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real_import = builtins.__import__

    def without_py3langid(name: str, *rest: Any) -> Any:
        if name.startswith("py3langid"):
            raise ImportError("No module named 'py3langid'")
        return real_import(name, *rest)

    _identifier.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without_py3langid)
    assert Quality(QualitySettings()).rules
    with pytest.raises(DependencyError) as raised:
        Quality(QualitySettings.model_validate({"language": {"languages": ["en"]}}))
    assert "pip install 'tutelage[curate]'" in str(raised.value)

"""The step `normalize`: every edit is a change in the ledger, each can be switched off, what is sound is the same."""

from __future__ import annotations

import pickle

import pytest

pytest.importorskip("ftfy", reason="the extra [curate] is not installed")

from tutelage.config.curation_normalize import NormalizeSettings
from tutelage.curate.normalize import Normalize
from tutelage.curate.step import Edited, RowStep
from tutelage.types import Address, Conversation, Drop, Message

HERE = Address("a.jsonl", 3)


def row(prompt: str, reply: str, reasoning: str | None = None) -> Conversation:
    return Conversation((Message("user", prompt), Message("assistant", reply, reasoning=reasoning)), HERE)


DEBRIS = {
    "chat_templates": (row("[INST] Hi [/INST]", "Yes."), row("Hi", "Yes."), "chat_template_in_text"),
    "end_tokens": (row("Hi", "Yes.<|endoftext|>"), row("Hi", "Yes."), "end_token_in_text"),
    "mojibake": (row("Hi", "cafÃ©"), row("Hi", "café"), "mojibake"),
    "control_characters": (row("Hi", "Yes\x00."), row("Hi", "Yes."), "control_characters"),
    "nfc": (row("Hi", "cafe\u0301"), row("Hi", "café"), "unicode_form"),
    "literal_newlines": (row(r"Which?\nA or B", "A"), row("Which?\nA or B", "A"), "literal_newlines"),
    "html_entities": (row("Tom &amp; Jerry", "Yes."), row("Tom & Jerry", "Yes."), "html_entities"),
    "empty_inputs": (row("Name it.\n\nNo input", "Yes."), row("Name it.", "Yes."), "empty_input"),
    "reasoning_tags": (row("Hi", "sum\n</think>\nYes."), row("Hi", "Yes.", "sum"), "reasoning_tag"),
}


@pytest.mark.parametrize("setting", DEBRIS)
def test_an_edit_is_reported_and_can_be_switched_off(setting: str) -> None:
    debris, clean, reason = DEBRIS[setting]
    outcome = Normalize(NormalizeSettings())(debris)
    assert isinstance(outcome, Edited)
    assert outcome.conversation == clean
    assert [(change.reason, change.address) for change in outcome.changes] == [(reason, HERE)]
    assert outcome.changes[0].detail
    off: object = "off" if setting == "chat_templates" else False
    assert Normalize(NormalizeSettings(**{setting: off}))(debris) is debris


def test_several_edits_are_several_changes_with_before_and_after() -> None:
    outcome = Normalize(NormalizeSettings())(row("Say it.\n\nN/A", "Un cafÃ©<|im_end|>"))
    assert isinstance(outcome, Edited)
    assert outcome.conversation == row("Say it.", "Un café")
    details = {change.reason: change.detail for change in outcome.changes}
    assert details["mojibake"] == "'Un cafÃ©' -> 'Un café'"
    assert set(details) == {"mojibake", "end_token_in_text", "empty_input"}


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (row("Who are you?", "I am {{name}}."), "unfilled_variable"),
        (row("Hi", "<think>\nwell"), "reasoning_unfinished"),
        (
            row("Hi", "Yes<|im_end|>\n<|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant\nNo"),
            "chat_template_in_text",
        ),
    ],
)
def test_what_cannot_be_mended_is_dropped_with_its_words(broken: Conversation, reason: str) -> None:
    outcome = Normalize(NormalizeSettings())(broken)
    assert isinstance(outcome, Drop)
    assert outcome.reason == reason
    assert any(word in outcome.detail for word in ("{{name}}", "<think>", "im_start"))


def test_a_slot_in_brackets_is_reported_or_dropped() -> None:
    letter = row("Write a letter.", "Dear team,\nthanks.\n[Your Name]")
    reported = Normalize(NormalizeSettings())(letter)
    assert isinstance(reported, Edited)
    assert reported.conversation is letter
    assert isinstance(Normalize(NormalizeSettings(bracket_slots="drop"))(letter), Drop)
    assert Normalize(NormalizeSettings(bracket_slots="off"))(letter) is letter


@pytest.mark.parametrize(
    "sound",
    [
        row("Größe?", "“Zwölf” – sagt er…"),
        row("Show the code.", "```python\nprint('cafÃ©\\n')\nx = '&amp;'\n```"),
        row("Und?", ""),
        Conversation(
            (Message("user", "Hi"), Message("tool", "cafÃ©\x00<|endoftext|>"), Message("assistant", "Yes.")), HERE
        ),
        Conversation((Message("text", "A page of text.\n\nNo input"),), HERE),
        Conversation((Message("user", "Hi"), Message("assistant", None)), HERE),
    ],
)
def test_sound_rows_and_results_of_tools_are_the_same_object(sound: Conversation) -> None:
    assert Normalize(NormalizeSettings())(sound) is sound


def test_it_goes_to_workers_and_does_the_same_there() -> None:
    step = Normalize(NormalizeSettings())
    assert isinstance(step, RowStep)
    copy = pickle.loads(pickle.dumps(step))
    debris = row("Hi", "cafÃ©")
    assert copy(debris) == step(debris)

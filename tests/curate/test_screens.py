"""Screens hold back no row in which a step finds something: what becomes of a row is the same without them."""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("ftfy", reason="the extra [curate] is not installed")

from tutelage.config.curation_consistency import ConsistencySettings
from tutelage.config.curation_duplicates import ExactDuplicatesSettings
from tutelage.config.curation_normalize import NormalizeSettings
from tutelage.config.curation_quality import QualitySettings
from tutelage.curate.consistency import MARKS, Consistency, final_answer
from tutelage.curate.exact_duplicates import ExactDuplicates
from tutelage.curate.normalize import Normalize
from tutelage.curate.quality import Quality
from tutelage.curate.screens import DIGIT, ODD_DIGIT, SPACE, TextColumn, any_case, any_of
from tutelage.curate.step import ScreenedStep
from tutelage.types import Address, Conversation, Message, Role

HERE = Address("a.jsonl", 1)
FRAGMENTS = (
    "DE89 3704 0044 0532 0130 00", "4532015112830366", "4532-0151-1283-0366", "(212) 664-7665", "212.664.7665",
    "=+4912",     "+49 30 901820", "٤٥٣٢٠١٥١١٢٨٣٠٣٦٦", "193.99.144.80", "378734493671000", "ghp_" + "aB3" * 12,
    "#### 4\n", "The final anſwer is 5.", "the answer is ", r"\boxed{4}", "\n- item", "\n1. x", "  ", "**b**", "|a|",
    "Let me Know if", "Best regards,\nJo", "I’m a ", "I am your", '.")',
    "I'm sorry, but I cannot help with that.", "I’m sorry, but I can’t ", "assist", "Hello,\u00a0",
    "Als Sprachmodell", "As an AI language model, I", "i cannot have access to the internet", "`", "```",
    "```json\n", "~~~\n", "{", '["a": ', "AKIA", "sk-", "a" * 40, "jane", "@", "mail.org", "+49 (0)", "170",
    "123", "٣٤٥", "4111 1111 1111 1111", "192.168.7.9", "<think>", "</think>", "<|im_start|>user\n", "<|im_end|>",
    "### Human:", "USER: ", "</s>", "<|endoftext|>", "[EOS]", "cafÃ©", "â€™", "e\u0301", "\u200b", "\x1b[31m",
    "\r\n", "\x0b", "\x85", "\\n", "&amp;", "&#39;", "{{name}}", "[Your Name]", "[your İnfo]", "\n\nN/A.",
    "\n\nno input", "No Input ", "\\frac{a}{b}", "\\(", "\\)", "$$", "x_{1}", "$x", "the", "and", " a", ",", ".",
    "…", "*", "#", "-", " ", "\n", "\n\n", "\u2003", "\ud83d\ude00", "ſ", "İ", "K", "word ",
    "One and one is two. ", "Hola, como estas? ", "作为一个AI语言模型，我没有", "ไทย", "",
)  # fmt: skip
TEXTS = st.lists(st.sampled_from(FRAGMENTS), max_size=7).map("".join)
STORED_TEXTS = TEXTS.map(lambda text: text.encode("utf-8", "ignore").decode())
"""Such as lie in chunks, where no half of a surrogate pair is."""
LONG_TEXTS = st.builds(lambda text, times: text * times, TEXTS, st.sampled_from((1, 1, 1, 12, 60)))
ROLES = st.sampled_from(
    (("user", "assistant"), ("text",), ("system", "user", "assistant"), ("user", "assistant", "user", "assistant"))
)


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    """Rows of texts that rules look for, and of what is nearly that."""
    roles: tuple[Role, ...] = draw(ROLES)
    weights = st.sampled_from((None, None, None, 0.0, 1.0))
    return Conversation(tuple(Message(role, draw(LONG_TEXTS), weight=draw(weights)) for role in roles), HERE)


def steps() -> list[ScreenedStep]:
    """The steps that look at a chunk first, with all that they do; each is one by its form."""
    rules = {name: {"action": "drop"} for name in ("too_short", "length_ratio", "personal")}
    built = [Normalize(NormalizeSettings()), Quality(QualitySettings.model_validate(rules))]
    assert all(isinstance(step, ScreenedStep) for step in built)
    return built


@settings(max_examples=300, deadline=None)
@given(st.lists(conversations(), min_size=1, max_size=8))
def test_a_screen_changes_what_becomes_of_no_row(rows: list[Conversation]) -> None:
    for step in steps():
        possible = step.screen(rows).tolist()
        screened = [step.judged(row, found) if found else row for row, found in zip(rows, possible, strict=True)]
        assert screened == [step(row) for row in rows]


@settings(max_examples=200, deadline=None)
@given(st.lists(STORED_TEXTS, min_size=1, max_size=8))
def test_marks_and_answers_are_those_that_a_search_of_every_text_finds(texts: list[str]) -> None:
    rows = [Conversation((Message("user", "Say it."), Message("assistant", text)), HERE) for text in texts]
    features = Consistency(ConsistencySettings()).features(rows).to_pydict()
    assert features["answer"] == list(map(final_answer, texts))
    assert features["marks"] == [
        sum(1 << place for place, holds in enumerate(MARKS.values()) if holds(text)) for text in texts
    ]


@settings(max_examples=200, deadline=None)
@given(st.lists(STORED_TEXTS, min_size=1, max_size=8))
def test_white_space_is_made_single_in_every_text_that_has_other(texts: list[str]) -> None:
    rows = [Conversation((Message("user", text), Message("assistant", "It is.")), HERE) for text in texts]
    features = ExactDuplicates(ExactDuplicatesSettings()).features(rows).to_pydict()
    single = [" ".join(unicodedata.normalize("NFC", text).split()) for text in texts]
    turns = [[["user", None, None, text], ["assistant", None, None, "It is."]] for text in single]
    assert features["characters"] == [len(json.dumps([of_row, [], {}])) for of_row in turns]
    hashes = list(zip(features["high"], features["low"], strict=True))
    same = dict(zip(single, hashes, strict=True))
    assert [same[text] for text in single] == hashes
    assert len(set(same.values())) == len(same)


def test_a_row_that_cannot_be_scanned_is_looked_at_alone() -> None:
    row = Conversation((Message("user", "half a pair \ud800"), Message("assistant", "Yes, it is one.")), HERE)
    for step in steps():
        assert step.screen([row]).tolist()[0] != 0


def test_a_plain_row_is_not_asked_by_the_dear_rules() -> None:
    """That screens are of use: of an ordinary row nothing but the words of its reply is counted."""
    plain = "The shop on the corner sells bread in the morning and closes at noon. "
    row = Conversation((Message("user", plain), Message("assistant", plain * 2 + "It is shut on Sundays.")), HERE)
    normalize, quality = steps()
    assert normalize.screen([row]).tolist() == [0]
    names = [rule.name for rule in Quality(QualitySettings()).rules]
    (possible,) = quality.screen([row]).tolist()
    assert [name for place, name in enumerate(names) if possible >> place & 1] == ["repetition"]


@pytest.mark.parametrize(
    ("pattern", "holds"),
    [
        (f"[{SPACE}]", str.isspace),
        (f"[{SPACE}]", lambda character: re.match(r"\s", character) is not None),
        (DIGIT, lambda character: re.match(r"\d", character) is not None),
        (ODD_DIGIT, lambda character: re.match(r"\d", character) is not None and not character.isascii()),
        (any_case("[a-z]"), lambda character: re.match("[a-z]", character, re.IGNORECASE) is not None),
        (any_case("[a-z]"), lambda character: re.search("[a-z]", character.lower()) is not None),
    ],
)
def test_a_class_holds_every_character_that_pythons_does(pattern: str, holds: Callable[[str], bool]) -> None:
    characters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    matched = TextColumn([characters]).matches(pattern)
    wanted = np.array([holds(character) for character in characters])
    assert not (wanted & ~matched).any()
    # RE2 brings a newer Unicode than older Pythons: 20 digits more than Python 3.11 has, none more than 3.12.
    assert (matched & ~wanted).sum() <= 20


def test_rows_of_several_texts_and_of_none() -> None:
    column = TextColumn([["a", "b"], [], ["b"], [""]])
    assert column.rows_with("b").tolist() == [True, False, True, False]
    assert column.rows_with("^$").tolist() == [False, False, False, True]
    assert column.rows_with(any_of([])).tolist() == [False] * 4

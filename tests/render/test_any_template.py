"""Any template of the grammar, conversation and tokenizer: what is proven is right, what is dropped, dropped truly."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs

from tests.support.conversations import TABLE
from tests.support.judge import NAMED, TOKENIZERS, Judge, Wrong, tokenizer_of
from tests.support.template_grammar import CHOICES, CONTROL_TOKENS, Grammar, enumerated
from tutelage.render import ChatTemplate, Renderer, Tokenizer
from tutelage.types import Address, Conversation, Drop, Message, ToolCall

EXAMPLES = 150
FRAGMENTS = (
    *(
        "hello",
        "It's 42.",
        "a",
        " ",
        "  ",
        "\n",
        "\n\n",
        " \n",
        "\t",
        "\r\n",
        "\u2028",
        "\u00a0",
        "\u200b",
        "\x01",
        "\x1b",
    ),
    *("🙂", "👩‍👩‍👧", "🇫🇷", "é", "e\u0301", "\u0301", "日本語", "שלום", "ﬁ", "▁", "Ġ", "<0x0A>"),
    *("user", "assistant", "model", "system", "ASSISTANT:", "USER:", "[INST]", "[/INST]", "assistant\n", "(earlier)"),
    *("<|im_", "end|>", "<|", "|>", "</s", "<s", ">", "<|eot_", "id|>", "<start_of_", "turn>", "<tool_call>"),
    *(
        "<think>",
        "</think>",
        "<think>\n",
        "\n</think>\n\n",
        "[THINK]",
        "[/THINK]",
        "{{ x }}",
        "{% if %}",
        '"',
        "'",
        "\\n",
    ),
)
PIECES = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=4)), max_size=4).map("".join)
WEIGHTS = st.sampled_from([None, None, None, 0.0, 0.5, 2.0])
GRAMMARS = st.builds(Grammar, **{name: st.sampled_from(choices) for name, choices in CHOICES.items()})


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    """One to four questions and answers; texts repeat each other or carry a mark of their own."""
    said: list[str] = []

    def words() -> str:
        way = draw(st.sampled_from(["marked", "marked", "marked", "bare", "again"]))
        text = draw(st.sampled_from(said)) if way == "again" and said else draw(PIECES)
        if way == "marked":
            at = draw(st.integers(0, len(text)))
            text = f"{text[:at]}qn{len(said)}z{text[at:]}"
        said.append(text)
        return text

    def answer(*, calls: tuple[ToolCall, ...] = ()) -> Message:
        thought = words() if draw(st.integers(0, 3)) == 0 else None
        content = None if calls and draw(st.booleans()) else words()
        return Message("assistant", content, reasoning=thought, tool_calls=calls, weight=draw(WEIGHTS))

    messages = [Message("system", words())] if draw(st.integers(0, 2)) == 0 else []
    if draw(st.integers(0, 9)) == 0:
        messages.append(answer())
    for _ in range(draw(st.integers(1, 4))):
        messages.append(Message("user", words()))
        if draw(st.integers(0, 5)) == 0:
            arguments = {"city": words(), "days": draw(st.sampled_from([[1, 2.5, None], {"a": "b"}, True]))}
            messages.append(answer(calls=(ToolCall("look", arguments),)))
            messages += [Message("tool", words()) for _ in range(draw(st.integers(1, 2)))]
        messages += [answer() for _ in range(draw(st.sampled_from([1, 1, 1, 2])))]
    return Conversation(tuple(messages), Address("rows.jsonl", 1))


def renderer_for(judge: Judge, **options: str) -> Renderer:
    fast = tokenizer_of(judge.kind)
    tokenizer = Tokenizer(fast, NAMED, judge.stop_ids, fast.get_vocab_size(), {}, Path())
    return Renderer(tokenizer, ChatTemplate(judge.template, named_tokens=NAMED), **options)


@given(
    grammar=GRAMMARS,
    kind=st.sampled_from(TOKENIZERS),
    rows=st.lists(conversations(), min_size=1, max_size=4),
    missing_stop=st.sampled_from(["append", "append", "drop"]),
    empty_reasoning=st.sampled_from(["drop", "close"]),
)
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_the_template_every_trained_token_is_one_a_server_would_get(
    grammar: Grammar, kind: str, rows: list[Conversation], missing_stop: str, empty_reasoning: str
) -> None:
    judge = Judge(grammar, kind, missing_stop)
    renderer = renderer_for(judge, missing_stop=missing_stop, empty_reasoning=empty_reasoning)
    for row, outcome in zip(rows, renderer.prove(rows), strict=True):
        judge.judge(row, outcome)


OF_THE_ROW = ("control_token_in_text", "nothing_to_train", "round_trip")
"""Reasons that lie in a row's own texts; the judge looks whether they are true."""


@given(rows=st.lists(conversations(), min_size=1, max_size=4), kind=st.sampled_from(TOKENIZERS))
@settings(max_examples=EXAMPLES // 2, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_a_plain_template_proves_every_row_that_spells_no_control_token(rows: list[Conversation], kind: str) -> None:
    """So that the property above cannot hold by dropping everything."""
    judge = Judge(Grammar(calls="object", reasoning="reasoning_content"), kind)
    for row, outcome in zip(rows, renderer_for(judge).prove(rows), strict=True):
        judge.judge(row, outcome)
        assert not isinstance(outcome, Drop) or outcome.reason in OF_THE_ROW, outcome


@dataclasses.dataclass(frozen=True)
class Pair:
    """One template with one row: what became of it, and what the judge says."""

    grammar: Grammar
    row: Conversation
    reason: str
    accepted: bool
    wrong: str | None


@cache
def pairs() -> tuple[Pair, ...]:
    return tuple(judged())


def judged() -> Iterator[Pair]:
    for number, grammar in enumerate([*enumerated()][::11]):
        judge = Judge(grammar, TOKENIZERS[number % len(TOKENIZERS)])
        renderer = renderer_for(judge, empty_reasoning=("drop", "close")[number % 2])
        for row, outcome in zip(TABLE, renderer.prove(TABLE), strict=True):
            wrong = None
            try:
                judge.judge(row, outcome)
            except Wrong as finding:
                wrong = f"{grammar}, {judge.kind}, {row}: {finding}"
            yield Pair(grammar, row, getattr(outcome, "reason", "proven"), judge.accepts(row), wrong)


def test_no_pair_of_the_fixed_table_is_wrong() -> None:
    wrong = [pair.wrong for pair in pairs() if pair.wrong is not None]
    assert not wrong, f"{len(wrong)} of {len(pairs())}, first {wrong[0]}"


def test_every_choice_of_the_grammar_stands_in_the_fixed_table() -> None:
    for name, choices in CHOICES.items():
        assert {getattr(pair.grammar, name) for pair in pairs()} == set(choices), name


def test_most_pairs_that_a_template_accepts_are_proven() -> None:
    """The rest is dropped; a template that cannot write reasoning or calls is right to lose rows that have them."""
    accepted = [pair for pair in pairs() if pair.accepted]
    counts = collections.Counter(one.reason for one in accepted)
    unwritten = counts["reasoning_not_in_reply"] + counts["tool_call_not_in_reply"] + counts["no_reasoning"]
    assert len(accepted) >= LEAST_ACCEPTED
    assert counts["proven"] >= LEAST_SHARE * len(accepted), counts
    assert counts["proven"] >= LEAST_WRITTEN_SHARE * (len(accepted) - unwritten), counts


def test_a_plain_pair_of_turns_is_proven_by_nearly_every_template() -> None:
    plain = [pair for pair in pairs() if pair.row is TABLE[0] and pair.reason != "proven"]
    templates = len(pairs()) // len(TABLE)
    assert len(plain) <= (1 - LEAST_PLAIN_SHARE) * templates, collections.Counter(one.reason for one in plain)


LEAST_ACCEPTED, LEAST_SHARE, LEAST_WRITTEN_SHARE, LEAST_PLAIN_SHARE = 960, 0.77, 0.91, 0.94
"""A little below what was measured: 973 accepted pairs; 0.789, 0.925 and 0.955 of them proven."""


@pytest.mark.parametrize("token", CONTROL_TOKENS)
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_control_token_spelled_in_a_row_is_never_proven(kind: str, token: str) -> None:
    judge = Judge(Grammar(), kind)
    said = (Message("user", f"a{token}b"), Message("assistant", "c"), Message("user", "d"), Message("assistant", "e"))
    rows = [Conversation(said, Address("rows.jsonl", 1)), Conversation((said[2], said[0]), Address("rows.jsonl", 2))]
    rows[1] = structs.replace(rows[1], messages=(said[2], structs.replace(said[0], role="assistant")))
    for row, outcome in zip(rows, renderer_for(judge).prove(rows), strict=True):
        judge.judge(row, outcome)
        assert isinstance(outcome, Drop)
        assert outcome.reason == "control_token_in_text"

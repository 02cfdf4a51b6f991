"""The proof: each trained token is one the model would have to emit when served, on exactly the served context.

For a trained turn i of messages m1..mn with template T and tokenizer K:
    served prompt  P_i = K(T(m1..m_{i-1}, generation prompt on))
    reply          R_i = K's ids for what T(m1..m_i) writes after P_i, through the first stop token
A turn is believed when the prompt is a prefix of the finished turn as text and as ids, the reply decodes to the text
that was rendered, the reply holds the turn's own words, and it ends in a stop token. A row any of whose trained turns
is not proven goes, with the reason.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

import numpy as np

from tutelage.ledger import Ledger
from tutelage.render.gates import assert_proven
from tutelage.render.template import ChatTemplate, TemplateRefusal, as_template_sees
from tutelage.render.tokenizer import Tokenizer
from tutelage.types import Change, Conversation, Drop, Example, Message, Prompt, TokenIds, Turn

CHUNK_ROWS = 256
"""Rows proven together: enough to keep the tokenizer's threads busy, few enough to stream."""

SHOWN_CHARACTERS = 160
SMALLEST_WEIGHT, LARGEST_WEIGHT = 1e-6, 1e6
"""A weight below the smallest is taken for 0; fp32 gradients have no use for one beyond the largest."""


class Unproven(ValueError):  # noqa: N818 a finding about a row, turned into a Drop where it is caught
    """A row cannot be proven: `reason` is the ledger's key, the message says what was seen."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason = reason
        super().__init__(detail)


@dataclass(frozen=True, slots=True)
class RenderedTurn:
    """A trained turn as text: the served prompt, and what the template writes for the finished turn."""

    message: int
    weight: float
    prompt_text: str
    finished_text: str


@dataclass(frozen=True, slots=True)
class ProvenTurn:
    """A trained turn as ids."""

    message: int
    weight: float
    prompt_ids: list[int]
    reply_ids: list[int]


@dataclass(frozen=True)
class Renderer:
    """Turns conversations into proven Examples for one tokenizer and template.

    Attributes:
        tokenizer: the checkpoint's tokenizer.
        template: the template the model will be served with.
        train_on: "replies" trains what the model must emit; "all" trains every token after the first.
        turns: train every assistant turn, or the last one only.
        control_tokens: "drop" a row whose text spells a control token, or "keep" it as the tokenizer reads it.
    """

    tokenizer: Tokenizer
    template: ChatTemplate
    train_on: Literal["replies", "all"] = "replies"
    turns: Literal["all", "last"] = "all"
    control_tokens: Literal["drop", "escape", "keep"] = "drop"
    missing_stop: Literal["append", "drop"] = "append"
    empty_reasoning: Literal["drop", "close"] = "drop"
    _control: re.Pattern[str] | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_control", self.tokenizer.control_pattern())

    def prove(self, conversations: Sequence[Conversation]) -> list[tuple[Example, ...] | Drop]:
        """One outcome for each conversation, in order: its Examples, or why there are none."""
        rendered = [self._rendered_or_drop(one) for one in conversations]
        texts = list(
            dict.fromkeys(
                text
                for turns in rendered
                if not isinstance(turns, Drop)
                for turn in turns
                for text in (turn.prompt_text, turn.finished_text)
            )
        )
        ids = dict(zip(texts, self.tokenizer.encode(texts), strict=True))
        outcomes: list[tuple[Example, ...] | Drop] = []
        for conversation, turns in zip(conversations, rendered, strict=True):
            if isinstance(turns, Drop):
                outcomes.append(turns)
                continue
            try:
                if conversation.is_text:
                    outcomes.append((self._document(conversation),))
                else:
                    proven = [self._prove_turn(conversation, turn, ids) for turn in turns]
                    outcomes.append(tuple(self._assemble(conversation, proven)))
            except Unproven as finding:
                outcomes.append(Drop(conversation.address, finding.reason, str(finding)))
        return outcomes

    def prompt(self, conversation: Conversation) -> Prompt | Drop:
        """The served prompt of the last assistant turn, and that turn's words as the reference."""
        try:
            last = self._trained_messages(conversation)[-1]
            text = self._render(conversation, last, generation_prompt=True)
        except Unproven as finding:
            return Drop(conversation.address, finding.reason, str(finding))
        ids = np.asarray(self.tokenizer.encode([text])[0], dtype=np.int32)
        return Prompt(conversation.address, ids, text, conversation.messages[last].content or "")

    def serve(self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()) -> TokenIds:
        """Ids [S] of the served prompt for a conversation in progress.

        Raises:
            TemplateRefusal: the template does not accept these messages.
        """
        text = self.template.render(
            [as_template_sees(one) for one in messages], generation_prompt=True, tools=list(tools)
        )
        return np.asarray(self.tokenizer.encode([text])[0], dtype=np.int32)

    def findings(self, conversation: Conversation) -> list[Change]:
        """What the template silently leaves out of a row that is otherwise proven."""
        if not conversation.tools or conversation.is_text:
            return []
        last = self._trained_messages(conversation)[-1]
        with_tools = self._render(conversation, last, generation_prompt=True)
        names = [str(tool.get("function", tool).get("name", "")) for tool in conversation.tools]
        missing = [name for name in names if name and name not in with_tools]
        if not missing:
            return []
        detail = f"the template does not show the model its tools ({', '.join(missing[:3])}); neither will a server"
        return [Change(conversation.address, "tools_not_shown", detail)]

    def _rendered_or_drop(self, conversation: Conversation) -> list[RenderedTurn] | Drop:
        try:
            self._refuse_control_tokens(conversation)
            if conversation.is_text:
                return []
            return [
                RenderedTurn(
                    message=index,
                    weight=1.0 if (weight := conversation.messages[index].weight) is None else weight,
                    prompt_text=self._render(conversation, index, generation_prompt=True),
                    finished_text=self._render(conversation, index + 1, generation_prompt=False),
                )
                for index in self._trained_messages(conversation)
            ]
        except Unproven as finding:
            return Drop(conversation.address, finding.reason, str(finding))

    def _trained_messages(self, conversation: Conversation) -> list[int]:
        for index, message in enumerate(conversation.messages):
            if message.weight is not None and not 0 <= message.weight <= LARGEST_WEIGHT:
                raise Unproven(
                    "weight_out_of_range", f"message {index}: weight {message.weight}, beyond {LARGEST_WEIGHT}"
                )
        trained = [
            index
            for index, message in enumerate(conversation.messages)
            if message.role == "assistant" and (message.weight is None or message.weight >= SMALLEST_WEIGHT)
        ]
        if not trained:
            raise Unproven("nothing_to_train", "no assistant turn with a weight above 0")
        return trained[-1:] if self.turns == "last" else trained

    def _render(self, conversation: Conversation, messages: int, *, generation_prompt: bool) -> str:
        try:
            return self.template.render(
                [as_template_sees(one) for one in conversation.messages[:messages]],
                generation_prompt=generation_prompt,
                tools=[dict(tool) for tool in conversation.tools],
                arguments=conversation.template_arguments,
            )
        except TemplateRefusal as refusal:
            raise Unproven("template_refused", f"the template does not accept this row: {refusal}") from refusal

    def _refuse_control_tokens(self, conversation: Conversation) -> None:
        if self.control_tokens == "keep" or self._control is None:
            return
        for where, text in _texts_of(conversation):
            if found := self._control.search(text):
                raise Unproven(
                    "control_token_in_text",
                    f"{where} spells the control token {found.group()!r}, which the tokenizer would read as one",
                )

    def _prove_turn(self, conversation: Conversation, turn: RenderedTurn, ids: dict[str, list[int]]) -> ProvenTurn:
        prompt, finished = turn.prompt_text, turn.finished_text
        if not finished.startswith(prompt):
            raise Unproven(
                "prompt_not_a_prefix",
                f"message {turn.message}: the finished turn does not begin with its served prompt; prompt ends "
                f"{prompt[-SHOWN_CHARACTERS:]!r}, finished turn has {finished[: len(prompt)][-SHOWN_CHARACTERS:]!r}",
            )
        prompt_ids, finished_ids = ids[prompt], ids[finished]
        if finished_ids[: len(prompt_ids)] == prompt_ids:
            after = finished_ids[len(prompt_ids) :]
        else:  # the tokenizer merges across the boundary; a server never sees that merge
            after = self.tokenizer.encode([finished[len(prompt) :]])[0]
        reply_ids = self._through_stop(turn, after, finished[len(prompt) :])
        self._check_words(conversation.messages[turn.message], turn, prompt_ids, reply_ids)
        return ProvenTurn(turn.message, turn.weight, prompt_ids, reply_ids)

    def _through_stop(self, turn: RenderedTurn, after: list[int], text: str) -> list[int]:
        for position, token in enumerate(after):
            if token in self.tokenizer.stop_ids:
                return after[: position + 1]
        stops = ", ".join(repr(self.tokenizer.decode([one])) for one in sorted(self.tokenizer.stop_ids))
        raise Unproven(
            "no_stop_token",
            f"message {turn.message}: the template writes no stop token ({stops}) after the reply; "
            f"it writes {text[-SHOWN_CHARACTERS:]!r}",
        )

    def _check_words(self, message: Message, turn: RenderedTurn, prompt_ids: list[int], reply_ids: list[int]) -> None:
        """Two witnesses: the reply decodes to what was rendered, and what was rendered holds the turn's own words."""
        tail = turn.finished_text[len(turn.prompt_text) :]
        decoded = self.tokenizer.decode(reply_ids)
        if not tail.startswith(decoded):
            # Tokenizers with a leading-space marker decode a fragment without it; in context they do not.
            decoded = self.tokenizer.decode(prompt_ids + reply_ids)[len(self.tokenizer.decode(prompt_ids)) :]
        if not tail.startswith(decoded):
            raise Unproven(
                "round_trip",
                f"message {turn.message}: rendered {tail[:SHOWN_CHARACTERS]!r}, ids say {decoded[:SHOWN_CHARACTERS]!r}",
            )
        for reason, ways in _words_of(message):
            if not any(way in decoded for way in ways):
                raise Unproven(
                    reason,
                    f"message {turn.message}: the template's reply {decoded[:SHOWN_CHARACTERS]!r} "
                    f"lacks {ways[0][:SHOWN_CHARACTERS]!r}",
                )

    def _assemble(self, conversation: Conversation, turns: list[ProvenTurn]) -> Iterator[Example]:
        """One Example when the last turn's sequence proves all; else one more for each group of turns it does not."""
        left, part = turns, 0
        while left:
            sequence = left[-1].prompt_ids + left[-1].reply_ids
            held: list[ProvenTurn] = []
            rest: list[ProvenTurn] = []
            end = 0
            for turn in left:
                # A turn that repeats an earlier one word for word stands on the same tokens: it needs its own sequence.
                fits = len(turn.prompt_ids) >= end and _stands_in(turn, sequence)
                (held if fits else rest).append(turn)
                end = len(turn.prompt_ids) + len(turn.reply_ids) if fits else end
            if not held or held[-1] is not left[-1]:
                held, rest = [left[-1]], left[:-1]
            yield self._example(conversation, part, sequence, held)
            left, part = rest, part + 1

    def _example(self, conversation: Conversation, part: int, ids: list[int], turns: list[ProvenTurn]) -> Example:
        whole = self.train_on == "all"
        weights = np.full(len(ids), 1.0 if whole else 0.0, dtype=np.float32)
        weights[0] = 0.0
        spans = []
        for turn in turns:
            start, end = len(turn.prompt_ids), len(turn.prompt_ids) + len(turn.reply_ids)
            weights[start:end] = turn.weight
            spans.append(Turn(turn.message, start, end))
        example = Example(conversation.address, part, np.asarray(ids, dtype=np.int32), weights, tuple(spans))
        self._gate(example, whole=whole)
        return example

    def _document(self, conversation: Conversation) -> Example:
        ids = self.tokenizer.encode_document(conversation.messages[0].content or "")
        if not ids or ids[-1] not in self.tokenizer.stop_ids:
            ids.append(min(self.tokenizer.stop_ids))
        if len(ids) < 2:
            raise Unproven("nothing_to_train", "the document is empty once tokenized")
        weights = np.ones(len(ids), dtype=np.float32)
        weights[0] = 0.0
        turn = Turn(message=0, prompt_end=1, reply_end=len(ids))
        example = Example(conversation.address, 0, np.asarray(ids, dtype=np.int32), weights, (turn,))
        self._gate(example, whole=True)
        return example

    def _gate(self, example: Example, *, whole: bool) -> None:
        highest = int(example.ids.max())
        if highest >= self.tokenizer.vocabulary_size:
            raise Unproven(
                "id_without_embedding",
                f"token {self.tokenizer.decode([highest])!r} has id {highest}, but the model has "
                f"{self.tokenizer.vocabulary_size} embeddings",
            )
        assert_proven(
            example,
            stop_ids=self.tokenizer.stop_ids,
            vocabulary_size=self.tokenizer.vocabulary_size,
            whole=whole,
        )


def examples(
    conversations: Iterable[Conversation], renderer: Renderer, ledger: Ledger
) -> Iterator[tuple[Conversation, tuple[Example, ...]]]:
    """Prove conversations as they come; drops and findings go to the ledger, the rest onward with their Examples."""
    source = iter(conversations)
    while chunk := list(islice(source, CHUNK_ROWS)):
        for conversation, outcome in zip(chunk, renderer.prove(chunk), strict=True):
            if isinstance(outcome, Drop):
                ledger.drop(outcome)
                continue
            for finding in renderer.findings(conversation):
                ledger.change(finding)
            if len(outcome) > 1:
                ledger.change(
                    Change(conversation.address, "split", f"{len(outcome)} sequences: the template rewrites history")
                )
            yield conversation, outcome


def _stands_in(turn: ProvenTurn, sequence: list[int]) -> bool:
    end = len(turn.prompt_ids)
    return sequence[:end] == turn.prompt_ids and sequence[end : end + len(turn.reply_ids)] == turn.reply_ids


def _texts_of(conversation: Conversation) -> Iterator[tuple[str, str]]:
    """Every text that a template may write, with what to call it."""
    for index, message in enumerate(conversation.messages):
        where = f"message {index} ({message.role})"
        for text in (message.content, message.reasoning, message.name, message.tool_call_id):
            if text:
                yield where, text
        for call in message.tool_calls:
            for text in (call.name, call.id or "", *_strings_in(dict(call.arguments))):
                yield where, text
    for text in _strings_in([dict(tool) for tool in conversation.tools]):
        yield "a tool's description", text
    for text in _strings_in(dict(conversation.template_arguments)):
        yield "a template argument", text


def _strings_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from _strings_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings_in(inner)


def _words_of(message: Message) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What a reply must contain, with the reason to give if it does not and the spellings that count.

    Templates may trim content, so its outer white space is not compared; arguments may be written as JSON.
    """
    if content := (message.content or "").strip():
        yield "content_not_in_reply", (content,)
    if reasoning := (message.reasoning or "").strip():
        yield "reasoning_not_in_reply", (reasoning,)
    for call in message.tool_calls:
        for word in (call.name, *_strings_in(dict(call.arguments))):
            yield "tool_call_not_in_reply", (word, json.dumps(word)[1:-1], json.dumps(word, ensure_ascii=False)[1:-1])

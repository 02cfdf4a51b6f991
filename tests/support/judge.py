"""The judge of proven rows: transformers renders, the tokenizers library encodes, and nothing of `tutelage.render`.

Every promise that is broken raises `Wrong`, which names the check that saw it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import jinja2
import pytest
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as FastTokenizer

from tests.support.template_grammar import CONTROL_TOKENS, END, REASONING_FIELDS, TAGS, Grammar
from tutelage.types import Address, Change, Conversation, Drop, Example, Message, Proven, Turn

chat_templates = pytest.importorskip(
    "transformers.utils.chat_template_utils", reason="the judge renders with the transformers library"
)

NAMED = {"bos_token": "<s>", "eos_token": END}
NONCE = re.compile(r"qn\d+z")
CORPUS = [
    *("user", "assistant", "system", "tool", "the answer is 42.", "two  spaces", "a\n\nb\n\n\nc", "\n\n", " \n", ":\n"),
    *("assistant\n\nHello", "user\nHi there", "<think>\nhm\n</think>\n\nyes", '{"name": "look", "arguments": {}}'),
    *("> <think>", ": yes", "[INST] a [/INST] b", "USER:a ASSISTANT: b", "e\u0301", "🙂", "日本語"),
]
LETTERS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TOKENIZERS = ("gpt2", "lines", "unsplit", "space_first", "space_always")
"""Byte-level with GPT-2's rules, with rules that keep line ends together, with none; words led by a space.

One more, "lossy", forgets capital letters.
"""


@cache
def tokenizer_of(kind: str) -> FastTokenizer:
    """A tiny tokenizer that knows the control tokens of every template here."""
    trained = FastTokenizer(models.BPE())
    if kind == "lossy":
        trained.normalizer = normalizers.Lowercase()
    spaced = kind.startswith("space")
    if spaced:
        scheme = kind.removeprefix("space_")
        trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    else:
        rules = [pre_tokenizers.Split(Regex(LETTERS), "isolated")] if kind == "lines" else []
        last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind in ("gpt2", "lossy"))
        trained.pre_tokenizer = pre_tokenizers.Sequence([*rules, last])
        trained.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    alphabet = [] if spaced else sorted(letters)
    trainer = trainers.BpeTrainer(vocab_size=400, min_frequency=1, initial_alphabet=alphabet, show_progress=False)
    trained.train_from_iterator(CORPUS * 3, trainer)
    if spaced:
        trained.model = with_bytes(trained)
        steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        trained.decoder = decoders.Sequence(steps)
    trained.add_special_tokens(
        [AddedToken(control_token, special=True, normalized=False) for control_token in CONTROL_TOKENS]
    )
    return trained


def with_bytes(trained: FastTokenizer) -> models.BPE:
    """The same merges with a token for each byte, for letters that were never seen."""
    import json

    model = json.loads(trained.to_str())["model"]
    words = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), *model["vocab"]]
    numbers = {word: at for at, word in enumerate(dict.fromkeys(words))}
    merges = [tuple(one) for one in model["merges"]]
    return models.BPE(vocab=numbers, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)


class Wrong(AssertionError):  # noqa: N818 what the judge says
    """A promise that does not hold: which, and what was seen."""

    def __init__(self, check: str, detail: str) -> None:
        self.check = check
        super().__init__(f"{check}: {detail}")


def must(holds: bool, check: str, detail: str) -> None:
    if not holds:
        raise Wrong(check, detail)


@dataclass(frozen=True)
class Judge:
    """Knows one template and tokenizer.

    Attributes:
        grammar: what the template does.
        kind: the tokenizer, one of `TOKENIZERS`.
        missing_stop: what the renderer was told.
        source: other Jinja text that does the same, but for what the judge is to find.
    """

    grammar: Grammar
    kind: str = "gpt2"
    missing_stop: str = "append"
    source: str | None = None

    @cached_property
    def tokenizer(self) -> FastTokenizer:
        return tokenizer_of(self.kind)

    @cached_property
    def template(self) -> str:
        return self.grammar.template if self.source is None else self.source

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        return frozenset(self.tokenizer.token_to_id(stop) for stop in self.grammar.stops)

    def rendered(self, messages: Sequence[Message], *, asked: bool, tools: Sequence[Any] = ()) -> str:
        """The text a server makes of messages; raises jinja2's errors, TypeError and the like where it refuses."""
        seen = [self.grammar.sees(message) for message in messages]
        texts, _ = chat_templates.render_jinja_template(
            [seen], tools=list(tools) or None, chat_template=self.template, add_generation_prompt=asked, **NAMED
        )
        return str(texts[0])

    def accepts(self, conversation: Conversation) -> bool:
        """Whether a server can be asked for every trained turn but an opening one, and the finished row be written."""
        try:
            for index in trained(conversation):
                if asked_for(conversation, index):
                    self.rendered(conversation.messages[:index], asked=True, tools=conversation.tools)
                    self.rendered(conversation.messages[: index + 1], asked=False, tools=conversation.tools)
        except (jinja2.TemplateError, TypeError, AttributeError, LookupError, ValueError):
            return False
        return True

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False))

    def first_stop(self, text: str) -> int | None:
        """Where the first stop token of `text` ends."""
        ends = [text.index(stop) + len(stop) for stop in self.grammar.stops if stop in text]
        return min(ends, default=None)

    def replies(self, conversation: Conversation, index: int) -> tuple[str, ...]:
        """What the model may have to emit for message `index`; more than one only where the prompt is rewritten."""
        message = conversation.messages[index]
        prompt = self.rendered(conversation.messages[:index], asked=True, tools=conversation.tools)
        finished = self.rendered(conversation.messages[: index + 1], asked=False, tools=conversation.tools)
        if not finished.startswith(prompt):
            return tuple(one + self._end_of_turn() for one in self._spoken(message))
        tail = finished[len(prompt) :]
        end = self.first_stop(tail)
        if end is not None:
            return (tail[:end],)
        words = tail.removesuffix(self.grammar.look.tail + self.grammar.separator)
        blank = not (message.content or "").strip() and not message.tool_calls
        # Without a stop token or content, nothing says whether white space before the end belongs to the reply.
        return (words + self.grammar.stops[0], *([words.rstrip() + self.grammar.stops[0]] if blank else []))

    def _end_of_turn(self) -> str:
        return ("" if self.grammar.stop == "none" else self.grammar.look.tail) + self.grammar.stops[0]

    def _spoken(self, message: Message) -> Iterator[str]:
        """The words of a reply, by the grammar's own rules, where the finished row does not begin with the prompt."""
        grammar, look = self.grammar, self.grammar.look
        opening, closing = TAGS[grammar.tags]
        body = grammar.body(message)
        bare = body.removeprefix(look.lead)
        if grammar.prompt in ("header", "shorter", "ignored"):
            yield look.assistant[len(grammar.prompted) :] + body
        elif grammar.prompt == "longer":
            yield from (body, bare)
        elif grammar.prompt == "closes":
            empty = opening.strip() + "\n\n" + closing.strip() + "\n\n"
            yield bare.removeprefix(empty).removeprefix(opening + closing)  # thoughts of white space alone
        elif bare.startswith(opening.strip()):
            yield (
                bare.removeprefix(opening) if bare.startswith(opening) else bare.removeprefix(opening.strip()).lstrip()
            )
        else:
            yield from self._reasoned(message, bare)

    def _reasoned(self, message: Message, bare: str) -> Iterator[str]:
        """The prompt opens a block that the finished turn has not."""
        opening, closing = TAGS[self.grammar.tags]
        thought, content = (message.reasoning or "").strip(), message.content or ""
        if thought:
            yield thought + closing + bare
        elif content.lstrip().startswith(opening.strip()) and closing.strip() in content:
            after = content.lstrip()[len(opening.strip()) :]
            after = after.removeprefix("\n") if opening.endswith("\n") and after.startswith("\n") else after
            yield from (after, after.lstrip(), after.rstrip(), after.strip(), after.rstrip("\n"))
        else:
            yield from (
                lead + bare for lead in (closing, closing.lstrip("\n"), "\n" + closing.lstrip("\n"), "\n" + closing)
            )

    def judge(self, conversation: Conversation, outcome: Proven | Drop) -> None:
        """Raise `Wrong` where the outcome of a row breaks a promise."""
        if isinstance(outcome, Drop):
            self._judge_drop(conversation, outcome)
            return
        spelled = [
            control_token
            for control_token in CONTROL_TOKENS
            for text in texts_of(conversation)
            if control_token in text
        ]
        must(not spelled, "control token", f"the row spells {spelled} and was kept")
        self._judge_books(conversation, outcome.examples, outcome.changes)
        for example in outcome.examples:
            self._judge_weights(conversation, example)
            for turn in example.turns:
                self._judge_turn(conversation, example, turn)

    def _judge_books(self, conversation: Conversation, examples: Sequence[Example], changes: Sequence[Change]) -> None:
        found = sorted(turn.message for example in examples for turn in example.turns)
        opening = [change.detail for change in changes if change.reason == "opening_turn_not_trained"]
        named = {int(number) for detail in opening for number in re.findall(r"message (\d+) opens", detail)}
        for index in named:
            earlier = conversation.messages[:index]
            must(
                not any(one.role in ("user", "tool") for one in earlier), "turn once", f"{index} does not open the row"
            )
        must(found == [one for one in trained(conversation) if one not in named], "turn once", f"trained {found}")
        must([example.part for example in examples] == list(range(len(examples))), "turn once", "parts out of order")

    def _judge_weights(self, conversation: Conversation, example: Example) -> None:
        expected = [0.0] * len(example.ids)
        for turn in example.turns:
            weight = conversation.messages[turn.message].weight
            for at in range(turn.prompt_end, turn.reply_end):
                expected[at] = 1.0 if weight is None else weight
        must(example.weights.tolist() == expected, "weights", f"{example.weights.tolist()} for {expected}")
        must(example.turns[-1].reply_end == len(example.ids), "weights", "ids after the last reply")

    def _judge_turn(self, conversation: Conversation, example: Example, turn: Turn) -> None:
        ids = example.ids.tolist()
        prompt_ids, reply_ids = ids[: turn.prompt_end], ids[turn.prompt_end : turn.reply_end]
        prompt = self.rendered(conversation.messages[: turn.message], asked=True, tools=conversation.tools)
        served = self.encode(prompt)
        must(prompt_ids == served, "served prompt", f"message {turn.message}: {prompt_ids} for {served} {prompt!r}")
        stops = [at for at, one in enumerate(reply_ids) if one in self.stop_ids]
        must(
            stops == [len(reply_ids) - 1], "stop", f"message {turn.message}: stop tokens at {stops} of {len(reply_ids)}"
        )
        before, whole = self.decode(prompt_ids), self.decode(ids[: turn.reply_end])
        must(whole.startswith(before), "decode", f"{whole!r} does not begin with {before!r}")
        text = whole[len(before) :]
        expected = self.replies(conversation, turn.message)
        detail = f"message {turn.message}: {text!r} for {expected!r} behind {prompt!r}"
        must(any(same_letters(text, one) for one in expected), "reply text", detail)
        must(self._says(text, expected, prompt, served, reply_ids), "reply text", detail)
        self._judge_words(conversation, turn.message, text)

    def _says(self, text: str, expected: Sequence[str], prompt: str, served: list[int], reply_ids: list[int]) -> bool:
        """Whether the ids say an expected reply, cut as the whole text is, or, where that moves the border, alone.

        A decoder may put a space behind a control token; then the ids of the whole text are what says it.
        """
        for one in expected:
            together = self.encode(prompt + one)
            if together[: len(served)] == served:
                if reply_ids == together[len(served) :]:
                    return True
            elif text == one and (self.kind.startswith("space") or reply_ids == self.encode(one)):
                return True
        return False

    def _judge_words(self, conversation: Conversation, index: int, text: str) -> None:
        messages = conversation.messages
        own, found = marks_of(messages[index]), set(NONCE.findall(text))
        others = {mark for at, one in enumerate(messages) if at != index for mark in marks_of(one)}
        must(not found & (others - own), "foreign words", f"message {index}: {found & (others - own)} in {text!r}")
        must(own <= found, "own words", f"message {index}: {own - found} missing in {text!r}")
        written = " ".join(texts_of(Conversation((messages[index],), Address("", 0))))
        twice = [mark for mark in own if text.count(mark) > written.count(mark)]
        must(not twice, "own words", f"message {index}: {twice} more than once in {text!r}")

    def _judge_drop(self, conversation: Conversation, drop: Drop) -> None:
        must(drop.reason in reasons(), "reason", f"{drop.reason!r} is not a reason of this room")
        must(drop.address == conversation.address, "reason", "another address")
        must(bool(drop.detail), "reason", "no detail")
        must(self._is_true(conversation, drop.reason), "reason", f"{drop.reason} is not true: {drop.detail}")

    def _is_true(self, conversation: Conversation, reason: str) -> bool:
        """Whether a reason that can be checked without the renderer holds."""
        texts = texts_of(conversation)
        turns = [conversation.messages[index] for index in trained(conversation)]
        if reason == "control_token_in_text":
            beginnings = {word[:size] for word in CONTROL_TOKENS for size in range(1, len(word) + 1)}
            return any(control_token in text for text in texts for control_token in CONTROL_TOKENS) or any(
                text[-size:] in beginnings for text in texts for size in range(1, 20)
            )
        if reason == "nothing_to_train":
            return all(not asked_for(conversation, index) for index in trained(conversation))
        if reason == "template_refused":
            return not self.accepts(conversation)
        if reason == "no_reasoning":
            return self.grammar.prompt == "opens" and any(not (turn.reasoning or "").strip() for turn in turns)
        if reason == "prompt_not_a_prefix":
            return any(not self._begins(conversation, index) for index in trained(conversation))
        if reason == "reasoning_not_in_reply":
            unwritten = self.grammar.reasoning not in REASONING_FIELDS or self.grammar.prompt == "closes"
            tags = {tag.strip() for pair in TAGS.values() for tag in pair}
            inside = self.grammar.prompt == "closes" and any(tag in text for tag in tags for text in texts)
            return inside or (unwritten and any((turn.reasoning or "").strip() for turn in turns))
        if reason == "tool_call_not_in_reply":
            return any(turn.tool_calls for turn in turns)
        if reason == "round_trip":
            # A tokenizer that writes a space as this sign reads the sign as a space.
            return self.kind == "lossy" or (self.kind.startswith("space") and any("▁" in text for text in texts))
        if reason == "no_stop_token":
            return self.missing_stop == "drop"
        return True

    def _begins(self, conversation: Conversation, index: int) -> bool:
        messages = conversation.messages
        finished = self.rendered(messages[: index + 1], asked=False, tools=conversation.tools)
        return finished.startswith(self.rendered(messages[:index], asked=True, tools=conversation.tools))


@cache
def reasons() -> frozenset[str]:
    """Why this room drops a row, by the page about it."""
    page = (Path(__file__).resolve().parents[2] / "docs/ledger.md").read_text(encoding="utf-8")
    return frozenset(re.findall(r"^\| `(\w+)` \| dropped \| [^|]*`render/", page, re.MULTILINE))


def marks_of(message: Message) -> set[str]:
    """The marks that a message's own words carry."""
    return {mark for text in texts_of(Conversation((message,), Address("", 0))) for mark in NONCE.findall(text)}


def texts_of(conversation: Conversation) -> list[str]:
    """What people wrote, arguments of calls as JSON without escapes."""
    texts = [text for message in conversation.messages for text in (message.content, message.reasoning) if text]
    calls = [call for message in conversation.messages for call in message.tool_calls]
    return texts + [str(value) for call in calls for pair in call.arguments.items() for value in pair]


def same_letters(one: str, other: str) -> bool:
    """Whether two texts differ in spaces at most: some decoders put one behind a control token."""
    return one.replace(" ", "") == other.replace(" ", "")


def asked_for(conversation: Conversation, index: int) -> bool:
    """Whether anybody spoke before message `index`: no server is asked for a turn that opens a conversation."""
    return any(message.role in ("user", "tool") for message in conversation.messages[:index])


def trained(conversation: Conversation) -> list[int]:
    """Assistant turns that are to be trained."""
    return [at for at, one in enumerate(conversation.messages) if one.role == "assistant" and one.weight != 0]

"""The oracle: is an Example right? It asks transformers and the tokenizers library, and nothing of `tutelage.render`.

For each trained turn: the ids before it are what a server feeds; the reply is what the template writes for the turn,
through the first stop token; weights lie on replies alone; no words of another message are inside.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from benchmarks.masks.endings import standing_end
from benchmarks.masks.opened import behind_reasoning, closing_of, finished_turn
from benchmarks.masks.served import INLINE, Refusal, Server, Way, ways_for
from benchmarks.masks.words import CLOSED_BLOCK, OPENED_BLOCK, Piece, called, own_words, spoken
from tokenizers import Tokenizer as FastTokenizer

from tutelage.types import Conversation, Example, Message, Turn

SHOWN = 120


@dataclass
class Facts:
    """What is known of a checkpoint: its vocabulary, what ends a generation, the template's own text."""

    tokenizer: FastTokenizer
    stop_ids: frozenset[int]
    template: str
    _ids: dict[str, list[int]] = field(default_factory=dict)

    def encode(self, text: str) -> list[int]:
        """Ids as a server makes them from a rendered text: control tokens read, nothing added."""
        if text not in self._ids:
            self._ids[text] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return self._ids[text]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, control tokens spelled out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False))

    def through(self, text: str) -> str:
        """A text after a way through the vocabulary, which may compose letters."""
        return self.decode(self.encode(text))

    @cached_property
    def added(self) -> dict[int, str]:
        """Added tokens as a template spells them; a decoder may read them otherwise."""
        return {number: token.content for number, token in self.tokenizer.get_added_tokens_decoder().items()}

    def spelled(self, ids: Sequence[int]) -> str:
        """Text of ids with every added token as a template spells it."""
        parts: list[str] = []
        run: list[int] = []
        for number in ids:
            if number in self.added:
                parts += [self.decode(run), self.added[number]]
                run = []
            else:
                run.append(number)
        return "".join([*parts, self.decode(run)])

    @property
    def stops(self) -> tuple[str, ...]:
        """Stop tokens as a template spells them."""
        return tuple(str(self.tokenizer.id_to_token(stop_token_id)) for stop_token_id in self.stop_ids)


@dataclass(frozen=True, slots=True)
class Finding:
    """A broken promise: which, and what was seen."""

    promise: str
    detail: str


@dataclass(frozen=True, slots=True)
class Opinion:
    """What the oracle thinks of the Examples of one row; right when nothing was found.

    `way` is how messages are handed to the template; None where no way gives the served prompts.
    """

    way: Way | None
    findings: tuple[Finding, ...]

    @property
    def is_right(self) -> bool:
        """Whether every promise holds."""
        return not self.findings


def trained_messages(conversation: Conversation) -> list[int]:
    """Assistant turns that are to be trained."""
    return [
        index
        for index, one in enumerate(conversation.messages)
        if one.role == "assistant" and (one.weight is None or one.weight > 0)
    ]


def judge(conversation: Conversation, examples: Sequence[Example], server: Server, facts: Facts) -> Opinion:
    """The oracle's opinion, in the accepted way of writing messages that speaks best for the Examples."""
    always = [*_bookkeeping(conversation, examples, server), *_weights(conversation, examples, facts)]
    best: Opinion | None = None
    for way in ways_for(conversation):
        if way.reasoning in INLINE and "</think>" not in facts.template:
            continue  # tags that the template does not know would be our invention
        prompts = [prompt for example in examples for prompt in _prompts(conversation, example, server, facts, way)]
        if prompts:
            opinion = Opinion(None, (*always, *prompts))
        else:
            replies = [reply for example in examples for reply in _replies(conversation, example, server, facts, way)]
            opinion = Opinion(way, (*always, *replies))
        if opinion.is_right:
            return opinion
        if best is None or (opinion.way is not None, -len(opinion.findings)) > (
            best.way is not None,
            -len(best.findings),
        ):
            best = opinion
    assert best is not None, "no way to write this row"
    return best


def unserved(conversation: Conversation, index: int, server: Server) -> bool:
    """Whether a server cannot ask for this turn: nothing stands before it, or no way of writing it gives a prompt."""
    if index == 0:
        return True
    asked = any(message.role in ("user", "tool") for message in conversation.messages[:index])
    return all(_no_prompt(conversation, index, server, way, opens=not asked) for way in ways_for(conversation))


def _no_prompt(conversation: Conversation, index: int, server: Server, way: Way, *, opens: bool) -> bool:
    """Whether nothing is served for a turn; for one that opens, also where it is not written behind what is served."""
    prompt = server.text(conversation, index, way, prompt=True)
    if isinstance(prompt, Refusal) or not prompt:
        return True
    finished = server.text(conversation, index + 1, way, prompt=False)
    return opens and isinstance(finished, str) and not finished.startswith(prompt)


def _bookkeeping(conversation: Conversation, examples: Sequence[Example], server: Server) -> Iterator[Finding]:
    """Promise: each turn that is to be trained is trained in exactly one Example, unless a server cannot ask for it."""
    trained = sorted(turn.message for example in examples for turn in example.turns)
    wanted = trained_messages(conversation)
    left_out = set(wanted) - set(trained)
    if trained != [one for one in wanted if one not in left_out] or not all(
        unserved(conversation, one, server) for one in left_out
    ):
        yield Finding("turns", f"messages {trained} are trained, expected {wanted}")


def _weights(conversation: Conversation, examples: Sequence[Example], facts: Facts) -> Iterator[Finding]:
    """Promise: weights are non-zero on the replies alone, equal to the message's own; a reply ends in its only stop."""
    for example in examples:
        expected = np.zeros(len(example.ids), dtype=np.float32)
        end = 0
        for turn in example.turns:
            if not end <= turn.prompt_end < turn.reply_end <= len(example.ids):
                yield Finding("spans", f"turn {turn} in {len(example.ids)} ids after {end}")
                return
            end = turn.reply_end
            weight = conversation.messages[turn.message].weight
            expected[turn.prompt_end : turn.reply_end] = 1.0 if weight is None else weight
            reply = example.ids[turn.prompt_end : turn.reply_end].tolist()
            if reply[-1] not in facts.stop_ids:
                yield Finding(
                    "stop", f"message {turn.message} ends in {facts.decode(reply[-1:])!r}, not in a stop token"
                )
            if inner := [one for one in reply[:-1] if one in facts.stop_ids]:
                yield Finding("stop", f"message {turn.message} goes on after {facts.decode(inner[:1])!r}")
        if len(example.weights) != len(example.ids) or not np.array_equal(example.weights, expected):
            differ = (
                np.flatnonzero(example.weights != expected)[:4].tolist()
                if len(example.weights) == len(expected)
                else []
            )
            around = [facts.decode(example.ids[max(0, one - 2) : one + 3].tolist()) for one in differ]
            yield Finding("weights", f"part {example.part}: weights differ from the replies at {differ}: {around}")


def _prompts(conversation: Conversation, example: Example, server: Server, facts: Facts, way: Way) -> Iterator[Finding]:
    """Promise: the ids before a reply are the ids a server feeds."""
    for turn in example.turns:
        text = server.text(conversation, turn.message, way, prompt=True)
        if isinstance(text, Refusal):
            yield Finding("served prompt", f"message {turn.message}: the template does not serve it: {text.why}")
            continue
        ids, served = example.ids[: turn.prompt_end].tolist(), facts.encode(text)
        if ids != served:
            same = next(
                (n for n, (a, b) in enumerate(zip(ids, served, strict=False)) if a != b), min(len(ids), len(served))
            )
            yield Finding(
                "served prompt",
                f"message {turn.message}: differs from id {same} on; has {facts.decode(ids[same:])[:SHOWN]!r}, "
                f"a server feeds {facts.decode(served[same:])[:SHOWN]!r}",
            )


def _replies(conversation: Conversation, example: Example, server: Server, facts: Facts, way: Way) -> Iterator[Finding]:
    """Promise: a reply is what the template writes for the turn, in the turn's own words and no others."""
    words = own_words(conversation, facts.template)
    for turn in example.turns:
        prompt = server.text(conversation, turn.message, way, prompt=True)
        assert isinstance(prompt, str), "prompts are judged before replies"
        finished = finished_turn(conversation, turn.message, server, way, prompt)
        before = facts.decode(example.ids[: turn.prompt_end].tolist())
        whole = facts.decode(example.ids[: turn.reply_end].tolist())
        where = f"message {turn.message}"
        if not whole.startswith(before):
            yield Finding("decode", f"{where}: the reply changes how its prompt reads")
            continue
        reply = whole[len(before) :]
        stop = facts.decode(example.ids[turn.reply_end - 1 : turn.reply_end].tolist())
        stop = stop if reply.endswith(stop) else ""
        body = reply[: len(reply) - len(stop)]
        yield from _own_pieces(conversation, turn, body, facts, finished, prompt)
        for other, distinctive in enumerate(words):
            if other != turn.message and (leaked := distinctive & set(re.findall(r"\w{4,}", body))):
                yield Finding("other words", f"{where}: holds {sorted(leaked)[:3]} of message {other}")
        if isinstance(finished, Refusal):
            yield Finding("finished turn", f"{where}: the template does not write it: {finished.why}")
        elif (end := standing_end(conversation, finished, server, facts.added.values(), facts.stops)) and end in body:
            yield Finding("standing end", f"{where}: holds what ends every conversation: {end[:SHOWN]!r}")
        elif finished.startswith(prompt):
            yield from _as_written(turn, reply, body, finished[len(prompt) :], prompt, facts)
        else:
            behind = behind_reasoning(conversation, turn.message, server, way, (prompt, finished))
            yield from _as_built(conversation, example, turn, body, (prompt, finished, behind), facts)
        yield from _canonical(example, turn, prompt, finished, facts)


def _own_pieces(
    conversation: Conversation, turn: Turn, body: str, facts: Facts, finished: str | Refusal, prompt: str
) -> Iterator[Finding]:
    message = conversation.messages[turn.message]
    position = 0
    for piece in spoken(message):
        found = _find(piece, body, position, facts)
        if found is None:
            lost_by_template = isinstance(finished, str) and piece.spellings[0] not in finished
            if piece.kind == "inline reasoning" and lost_by_template and not OPENED_BLOCK.search(prompt):
                continue  # the template strips it by itself
            yield Finding(
                "own words",
                f"message {turn.message}: {piece.kind} {piece.spellings[0][:SHOWN]!r} not in {body[:SHOWN]!r}",
            )
            continue
        position = found[1]
    for piece in called(message):
        if _find(piece, body, 0, facts) is None:
            yield Finding(
                "own words",
                f"message {turn.message}: {piece.kind} {piece.spellings[0][:SHOWN]!r} not in {body[:SHOWN]!r}",
            )
    for call in message.tool_calls:
        key = next(iter(call.arguments), None)
        if key is not None and f'\\"{key}\\"' in body:
            yield Finding("encoded twice", f"message {turn.message}: {body[:SHOWN]!r}")
        if key is not None and repr(dict(call.arguments)) in body:
            yield Finding("written as Python", f"message {turn.message}: {body[:SHOWN]!r}")


def _find(piece: Piece, text: str, start: int, facts: Facts) -> tuple[int, int] | None:
    found = piece.find(text, start)
    if found is None:
        found = Piece(piece.kind, tuple(facts.through(spelling).strip() for spelling in piece.spellings)).find(
            text, start
        )
    return found


def _as_written(turn: Turn, reply: str, body: str, tail: str, prompt: str, facts: Facts) -> Iterator[Finding]:
    """The finished turn begins with the prompt: the reply is the rest, through the first stop."""
    ends = [tail.index(stop) + len(stop) for stop in facts.stops if stop in tail]
    where = f"message {turn.message}"
    if ends:
        expected = tail[: min(ends)]
        if reply != expected and reply not in _readings(expected, prompt, facts):
            yield Finding(
                "template's text", f"{where}: trains {reply[:SHOWN]!r}, the template writes {expected[:SHOWN]!r}"
            )
    elif not tail.startswith(body) and not any(reading.startswith(body) for reading in _readings(tail, prompt, facts)):
        yield Finding("template's text", f"{where}: trains {body[:SHOWN]!r}, the template writes {tail[:SHOWN]!r}")


def _readings(text: str, prompt: str, facts: Facts) -> tuple[str, ...]:
    """How a text after the prompt may read once it went through the vocabulary."""
    whole, before = facts.through(prompt + text), facts.through(prompt)
    in_context = (whole[len(before) :],) if whole.startswith(before) else ()
    return (text, facts.through(text), *in_context)


def _as_built(
    conversation: Conversation, example: Example, turn: Turn, body: str, texts: tuple[str, str, str], facts: Facts
) -> Iterator[Finding]:
    """The finished turn does not begin with the prompt: what stands between the turn's words must be the template's.

    `texts` are the served prompt, the finished turn, and the turn as it stands behind a reasoning that it is lent.
    """
    prompt, finished, behind = texts
    message = conversation.messages[turn.message]
    where = f"message {turn.message}"
    closing = closing_of(prompt)
    if CLOSED_BLOCK.search(prompt) and any("reasoning" in one.kind for one in spoken(message)):
        yield Finding("closed block", f"{where}: reasons after a prompt that closed the block: {body[:SHOWN]!r}")
    if closing not in body:
        yield Finding(
            "open block", f"{where}: the prompt opens a block that {body[:SHOWN]!r} never closes with {closing!r}"
        )
        return
    for number, seam in enumerate(_seams(message, body, facts)):
        left = (seam.replace(closing, "", 1) if closing else seam).strip()
        if number == 0 and behind and behind.lstrip().startswith(left):
            continue  # the prompt opens reasoning in words, and so the template leaves it
        if left and left not in finished and left not in facts.through(finished):
            yield Finding("built text", f"{where}: {left[:SHOWN]!r} is neither the turn's nor the template's")
    words = (message.content or "").strip()
    if not words:
        return
    said = _find(Piece("content", (words,)), body, 0, facts)
    closed_late = closing not in words and said is not None and body.find(closing) > said[0]
    if closing and message.reasoning is None and closed_late:
        yield Finding("open block", f"{where}: the block is closed after the content: {body[:SHOWN]!r}")
    written = finished[finished.rfind(words) + len(words) :] if words in finished else ""
    first = min((stop for stop in facts.stops if stop in written), key=written.index, default=None)
    last = str(facts.tokenizer.id_to_token(int(example.ids[turn.reply_end - 1])))
    if first is not None and first != last:
        yield Finding("stop", f"{where}: ends in {last!r}, the template writes {first!r}")


def _seams(message: Message, body: str, facts: Facts) -> Iterator[str]:
    """What a reply holds before, between and after the turn's own words."""
    position = 0
    for piece in spoken(message):
        if found := _find(piece, body, position, facts):
            yield body[position : found[0]]
            position = found[1]
    yield body[position:]


def _canonical(example: Example, turn: Turn, prompt: str, finished: str | Refusal, facts: Facts) -> Iterator[Finding]:
    """Promise: the reply's ids are those the vocabulary makes of its text in this place."""
    ids = example.ids[turn.prompt_end : turn.reply_end].tolist()
    served = facts.encode(prompt)
    if isinstance(finished, str) and finished.startswith(prompt):
        whole = facts.encode(finished)
        if whole[: len(served)] == served:
            after = whole[len(served) :]
            if ids == after[: len(ids)]:
                return
            if any(one in facts.stop_ids for one in after):
                yield Finding(
                    "canonical ids", f"message {turn.message}: {ids[:12]}, the finished turn has {after[:12]}"
                )
                return
    whole_reply = prompt + facts.spelled(ids)
    if facts.encode(whole_reply) == served + ids:
        return
    added = {number for number in ids if number in facts.added}
    for part in _parts(ids, added):
        if not _is_canonical(part, prompt, facts):
            yield Finding(
                "canonical ids",
                f"message {turn.message}: {part[:12]} is not how {facts.decode(part)[:SHOWN]!r} is made",
            )


def _parts(ids: Sequence[int], added: set[int]) -> Iterator[list[int]]:
    """Runs of ids between added tokens: a vocabulary makes each from its text alone."""
    part: list[int] = []
    for number in ids:
        if number not in added:
            part.append(number)
        elif part:
            yield part
            part = []
    if part:
        yield part


def _is_canonical(ids: list[int], prompt: str, facts: Facts) -> bool:
    """Whether the vocabulary makes these ids of their text, in some place: a decoder may have taken a leading space."""
    for anchor in (prompt, "", "\n", "a", ":", *facts.stops[:1]):
        start = facts.encode(anchor)
        for text in (facts.decode(ids), " " + facts.decode(ids)):
            made = facts.encode(anchor + text)
            if made[: len(start)] == start and made[len(start) :] == ids:
                return True
    return False

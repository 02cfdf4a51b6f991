"""Which replies grow, which prompts are computed, and which wait: what one step after the other is made of.

Shape legend: S = replies that get a token, V = vocabulary.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch

from tutelage.generate.attention import DecodeGroup, Prefill, Step
from tutelage.generate.kv_cache import Beginning, KVCache, capacity_for
from tutelage.generate.kv_cache import Sequence as CachedSequence
from tutelage.generate.requests import Completion, Request
from tutelage.generate.sampling import Choice, next_tokens, token_logprobs
from tutelage.generate.stopping import ReplyText

ROOM_AHEAD = 64
"""Tokens of a reply for which its first row has room; a longer one moves to another shelf."""

OnToken = Callable[[int, int, int], None]
"""Called with the place of the request, the number of the sample, and the token, as each comes."""


@dataclass(eq=False, kw_only=True)
class Reply(CachedSequence):
    """A reply that waits or grows. What it has generated is computed like its prompt where it has to begin again."""

    place: int
    sample: int
    request: Request
    beginning: Beginning
    choice: Choice
    text: ReplyText
    logprobs: list[float] = field(default_factory=list)
    twins: list[Reply] = field(default_factory=list)
    """Replies to the same prompt that take over what is computed for it."""

    @property
    def pending(self) -> int:
        """How many tokens of the prompt and of what was generated are not computed yet."""
        return len(self.request.prompt) + len(self.text.ids) - self.position

    @property
    def position(self) -> int:
        """Of the first token that is not computed yet."""
        return self.beginning.tokens + self.tokens

    @property
    def room(self) -> int:
        """Tokens that its row shall have room for."""
        remaining = self.request.max_new_tokens - len(self.text.ids)
        return self.tokens + self.pending + min(remaining, ROOM_AHEAD)

    def next_ids(self, count: int) -> list[int]:
        """The next ids to compute."""
        if self.pending == 1 and self.text.ids:
            return self.text.ids[-1:]
        ids = [*self.request.prompt.tolist(), *self.text.ids]
        return ids[self.position : self.position + count]

    @property
    def completion(self) -> Completion:
        """What it has come to."""
        text, logprobs = self.text, tuple(self.logprobs)
        assert text.ended_by is not None
        return Completion(self.place, self.sample, tuple(text.ids), text.text, text.ended_by, logprobs)


@dataclass(frozen=True, slots=True)
class Part:
    """Tokens of one reply in a step's row."""

    reply: Reply
    count: int


class Schedule:
    """The replies of one call, from waiting to ended.

    Args:
        replies: in the order in which they begin.
        cache: has their keys and values.
        active_replies: at most so many at a time.
        prefill_tokens: of prompts in a step, a prompt being cut where it passes this; None: prompts are never cut.
    """

    def __init__(
        self, replies: Iterable[Reply], cache: KVCache, active_replies: int, prefill_tokens: int | None
    ) -> None:
        self._waiting = deque(replies)
        self._filling: list[Reply] = []
        self._growing: list[Reply] = []
        self._cache, self._active_replies, self._prefill_tokens = cache, active_replies, prefill_tokens
        self._known_beginnings: set[Beginning] = set()

    @property
    def done(self) -> bool:
        """No reply is left."""
        return not (self._waiting or self._filling or self._growing)

    def admit(self) -> list[Beginning]:
        """Make room for the next token of every reply, let others begin; returns beginnings that are to be computed."""
        self._move_to_larger_rows()
        newcomers: list[Reply] = []
        promised, active = 0, len(self._growing) + sum(1 + len(reply.twins) for reply in self._filling)
        while self._waiting:
            reply = self._waiting[0]
            active += 1 + len(reply.twins)
            tokens = capacity_for(reply.room) * (1 + len(reply.twins))
            is_only_one = not (self._growing or self._filling or newcomers)
            if not is_only_one and (active > self._active_replies or not self._cache.fits(tokens, promised)):
                break
            promised += tokens
            newcomers.append(self._waiting.popleft())
        self._place(newcomers, grows=False)
        self._filling += newcomers
        beginnings = {reply.beginning: None for reply in newcomers if reply.beginning.tokens}
        unknown = [beginning for beginning in beginnings if beginning not in self._known_beginnings]
        self._known_beginnings.update(unknown)
        return unknown

    def row(self) -> tuple[Step, list[Part]]:
        """The next row: a token of every reply that grows, then prompts."""
        parts: list[Part] = []
        groups: list[DecodeGroup] = []
        for shelf in self._cache.growing:
            groups.append(DecodeGroup(slice(len(parts), len(parts) + len(shelf.sequences)), shelf))
            parts += [Part(reply, 1) for reply in shelf.sequences if isinstance(reply, Reply)]
        prefills: list[Prefill] = []
        place, budget = len(parts), self._prefill_tokens
        for reply in self._filling:
            count = reply.pending if budget is None else min(reply.pending, budget)
            if not count:
                break
            budget = None if budget is None else budget - count
            prefills.append(Prefill(slice(place, place + count), reply.beginning, reply))
            parts.append(Part(reply, count))
            place += count
        return Step(groups, prefills), parts

    def computed(self, parts: Sequence[Part]) -> tuple[list[Reply], list[int]]:
        """Note that a row was computed; returns the replies that get a token, and each one's place in the row."""
        asked: list[Reply] = []
        places: list[int] = []
        filled: list[Reply] = []
        end = 0
        for part in parts:
            end += part.count
            part.reply.tokens += part.count
            if part.reply.pending:
                continue
            asked.append(part.reply)
            places.append(end - 1)
            if part.reply in self._filling:
                filled.append(part.reply)
        self._filling = [reply for reply in self._filling if reply.pending]
        self._place(filled, grows=True)
        self._growing += filled
        for reply in filled:
            twins, reply.twins = reply.twins, []
            assert reply.shelf is not None
            for twin in twins:
                twin.beginning = reply.beginning
                reply.shelf.add_copy(reply, twin)
            self._growing += twins
            asked += twins
            places += [places[asked.index(reply)]] * len(twins)
        return asked, places

    def take(self, replies: Sequence[Reply], logits_SV: torch.Tensor, on_token: OnToken | None) -> list[Completion]:
        """Choose the next token of each reply; returns those that end.

        Args:
            replies: S of them.
            logits_SV: in fp32.
            on_token: told of each token.
        """
        tokens = next_tokens(logits_SV, [reply.choice for reply in replies])
        measured = [number for number, reply in enumerate(replies) if reply.request.logprobs]
        logprobs = dict(
            zip(measured, token_logprobs(logits_SV[measured], [tokens[number] for number in measured]), strict=True)
        )
        completions: list[Completion] = []
        for number, (reply, token) in enumerate(zip(replies, tokens, strict=True)):
            reply.text.add(token)
            if reply.text.ended_by != "stop_token":
                reply.choice.generated.append(token)
                reply.logprobs += [logprobs[number]] if number in logprobs else []
                if on_token is not None:
                    on_token(reply.place, reply.sample, token)
            if reply.text.ended_by is not None:
                self._cache.release(reply)
                self._growing.remove(reply)
                completions.append(reply.completion)
        return completions

    def _move_to_larger_rows(self) -> None:
        """Give each reply whose row is full a longer one; where memory is short, the youngest begin again later."""
        full = [reply for reply in self._growing if reply.shelf is not None and reply.tokens == reply.shelf.capacity]
        kept: list[Reply] = []
        promised = 0
        for reply in full:
            if reply.shelf is None:  # it had to make room for another
                continue
            tokens = capacity_for(reply.room)
            while not self._cache.fits(tokens, promised) and len(self._growing) > 1:
                youngest = self._growing[-1] if self._growing[-1] is not reply else self._growing[-2]
                if youngest in kept:
                    break
                self._begin_again_later(youngest)
            promised += tokens
            kept.append(reply)
        self._place(kept, grows=True)

    def _begin_again_later(self, reply: Reply) -> None:
        self._growing.remove(reply)
        self._cache.release(reply)
        self._waiting.appendleft(reply)

    def _place(self, replies: Sequence[Reply], *, grows: bool) -> None:
        groups: dict[tuple[Beginning, int], list[Reply]] = defaultdict(list)
        for reply in replies:
            groups[reply.beginning, capacity_for(reply.room)].append(reply)
        for (beginning, capacity), group in groups.items():
            self._cache.place(group, beginning, capacity, grows=grows)

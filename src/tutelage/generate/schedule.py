"""Which replies grow, which prompts are computed, and which wait: what one step after the other is made of.

Shape legend: S = replies that get a token, V = vocabulary.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from tutelage.generate.attention import DecodeGroup, Prefill, Step
from tutelage.generate.kv_cache import NO_BEGINNING, Beginning, KVCache, capacity_for
from tutelage.generate.kv_cache import Sequence as CachedSequence
from tutelage.generate.prefix_cache import PrefixCache
from tutelage.generate.requests import Completion, Likely, Request
from tutelage.generate.sampling import Choice, likely_tokens, next_tokens, token_logprobs
from tutelage.generate.stopping import ReplyText
from tutelage.types import TokenIds

ROOM_AHEAD = 64
"""Tokens of a reply for which its first row has room; a longer one moves to another shelf."""


@dataclass(eq=False, kw_only=True)
class Reply(CachedSequence):
    """A reply that waits or grows. What it has generated is computed like its prompt where it has to begin again."""

    place: int
    sample: int
    request: Request
    choice: Choice
    text: ReplyText
    logprobs: list[float] = field(default_factory=list)
    likely: list[Likely] = field(default_factory=list)
    twins: list[Reply] = field(default_factory=list)
    """Replies to the same prompt that take over what is computed for it; they have rows as long as this one."""

    @property
    def group(self) -> list[Reply]:
        """It and its twins."""
        return [self, *self.twins]

    @property
    def pending(self) -> int:
        """How many tokens of the prompt and of what was generated are not computed yet."""
        return self.beginning.virtual_tokens + len(self.request.prompt) + len(self.text.ids) - self.position

    @property
    def position(self) -> int:
        """Of the first token that is not computed yet."""
        return self.beginning.tokens + self.tokens

    @property
    def room(self) -> int:
        """Tokens that its row shall have room for."""
        remaining = self.request.max_new_tokens - len(self.text.ids)
        return self.held + self.pending + min(remaining, ROOM_AHEAD)

    def next_ids(self, count: int) -> list[int]:
        """The next ids to compute."""
        if self.pending == 1 and self.text.ids:
            return self.text.ids[-1:]
        ids = [*self.request.prompt.tolist(), *self.text.ids]
        first = self.position - self.beginning.virtual_tokens
        return ids[first : first + count]

    @property
    def completion(self) -> Completion:
        """What it has come to."""
        text, logprobs, likely = self.text, tuple(self.logprobs), tuple(self.likely)
        assert text.ended_by is not None
        return Completion(self.place, self.sample, tuple(text.ids), text.text, text.ended_by, logprobs, likely)

    @property
    def ids(self) -> TokenIds:
        """Of the prompt and of what was generated."""
        return np.concatenate([self.request.prompt, np.asarray(self.text.ids, dtype=np.int32)])


OnToken = Callable[[Reply, int], None]
"""Told of each token as it comes, and whose it is."""


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
        prefill_tokens: of prompts in a step.
        cuts_prompts: whether a prompt is cut where it passes that; else it is computed alone.
        prefixes: what is known of earlier prompts and replies; None: nothing is kept.
    """

    def __init__(
        self,
        replies: Iterable[Reply],
        cache: KVCache,
        active_replies: int,
        prefill_tokens: int,
        *,
        cuts_prompts: bool,
        prefixes: PrefixCache | None = None,
    ) -> None:
        self._waiting = deque(replies)
        self._filling: list[Reply] = []
        self._growing: list[Reply] = []
        self._cache, self._active_replies = cache, active_replies
        self._prefill_tokens, self._cuts_prompts = prefill_tokens, cuts_prompts
        self._prefixes = prefixes

    def add(self, reply: Reply) -> None:
        """Let another reply wait, behind all others."""
        self._waiting.append(reply)

    def cancel(self, place: int) -> None:
        """Forget the replies to a request, wherever they are; what they held is free."""
        self._waiting = deque(reply for reply in self._waiting if reply.place != place)
        for replies in (self._filling, self._growing):
            for reply in [reply for reply in replies if reply.place == place]:
                replies.remove(reply)
                for sample in reply.group:
                    self._cache.release(sample)

    @property
    def waiting(self) -> int:
        """Replies that have not begun."""
        return sum(len(reply.group) for reply in self._waiting)

    @property
    def active(self) -> int:
        """Replies under way."""
        return len(self._growing) + sum(len(reply.group) for reply in self._filling)

    @property
    def done(self) -> bool:
        """No reply is left."""
        return not (self._waiting or self._filling or self._growing)

    def admit(self) -> list[Beginning]:
        """Make room for the next token of every reply, let others begin; returns beginnings that are to be computed."""
        self._move_to_larger_rows()
        unknown: list[Beginning] = []
        while self._waiting and (count := self._room_for(self._waiting[0])):
            reply = self._waiting.popleft()
            if rest := reply.twins[count - 1 :]:
                reply.twins, rest[0].twins = reply.twins[: count - 1], rest[1:]
                self._waiting.appendleft(rest[0])
            self._take_prefix(reply)
            if self._cache.begin(reply.beginning):
                unknown.append(reply.beginning)
            self._cache.place([*reply.group], reply.beginning, capacity_for(reply.room))
            self._filling.append(reply)
        return unknown

    def row(self) -> tuple[Step, list[Part]]:
        """The next row: a token of every reply that grows, then prompts."""
        parts: list[Part] = []
        groups: list[DecodeGroup] = []
        for shelf in self._cache.growing:
            groups.append(DecodeGroup(slice(len(parts), len(parts) + len(shelf.growing)), shelf))
            parts += [Part(reply, 1) for reply in shelf.growing if isinstance(reply, Reply)]
        prefills: list[Prefill] = []
        place, budget = len(parts), self._prefill_tokens
        for reply in self._filling:
            count = min(reply.pending, budget) if self._cuts_prompts else reply.pending
            if budget <= 0 or (prefills and count > budget):
                break
            budget -= count
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
        for reply in filled:
            row_place, shelf = places[asked.index(reply)], reply.shelf
            assert shelf is not None
            shelf.start_growing(reply)
            for twin in reply.twins:
                shelf.copy(reply, twin)
                shelf.start_growing(twin)
            asked += reply.twins
            places += [row_place] * len(reply.twins)
            self._growing += reply.group
            reply.twins = []
            if reply.beginning.copied:
                reply.beginning.layers.clear()  # the row holds them
            if self._prefixes is not None and self._prefixes.is_mostly_new(reply.request.prompt, reply.request.adapter):
                self._keep_prefix(reply)
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
                reply.choice.take(token)
                reply.logprobs += [logprobs[number]] if number in logprobs else []
                if reply.request.top_logprobs:
                    reply.likely.append(likely_tokens(logits_SV[number], reply.request.top_logprobs))
                if on_token is not None:
                    on_token(reply, token)
            if reply.text.ended_by is not None:
                self._keep_prefix(reply)
                self._cache.release(reply)
                self._growing.remove(reply)
                completions.append(reply.completion)
        return completions

    def _room_for(self, reply: Reply) -> int:
        """How many of a waiting group can begin: all or, but where nothing else is active, none."""
        size, row_tokens = len(reply.group), capacity_for(reply.room)
        if active := self.active:
            fits = active + size <= self._active_replies and self._cache.fits(reply.beginning, size * row_tokens)
            return size if fits else 0
        counts = range(size, 1, -1)
        return next((count for count in counts if self._cache.fits(reply.beginning, count * row_tokens)), 1)

    def _take_prefix(self, reply: Reply) -> None:
        """Let a reply begin with what is known of its ids."""
        if self._prefixes is None or not (reply.beginning is NO_BEGINNING or reply.beginning.copied):
            return
        beginning = self._prefixes.beginning_for(reply.ids, reply.request.adapter)
        for sample in reply.group:
            sample.beginning = beginning

    def _keep_prefix(self, reply: Reply) -> None:
        """Keep what was computed for a reply, its prompt included."""
        shares_beginning = reply.beginning.tokens and not reply.beginning.is_inlined
        if self._prefixes is None or reply.shelf is None or shares_beginning or reply.beginning.virtual_tokens:
            return
        self._prefixes.keep(reply.ids[: reply.held], reply.request.adapter, reply.shelf.held_by(reply))

    def _move_to_larger_rows(self) -> None:
        """Give each reply whose row is full a longer one; where memory is short, the youngest are preempted."""
        for reply in list(self._growing):
            row_tokens = capacity_for(reply.room)
            while reply.shelf is not None and reply.held == reply.shelf.capacity:
                active = self._growing + self._filling
                if not self._cache.fits(reply.beginning, row_tokens) and len(active) > 1:
                    self._preempt(active[-1])  # which may be this reply itself
                    continue
                self._cache.place([reply], reply.beginning, row_tokens)
                reply.shelf.start_growing(reply)

    def _preempt(self, reply: Reply) -> None:
        """Take a group's memory away, so that it begins again when there is room."""
        (self._filling if reply in self._filling else self._growing).remove(reply)
        for sample in reply.group:
            self._cache.release(sample)
        self._waiting.appendleft(reply)

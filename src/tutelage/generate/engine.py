"""Continuous batching: prompts are computed as packed rows, replies grow together, and a finished one makes room.

Every step is one forward pass over one row: the newest token of each reply under way, and the prompts that begin. A
reply is what it would be alone but for rounding (`generate.batch_check` tries that on the model).

Shape legend: T = tokens of a step's row, S = replies that get a token, D = hidden width, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from tutelage.generate.attention import Prefill, Step, attending, cached_attention, configs_of_attention
from tutelage.generate.beginnings import shared_beginnings
from tutelage.generate.few_rows import few_row_units, few_rows
from tutelage.generate.kv_cache import NO_BEGINNING, Beginning, KVCache, capacity_for
from tutelage.generate.logits import LogitsOfHidden, logits_of
from tutelage.generate.prefix_cache import PrefixCache
from tutelage.generate.requests import Completion, Request
from tutelage.generate.sampling import Choice
from tutelage.generate.schedule import OnToken, Reply, Schedule
from tutelage.generate.stopping import ReplyText
from tutelage.model.adapters.per_token import PEFT_BASE, has_adapters, mixed_adapters, require_mixable, tokens_of
from tutelage.model.adapters.prompt_tuning import behind_virtual_tokens, has_prompt, virtual_tokens
from tutelage.model.architecture import bare_model
from tutelage.model.layers import decoder_of
from tutelage.model.output_head import HeadKind
from tutelage.render import Tokenizer

ACTIVE_REPLIES = 64
"""Replies that grow together, where nothing else is asked for."""

PREFILL_TOKENS = 1024
"""Tokens of prompts in one step: products gain nothing from more, and replies under way wait less."""

LAID_OUT_FROM = 4
"""Requests from which on it pays to copy the head's weight into another layout."""

Watch = Callable[[Sequence[int], torch.Tensor], None]

OnTokenOf = Callable[[int, int, int], None]
"""Called with the place of the request, the number of the sample, and the token, as each comes."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What steps of one model need, made once for many."""

    model: Any
    configs: Sequence[Any]
    units: Sequence[torch.nn.Module]
    logits_of_hidden: LogitsOfHidden
    mixed: bool

    @contextmanager
    def answering(self) -> Iterator[None]:
        """In the block the model computes steps; behind it, it attends as before."""
        mixing = mixed_adapters(self.model) if self.mixed else nullcontext()
        with mixing, cached_attention(self.configs), few_rows(self.units), torch.inference_mode():
            yield


class Engine:
    """Generates with one model.

    Args:
        model: a causal language model that `generate.batch_check` found fit, with or without PEFT around it.
        tokenizer: its stop tokens end a reply.
        head: who makes its logits, see `model.output_head`.
        active_replies: replies that grow together.
        most_tokens: tokens whose keys and values may be kept, which bounds its memory; None: as many as
            `active_replies` of the longest request could have.
        shares_beginnings: what prompts begin with alike is computed once, and long prompts in parts; a model must take
            that (`model.architecture`).
        watch: told of the logits of each step before a token is chosen, as places of requests and [S, V].
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Tokenizer,
        *,
        head: HeadKind = "product",
        active_replies: int = ACTIVE_REPLIES,
        most_tokens: int | None = None,
        shares_beginnings: bool = True,
        watch: Watch | None = None,
    ) -> None:
        assert shares_beginnings or not has_prompt(model), "virtual tokens are a beginning of all prompts"
        self._adapted, self._model = model, bare_model(model)
        self._decoder, self._configs = decoder_of(self._model), configs_of_attention(self._model)
        self._device = self._model.get_input_embeddings().weight.device
        self._tokenizer, self._head_kind = tokenizer, head
        self._active_replies, self._most_tokens = active_replies, most_tokens
        self._shares_beginnings, self._watch = shares_beginnings, watch

    def generate(self, requests: Sequence[Request], on_token: OnTokenOf | None = None) -> Iterator[Completion]:
        """Replies, each as soon as it ends. The model is in evaluation mode then, and attends as it did before.

        Args:
            requests: what is asked.
            on_token: told of each token.

        Raises:
            ConfigError: an adapter that the model does not have, or that cannot be mixed with others.
            RuntimeError, MemoryError: memory runs out (`model.out_of_memory`).
        """
        if not requests:
            return
        mixed = any(request.adapter is not None for request in requests)
        if mixed:
            require_mixable(self._adapted, {request.adapter or self._active_adapter() for request in requests})
        beginnings = self._beginnings(requests)
        schedule = self._schedule(
            (
                reply
                for place, (request, beginning) in enumerate(zip(requests, beginnings, strict=True))
                for reply in self._replies(place, request, beginning)
            ),
            self._bound(requests),
        )
        told = None if on_token is None else lambda reply, token: on_token(reply.place, reply.sample, token)
        prepared = self._prepared(mixed=mixed, lay_out=len(requests) >= LAID_OUT_FROM)
        while not schedule.done:
            completions: list[Completion] = []
            with prepared.answering():  # not across a yield, which may be the last
                while not completions:
                    completions = self._step(schedule, prepared.logits_of_hidden, told)
            yield from completions

    def session(self, *, most_tokens: int, prefix_tokens: int = 0, mixed: bool = False) -> Session:
        """Requests that come while others are answered.

        Args:
            most_tokens: of prompts and replies under way, whose keys and values may be kept together.
            prefix_tokens: of earlier prompts and replies, whose keys and values are kept for those that begin alike.
            mixed: requests name their adapters; else the one that is active answers all.
        """
        prepared = self._prepared(mixed=mixed, lay_out=True)
        prefixes = PrefixCache(prefix_tokens) if self._shares_beginnings and not has_prompt(self._adapted) else None
        schedule = self._schedule((), most_tokens, prefixes)
        virtual = virtual_tokens(self._adapted)
        beginning = Beginning(virtual) if virtual else NO_BEGINNING
        return Session(self, schedule, prepared, beginning, prefixes)

    def _prepared(self, *, mixed: bool, lay_out: bool) -> _Prepared:
        with torch.inference_mode():
            self._model.eval()
            logits_of_hidden = logits_of(self._model, self._head_kind, lay_out=lay_out)
            units = few_row_units(self._decoder)
        return _Prepared(self._model, self._configs, units, logits_of_hidden, mixed)

    def _schedule(self, replies: Iterable[Reply], most_tokens: int, prefixes: PrefixCache | None = None) -> Schedule:
        return Schedule(
            replies,
            KVCache(most_tokens),
            self._active_replies,
            PREFILL_TOKENS,
            cuts_prompts=self._shares_beginnings,
            prefixes=prefixes,
        )

    def _bound(self, requests: Sequence[Request]) -> int:
        if self._most_tokens is not None:
            return self._most_tokens
        longest = max(len(request.prompt) + request.max_new_tokens for request in requests)
        return self._active_replies * capacity_for(longest) + virtual_tokens(self._adapted)

    def _replies(self, place: int, request: Request, beginning: Beginning) -> Iterator[Reply]:
        """The replies to a request, those that share what is computed for its prompt in one."""
        replies = [
            Reply(
                place=place,
                sample=sample,
                request=request,
                beginning=beginning,
                choice=Choice(
                    request.sampling,
                    sample,
                    request.prompt,
                    grammar=None if request.grammar is None else request.grammar(),
                ),
                text=ReplyText(self._tokenizer, request.stop_strings, request.max_new_tokens),
            )
            for sample in range(request.samples)
        ]
        for first in range(0, len(replies), self._active_replies):
            replies[first].twins = replies[first + 1 : first + self._active_replies]
            yield replies[first]

    def _beginnings(self, requests: Sequence[Request]) -> list[Beginning]:
        """What each prompt begins with; another adapter makes other keys of the same tokens."""
        beginnings = [NO_BEGINNING] * len(requests)
        if not self._shares_beginnings:
            return beginnings
        virtual = virtual_tokens(self._adapted)
        known: dict[tuple[str | None, tuple[int, ...]], Beginning] = {}
        for adapter in {request.adapter for request in requests}:
            places = [place for place, request in enumerate(requests) if request.adapter == adapter]
            shared = shared_beginnings([requests[place].prompt for place in places])
            for place, tokens in zip(places, shared, strict=True):
                if tokens or virtual:
                    ids = tuple(requests[place].prompt[:tokens].tolist())
                    beginnings[place] = known.setdefault((adapter, ids), Beginning(virtual + tokens, ids, adapter))
        return beginnings

    def _active_adapter(self) -> str:
        active: str = self._adapted.active_adapter if has_adapters(self._adapted) else PEFT_BASE
        return active

    def _step(self, schedule: Schedule, logits_of_hidden: LogitsOfHidden, on_token: OnToken | None) -> list[Completion]:
        """One forward pass; returns the replies that end with it."""
        for beginning in schedule.admit():
            self._begin(beginning)
        step, parts = schedule.row()
        ids = [token for part in parts for token in part.reply.next_ids(part.count)]
        positions = [part.reply.position + number for part in parts for number in range(part.count)]
        adapters = [part.reply.request.adapter for part in parts for _ in range(part.count)]
        hidden_TD = self._hidden(step, ids, positions, adapters)
        asked, places = schedule.computed(parts)
        if not asked:
            return []
        logits_SV = logits_of_hidden(hidden_TD[places])
        if self._watch is not None:
            self._watch([reply.place for reply in asked], logits_SV)
        return schedule.take(asked, logits_SV, on_token)

    def _begin(self, beginning: Beginning) -> None:
        """Compute the keys and values of a beginning."""
        step = Step((), (Prefill(slice(0, beginning.tokens), beginning, None),))
        if not beginning.virtual_tokens:
            self._hidden(step, beginning.ids, range(beginning.tokens), [beginning.adapter] * beginning.tokens)
            return
        positions_1P = torch.arange(beginning.tokens, device=self._device)[None]
        embedded_1PD = behind_virtual_tokens(self._adapted, torch.tensor([beginning.ids], device=self._device).int())
        with attending(step):
            self._decoder(inputs_embeds=embedded_1PD, position_ids=positions_1P, use_cache=False)

    def _hidden(
        self, step: Step, ids: Sequence[int], positions: Sequence[int], adapters: Sequence[str | None]
    ) -> torch.Tensor:
        ids_1T, positions_1T = torch.tensor([list(ids), list(positions)], device=self._device).unsqueeze(1)
        active = self._active_adapter()
        with attending(step), tokens_of([adapter or active for adapter in adapters]):
            hidden_1TD: torch.Tensor = self._decoder(input_ids=ids_1T, position_ids=positions_1T, use_cache=False)[0]
        return hidden_1TD[0]


class Session:
    """Requests that come while others are answered; for one thread at a time.

    Args:
        engine: answers.
        schedule: of its replies.
        prepared: what its steps need.
        beginning: virtual tokens that all prompts have in front, or nothing.
        prefixes: what is kept of earlier prompts and replies.
    """

    def __init__(
        self,
        engine: Engine,
        schedule: Schedule,
        prepared: _Prepared,
        beginning: Beginning,
        prefixes: PrefixCache | None,
    ) -> None:
        self._engine, self._schedule, self._prepared = engine, schedule, prepared
        self._beginning, self._prefixes = beginning, prefixes

    def submit(self, place: int, request: Request) -> None:
        """Let a request wait its turn.

        Args:
            place: tells it apart; tokens and completions name it.
            request: what is asked.

        Raises:
            ConfigError: as of `Engine.generate`.
        """
        if request.adapter is not None:
            assert self._prepared.mixed, "this session was opened for one adapter"
            require_mixable(self._engine._adapted, {request.adapter})
        for reply in self._engine._replies(place, request, self._beginning):
            self._schedule.add(reply)

    def cancel(self, place: int) -> None:
        """Forget a request; what it held is free for others. One that has ended is passed over."""
        with torch.inference_mode():  # rows of others move into the free one, and they were made in it
            self._schedule.cancel(place)

    def step(self, on_token: OnToken | None = None) -> list[Completion]:
        """One forward pass inside of `answering`; returns the replies that end with it.

        Raises:
            RuntimeError, MemoryError: memory runs out (`model.out_of_memory`).
        """
        return self._engine._step(self._schedule, self._prepared.logits_of_hidden, on_token)

    def answering(self) -> AbstractContextManager[None]:
        """In the block the model computes steps, and nothing else may ask it."""
        return self._prepared.answering()

    @property
    def done(self) -> bool:
        """Nothing waits and nothing is under way."""
        return self._schedule.done

    @property
    def waiting(self) -> int:
        """Replies that have not begun."""
        return self._schedule.waiting

    @property
    def active(self) -> int:
        """Replies under way."""
        return self._schedule.active

    @property
    def reused_tokens(self) -> int:
        """Tokens of prompts that were not computed, as they were known."""
        return 0 if self._prefixes is None else self._prefixes.reused_tokens

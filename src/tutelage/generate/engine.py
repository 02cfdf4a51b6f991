"""Continuous batching: prompts are computed as packed rows, replies grow together, and a finished one makes room.

Every step is one forward pass over one row: the newest token of each reply under way, and the prompts that begin. A
reply is what it would be alone but for rounding (`generate.batch_check` tries that on the model).

Shape legend: T = tokens of a step's row, S = replies that get a token, D = hidden width, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch

from tutelage.generate.attention import Prefill, Step, attending, cached_attention, configs_of_attention
from tutelage.generate.beginnings import shared_beginnings
from tutelage.generate.few_rows import few_row_units, few_rows
from tutelage.generate.kv_cache import NO_BEGINNING, Beginning, KVCache, capacity_for
from tutelage.generate.logits import LogitsOfHidden, logits_of
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

    def generate(self, requests: Sequence[Request], on_token: OnToken | None = None) -> Iterator[Completion]:
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
        schedule = Schedule(
            self._replies(requests),
            KVCache(self._bound(requests)),
            self._active_replies,
            PREFILL_TOKENS,
            cuts_prompts=self._shares_beginnings,
        )
        with torch.inference_mode():
            self._model.eval()
            logits_of_hidden = logits_of(self._model, self._head_kind, lay_out=len(requests) >= LAID_OUT_FROM)
            units = few_row_units(self._decoder)
        while not schedule.done:
            completions: list[Completion] = []
            mixing = mixed_adapters(self._model) if mixed else nullcontext()
            # Not across a yield, which may be the last.
            with mixing, cached_attention(self._configs), few_rows(units), torch.inference_mode():
                while not completions:
                    completions = self._step(schedule, logits_of_hidden, on_token)
            yield from completions

    def _bound(self, requests: Sequence[Request]) -> int:
        if self._most_tokens is not None:
            return self._most_tokens
        longest = max(len(request.prompt) + request.max_new_tokens for request in requests)
        return self._active_replies * capacity_for(longest) + virtual_tokens(self._adapted)

    def _replies(self, requests: Sequence[Request]) -> Iterator[Reply]:
        beginnings = self._beginnings(requests)
        for place, request in enumerate(requests):
            beginning = beginnings[place]
            replies = [
                Reply(
                    place=place,
                    sample=sample,
                    request=request,
                    beginning=beginning,
                    choice=Choice(request.sampling, sample, request.prompt),
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

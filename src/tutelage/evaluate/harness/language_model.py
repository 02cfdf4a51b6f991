"""A model as the lm-evaluation-harness asks it: its interface `lm_eval.api.model.LM` (0.4.13), answered by our engine.

Nothing of the harness is imported here: it calls these methods by name, and `lm_eval.evaluator.evaluate` takes any
object that has them. Processes share the requests inside, which the interface allows: outside there is one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np

from tutelage.distributed.collective_errors import collective_call
from tutelage.distributed.process_group import SINGLE, ProcessGroup
from tutelage.errors import ConfigError
from tutelage.generate.replies import served_text
from tutelage.generate.requested_texts import requested_texts
from tutelage.generate.requests import Request, Sampling
from tutelage.generate.scoring import GivenText, Score, score
from tutelage.model.adapters.prompt_tuning import virtual_tokens
from tutelage.model.architecture import Architecture, bare_model
from tutelage.model.attention.packed import use_generation_attention
from tutelage.model.positions import stated_positions
from tutelage.render import Renderer
from tutelage.types import Message

UNSTATED_TOKENS = 2048
"""What a model takes whose configuration states nothing. Source: lm-eval's `HFLM._DEFAULT_MAX_LENGTH`."""
MOST_NEW_TOKENS = 256
"""Of a reply where the task names no number. Source: lm-eval's `HFLM.max_gen_toks`."""
LENGTH_NAMES = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""In the order in which the harness takes them (`lm_eval.models.utils.normalize_gen_kwargs`)."""
SAMPLING_NAMES = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "presence_penalty")
ROLES = ("system", "user", "assistant")


class Asked(Protocol):
    """A request, `lm_eval.api.instance.Instance`."""

    @property
    def args(self) -> tuple[Any, ...]:
        """What is asked: texts, and settings of a reply."""


class HarnessModel:
    """Answers the three kinds of requests.

    With the chat template applied, prompts are those that a server would make: the run's own template writes them, the
    tokenizer adds nothing, and replies end at all stop tokens of the model. Otherwise a text is encoded as a document,
    with what the tokenizer itself puts around one. Context and continuation are encoded together and divided as the
    harness divides them, so that its figures of other models can be held beside these.

    Args:
        model: with or without PEFT around it.
        renderer: its template writes prompts, its tokenizer reads them.
        architecture: what was tried on the model.
        batch_prompts: replies that grow together.
        seed: of replies that a task wants drawn.
        process_group: processes that share the requests, each with the whole model; all get all answers.
        done: called with the number of requests answered since the last call.
        log: told of settings of a task that have no meaning here.
    """

    rank, world_size, device = 0, 1, None

    def __init__(
        self,
        model: Any,
        renderer: Renderer,
        architecture: Architecture,
        *,
        batch_prompts: int,
        seed: int = 0,
        process_group: ProcessGroup = SINGLE,
        done: Callable[[int], None] = lambda _: None,
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._model, self._renderer, self._architecture = model, renderer, architecture
        self._batch_prompts, self._seed, self._group = batch_prompts, seed, process_group
        self._done, self._log = done, log
        self._served: set[str] = set()
        self._unknown: set[str] = set()
        stated = stated_positions(bare_model(model).config) or UNSTATED_TOKENS
        self._most_tokens = stated - virtual_tokens(model)

    @property
    def tokenizer_name(self) -> str:
        """What a prompt depends on: the harness names its own cache of them so."""
        facts = self._renderer.template.sha256() + self._renderer.tokenizer.sha256()
        return hashlib.sha256(facts.encode()).hexdigest()

    def chat_template(self, _chat_template: bool | str = False) -> str:
        """The template that prompts are written by."""
        return self._renderer.template.source

    def apply_chat_template(self, chat_history: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
        """The served prompt of a conversation; with False, one whose last message begins the reply.

        Raises:
            TemplateError: the model's template refuses it.
        """
        messages = [_message(said) for said in chat_history]
        if add_generation_prompt:
            text = served_text(self._renderer, messages)
        else:
            text = served_text(self._renderer, messages[:-1]) + str(messages[-1].content)
        self._served.add(text)
        return text

    def loglikelihood(self, requests: Sequence[Asked]) -> list[tuple[float, bool]]:
        """Of each (context, continuation): the logarithm of the continuation's probability, and is it the likeliest."""
        pairs = [self._pair(*request.args) for request in requests]
        return [(found.total, found.is_likeliest) for found in self._scored(pairs)]

    def loglikelihood_rolling(self, requests: Sequence[Asked]) -> list[float]:
        """Of each (text,): the logarithm of its probability behind the prefix token, each token with what fits."""
        windows = [
            list(rolling_windows(self._plain_ids(request.args[0]), self._prefix_id, self._most_tokens))
            for request in requests
        ]
        scores = iter(self._scored([pair for parts in windows for pair in parts]))
        return [sum(next(scores).total for _ in parts) for parts in windows]

    def generate_until(self, requests: Sequence[Asked]) -> list[str]:
        """Of each (context, settings): a reply, ended by the model, by a text of `until`, or by its length.

        Raises:
            ConfigError: a setting out of its range, or one that asks for draws of a model that the engine does not fit.
        """
        asked = [self._request(*request.args) for request in requests]
        use_generation_attention(self._model)
        return requested_texts(
            self._model,
            self._renderer.tokenizer,
            asked,
            batch_prompts=self._batch_prompts,
            done=self._done,
            process_group=self._group,
        )

    def _scored(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[Score]:
        """The score of each text behind its prompt; of an empty one nothing is against it."""
        given = [
            GivenText(np.asarray(prompt, dtype=np.int32), np.asarray(text, dtype=np.int32))
            for prompt, text in pairs
            if text
        ]
        own = given[self._group.rank :: self._group.size]
        scores = collective_call(self._group, partial(score, self._model, own, self._architecture, done=self._done))
        by_rank = self._group.gather(scores)
        found = iter([by_rank[place % self._group.size][place // self._group.size] for place in range(len(given))])
        return [next(found) if text else Score((), True) for _, text in pairs]

    def _pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """Ids of both, held to the model's positions from the left; white space between them goes to the second."""
        if not context:
            ids = self._encoded(continuation)
            prompt = [self._prefix_id]
            if ids[:1] == prompt:
                ids = ids[1:]
        else:
            kept = context.rstrip()
            encode = self._encoded if context in self._served else self._plain_ids
            prompt = encode(kept)
            ids = encode(context + continuation)[len(prompt) :]
        text = ids[-self._most_tokens :]
        most = self._most_tokens + 1 - len(text)
        return (prompt or [self._prefix_id])[-most:], text

    def _request(self, context: str, settings: Mapping[str, Any]) -> Request:
        named = [settings[name] for name in LENGTH_NAMES if settings.get(name) is not None]
        new_tokens = int(named[0]) if named else MOST_NEW_TOKENS
        room = self._most_tokens - new_tokens
        if room < 1:
            raise ConfigError(
                "A task of lm-eval asks for longer replies than this model has positions",
                where="evaluate.lm_eval",
                found=f"replies of up to {new_tokens} tokens, and {self._most_tokens} positions",
                fix="leave this task out",
            )
        ids = self._encoded(context) if context in self._served else self._plain_ids(context)
        until = settings.get("until") or []
        stops = [until] if isinstance(until, str) else until
        prompt = np.asarray((ids or [self._prefix_id])[-room:], dtype=np.int32)
        stop_strings = tuple(stop for stop in stops if stop)
        return Request(prompt, new_tokens, self._sampling(settings), stop_strings=stop_strings)

    def _sampling(self, settings: Mapping[str, Any]) -> Sampling:
        known = {*LENGTH_NAMES, *SAMPLING_NAMES, "until", "do_sample"}
        for name in sorted(settings.keys() - known - self._unknown):
            self._unknown.add(name)
            self._log(f"  note: a task sets {name} = {settings[name]!r} for its replies, which has no meaning here")
        drawn = settings.get("do_sample") is not False and float(settings.get("temperature") or 0.0) > 0
        if not drawn:
            return Sampling()
        values = {name: settings[name] for name in SAMPLING_NAMES if settings.get(name) is not None}
        return Sampling(**values, seed=self._seed)

    @property
    def _prefix_id(self) -> int:
        """What stands before a text that nothing stands before: BOS, or else the end token."""
        tokenizer = self._renderer.tokenizer
        bos = tokenizer.fast.token_to_id(tokenizer.named_tokens.get("bos_token", ""))
        return tokenizer.stop_id if bos is None else int(bos)

    def _encoded(self, text: str) -> list[int]:
        return self._renderer.tokenizer.encode([text])[0]

    def _plain_ids(self, text: str) -> list[int]:
        """As a document; a text that spells its BOS out gets no second one."""
        bos = self._renderer.tokenizer.named_tokens.get("bos_token")
        if bos and text.startswith(bos):
            return self._encoded(text)
        return self._renderer.tokenizer.encode_document(text)


def rolling_windows(ids: Sequence[int], prefix: int, most_tokens: int) -> Iterator[tuple[list[int], list[int]]]:
    """Pairs of (given, scored) in which each id is scored once; the last one is given as much as fits.

    Args:
        ids: of a whole text.
        prefix: stands before the first.
        most_tokens: that the model takes.
    """
    for start in range(0, len(ids), most_tokens):
        end = min(start + most_tokens, len(ids))
        given = list(ids[max(0, end - most_tokens - 1) : start]) if start else [prefix]
        yield given, list(ids[start:end])


def _message(said: Mapping[str, str]) -> Message:
    role = said["role"]
    if role not in ROLES:
        raise ConfigError(
            "A task of lm-eval has a turn of a role that is not known here",
            where="evaluate.lm_eval",
            found=role,
            expected=", ".join(ROLES),
            fix="leave this task out",
        )
    return Message(role, said["content"])  # type: ignore[arg-type]  # one of ROLES

"""vLLM as the engine, where it is installed and there is a GPU: the same requests, the same completions.

It was never run on a GPU by us. Its public names and what they mean are those of `vllm.LLM.generate`, `TokensPrompt`,
`SamplingParams`, `LoRARequest` and `CompletionOutput` as its source has them (vllm/entrypoints/llm.py,
vllm/sampling_params.py, vllm/outputs.py, vllm/lora/request.py, read in 2026); `tests/support/vllm_stand_in.py` has
these signatures.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tutelage.errors import ConfigError, DependencyError, EngineError
from tutelage.generate.requests import Completion, EndedBy, EndedReply, Request, Sampling
from tutelage.model.adapters.per_token import PEFT_BASE
from tutelage.render import Tokenizer
from tutelage.types import TokenIds

WHERE = "--engine vllm"
INSTALL = "pip install vllm"
PORTION = 512
"""Requests that are handed over at once; `done` is told after each portion."""
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks of adapters that vLLM can be told to make room for; a pair of another rank takes the next. Source:
`vllm.config.lora.MaxLoRARanks`, without 1, which takes 8."""


def require_vllm() -> None:
    """Refuse where vLLM cannot work, before a model is loaded.

    Raises:
        DependencyError: it is not installed.
        EngineError: there is no GPU.
    """
    if importlib.util.find_spec("vllm") is None:
        raise DependencyError(
            "The engine vllm needs a package that is not installed",
            where=WHERE,
            found="no package vllm",
            expected="vllm, which brings a torch of its own: give it an environment of its own",
            fix=f"{INSTALL}, or leave --engine out",
        )
    if not has_gpu():
        raise EngineError(
            "vLLM computes on a GPU, and there is none",
            where=WHERE,
            found="torch.cuda.is_available() is False",
            expected="a GPU that torch reaches",
            fix=f"leave --engine out; or, on a machine with a GPU, {INSTALL}",
        )


def has_gpu() -> bool:
    """Whether torch reaches a GPU."""
    import torch

    return torch.cuda.is_available()


class VllmEngine:
    """Generates with vLLM, which loads the model by itself.

    Args:
        model: the folder of a whole model.
        tokenizer: its stop tokens end a reply, and it spells replies.
        precision: what is computed in: "fp32" or "bf16".
        adapters: folders of LoRA adapters by the name that a request gives; a request without a name gets the first.
        largest_rank: of the adapters.
        most_tokens: of a prompt and its reply; None: what the model's configuration states.
        active_replies: replies that grow together.
        trust_remote_code: let the model's own Python code run.

    Raises:
        DependencyError, EngineError: as `require_vllm`.
    """

    def __init__(
        self,
        model: Path,
        tokenizer: Tokenizer,
        *,
        precision: Literal["fp32", "bf16"],
        adapters: Mapping[str, Path] | None = None,
        largest_rank: int = RANKS[0],
        most_tokens: int | None = None,
        active_replies: int | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        require_vllm()
        from vllm import LLM
        from vllm.lora.request import LoRARequest

        self._tokenizer = tokenizer
        named = dict(adapters or {})
        self._adapters = {
            name: LoRARequest(name, number, str(folder)) for number, (name, folder) in enumerate(named.items(), start=1)
        }
        options: dict[str, Any] = {
            "dtype": {"fp32": "float32", "bf16": "bfloat16"}[precision],
            "trust_remote_code": trust_remote_code,
            "generation_config": "vllm",  # nothing of the model's own sampling settings: requests say all of it
            "seed": 0,
        }
        if most_tokens is not None:
            options["max_model_len"] = most_tokens
        if active_replies is not None:
            options["max_num_seqs"] = active_replies
        if named:
            room = next((rank for rank in RANKS if rank >= largest_rank), None)
            if room is None:
                raise ConfigError(
                    "vLLM has no room for an adapter of this rank",
                    where=WHERE,
                    found=f"rank {largest_rank}",
                    expected=f"at most {RANKS[-1]}",
                    fix="leave --engine out",
                )
            options |= {"enable_lora": True, "max_lora_rank": room, "max_loras": len(named)}
        self._llm = LLM(str(model), tokenizer=str(tokenizer.folder), **options)

    def generate(
        self, requests: Sequence[Request], done: Callable[[int], None] = lambda _: None
    ) -> Iterator[Completion]:
        """Replies in the order of the requests, a portion of them at a time.

        Args:
            requests: what is asked.
            done: called with the number of requests answered since the last call.

        Raises:
            ConfigError: an adapter that is not one of the engine's.
        """
        for start in range(0, len(requests), PORTION):
            portion = requests[start : start + PORTION]
            outputs = self._llm.generate(
                [{"prompt_token_ids": request.prompt.tolist()} for request in portion],  # a `TokensPrompt`
                [self._params(request) for request in portion],
                use_tqdm=False,
                lora_request=[self._adapter(request) for request in portion] if self._adapters else None,
            )
            for at, (request, output) in enumerate(zip(portion, outputs, strict=True)):
                for completion in output.outputs:
                    yield self._completion(start + at, request, completion)
            done(len(portion))

    def greedy_replies(
        self,
        prompts: Sequence[TokenIds],
        *,
        max_new_tokens: int,
        adapter: str | None = None,
        done: Callable[[int], None] = lambda _: None,
    ) -> list[EndedReply]:
        """As `generate.replies.greedy_replies`: one reply for each prompt, in order, with what ended it."""
        requests = [Request(prompt, max_new_tokens, adapter=adapter) for prompt in prompts]
        return [EndedReply(reply.text, len(reply.ids), reply.ended_by) for reply in self.generate(requests, done)]

    def drawn_replies(
        self,
        prompts: Sequence[TokenIds],
        *,
        max_new_tokens: int,
        seed: int,
        adapter: str | None = None,
        done: Callable[[int], None] = lambda _: None,
    ) -> tuple[list[list[int]], bool]:
        """As `generate.replies.drawn_replies`: ids at temperature 1, always drawn; not the draws of our engine."""
        sampling = Sampling(temperature=1.0, seed=seed)
        requests = [Request(prompt, max_new_tokens, sampling, adapter=adapter) for prompt in prompts]
        return [list(reply.ids) for reply in self.generate(requests, done)], True

    def _adapter(self, request: Request) -> Any | None:
        if request.adapter == PEFT_BASE:
            return None
        name = next(iter(self._adapters)) if request.adapter is None else request.adapter
        if name not in self._adapters:
            raise ConfigError(
                "There is no such adapter",
                where=WHERE,
                found=name,
                expected=", ".join(self._adapters),
                fix="name one of these",
            )
        return self._adapters[name]

    def _params(self, request: Request) -> Any:
        from vllm import SamplingParams

        assert request.grammar is None, "only our engine is asked for grammars"
        sampling = request.sampling
        return SamplingParams(
            n=request.samples,
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            top_p=sampling.top_p,
            min_p=sampling.min_p,
            repetition_penalty=sampling.repetition_penalty,
            presence_penalty=sampling.presence_penalty,
            frequency_penalty=sampling.frequency_penalty,
            logit_bias=dict(sampling.logit_bias) or None,
            seed=None if sampling.is_greedy else sampling.seed,
            stop=list(request.stop_strings) or None,
            stop_token_ids=sorted(self._tokenizer.stop_ids),
            ignore_eos=True,  # these stop tokens end a reply, and no other
            max_tokens=request.max_new_tokens,
            logprobs=0 if request.logprobs else None,  # of the token that was taken alone
            skip_special_tokens=False,
        )

    def _completion(self, place: int, request: Request, output: Any) -> Completion:
        ids = [int(token) for token in output.token_ids]
        ended_by = _ended_by(output)
        if ids and ids[-1] in self._tokenizer.stop_ids:
            del ids[-1]
        text = self._tokenizer.decode(ids)
        if ended_by == "stop_string":
            text = text[: max(0, text.find(output.stop_reason))]
        logprobs = [float(step[token].logprob) for step, token in zip(output.logprobs or (), ids, strict=False)]
        kept = tuple(logprobs) if request.logprobs else ()
        return Completion(place, int(output.index), tuple(ids), text, ended_by, kept)


def _ended_by(output: Any) -> EndedBy:
    if output.finish_reason == "length":
        return "length"
    return "stop_string" if isinstance(output.stop_reason, str) else "stop_token"

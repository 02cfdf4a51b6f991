"""A package `vllm` of our own, with the public signatures that the real one has, which answers by a plain forward.

Written from the facts of vLLM's source, as read in 2026: `LLM(model, *, tokenizer, dtype, seed, trust_remote_code,
**EngineArgs)`; `LLM.generate(prompts, sampling_params, *, use_tqdm, lora_request)`; `SamplingParams`, with an error for
what it does not have; `LoRARequest(lora_name, lora_int_id, lora_path)` with ids from 1; `RequestOutput.outputs` of
`CompletionOutput(index, text, token_ids, logprobs, finish_reason, stop_reason)`. A stop token is the last of
`token_ids`, and `stop_reason` its id.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

ENGINE_ARGUMENTS = {
    "tokenizer", "dtype", "seed", "trust_remote_code", "generation_config", "max_model_len", "max_num_seqs",
    "enable_lora", "max_lora_rank", "max_loras", "gpu_memory_utilization", "tensor_parallel_size",
}  # fmt: skip
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


@dataclass
class SamplingParams:
    """Its fields that are used here, with their defaults."""

    n: int = 1
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] | None = None
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = 16
    logprobs: int | None = None
    detokenize: bool = True
    skip_special_tokens: bool = True


@dataclass
class LoRARequest:
    """An adapter."""

    lora_name: str
    lora_int_id: int
    lora_path: str = ""

    def __post_init__(self) -> None:
        if self.lora_int_id < 1:
            raise ValueError(f"id must be > 0, got {self.lora_int_id}")
        assert self.lora_path, "lora_path cannot be empty"


@dataclass
class Logprob:
    """Of one token."""

    logprob: float
    rank: int | None = None
    decoded_token: str | None = None


@dataclass
class CompletionOutput:
    """One reply."""

    index: int
    text: str
    token_ids: Sequence[int]
    cumulative_logprob: float | None
    logprobs: list[dict[int, Logprob]] | None
    finish_reason: str | None = None
    stop_reason: int | str | None = None


@dataclass
class RequestOutput:
    """The replies to one prompt."""

    request_id: str
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    finished: bool = True


@dataclass
class LLM:
    """Answers greedily, or draws with a generator of the request's seed; one prompt at a time."""

    model: str
    options: dict[str, Any] = field(default_factory=dict)
    made: list[LLM] = field(default_factory=list, repr=False)

    def __init__(self, model: str, **options: Any) -> None:
        assert not options.keys() - ENGINE_ARGUMENTS, options.keys() - ENGINE_ARGUMENTS
        assert options.get("max_lora_rank", 8) in RANKS
        assert Path(options["tokenizer"]).joinpath("tokenizer.json").is_file()
        self.options, self.asked = options, []
        dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[options["dtype"]]
        self._plain = AutoModelForCausalLM.from_pretrained(model, dtype=dtype).eval()
        self._adapted: dict[int, Any] = {}
        self._folder, self._dtype = model, dtype

    def generate(
        self,
        prompts: Any,
        sampling_params: Any = None,
        *,
        use_tqdm: bool = True,
        lora_request: Any = None,
    ) -> list[RequestOutput]:
        """A `RequestOutput` for each prompt, in order."""
        adapters = lora_request if isinstance(lora_request, list) else [lora_request] * len(prompts)
        assert len(prompts) == len(sampling_params) == len(adapters)
        assert self.options.get("enable_lora") or not any(adapters)
        self.asked.append((len(prompts), use_tqdm))
        found = []
        for place, (prompt, params, adapter) in enumerate(zip(prompts, sampling_params, adapters, strict=True)):
            ids = prompt["prompt_token_ids"]
            assert all(type(token) is int for token in ids)
            outputs = [self._answer(index, ids, params, adapter) for index in range(params.n)]
            found.append(RequestOutput(str(place), ids, outputs))
        return found

    def _model(self, adapter: LoRARequest | None) -> Any:
        if adapter is None:
            return self._plain
        if adapter.lora_int_id not in self._adapted:
            base = AutoModelForCausalLM.from_pretrained(self._folder, dtype=self._dtype)
            self._adapted[adapter.lora_int_id] = PeftModel.from_pretrained(base, adapter.lora_path).eval()
        return self._adapted[adapter.lora_int_id]

    def _answer(
        self, index: int, prompt: list[int], params: SamplingParams, adapter: LoRARequest | None
    ) -> CompletionOutput:
        from tokenizers import Tokenizer

        fast = Tokenizer.from_file(str(Path(self.options["tokenizer"]) / "tokenizer.json"))
        draw = torch.Generator().manual_seed((params.seed or 0) + index)
        ids: list[int] = []
        logprobs: list[dict[int, Logprob]] = []
        text, reason, stop = "", "length", None
        for _ in range(params.max_tokens or 0):
            with torch.no_grad():
                logits = self._model(adapter)(input_ids=torch.tensor([[*prompt, *ids]])).logits[0, -1].float()
            probabilities = (logits / (params.temperature or 1.0)).softmax(-1)
            token = int(torch.multinomial(probabilities, 1, generator=draw) if params.temperature else logits.argmax())
            ids.append(token)
            logprobs.append({token: Logprob(float(logits.log_softmax(-1)[token]))})
            if token in (params.stop_token_ids or ()):
                reason, stop = "stop", token
                break
            text = fast.decode(ids, skip_special_tokens=params.skip_special_tokens)
            if hit := next((one for one in params.stop or () if one in text), None):
                text, reason, stop = text[: text.find(hit)], "stop", hit
                break
        kept = None if params.logprobs is None else logprobs
        return CompletionOutput(index, text, tuple(ids), None, kept, reason, stop)


@pytest.fixture
def vllm_stand_in(monkeypatch: pytest.MonkeyPatch) -> list[LLM]:
    """The package under its name, and a GPU that torch says is there; returns the models that are made."""
    made: list[LLM] = []

    class Kept(LLM):
        def __init__(self, model: str, **options: Any) -> None:
            super().__init__(model, **options)
            made.append(self)

    package, lora, request = ModuleType("vllm"), ModuleType("vllm.lora"), ModuleType("vllm.lora.request")
    package.LLM, package.SamplingParams, request.LoRARequest = Kept, SamplingParams, LoRARequest  # type: ignore[attr-defined]  # modules of our own making
    package.__spec__ = __spec__
    for name, module in (("vllm", package), ("vllm.lora", lora), ("vllm.lora.request", request)):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("tutelage.generate.vllm_engine.has_gpu", lambda: True)
    return made

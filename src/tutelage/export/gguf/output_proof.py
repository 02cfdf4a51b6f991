"""What a written file says, beside the model it was written from: KL and greedy text on prompts."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch

from tutelage.errors import DataError
from tutelage.export.gguf.llama_cpp import Witness
from tutelage.model.load import no_progress_bars
from tutelage.types import Message

NEW_TOKENS = 24
MOST_CANDIDATES = 256
"""So many tokens of each distribution are compared singly; the others together, which makes KL a lower bound."""
FLOOR = 1e-9
LEAST = -80.0
"""Stands for the log-probability of what llama.cpp gives none at all."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a type of file may differ by; see `limits.toml`."""

    mean_kl: float
    tie: float
    flips: bool


@dataclass(frozen=True, slots=True)
class OutputProof:
    """llama.cpp with the file beside transformers with the folder, on the replies that llama.cpp gave.

    Attributes:
        prompts: how many were compared.
        positions: tokens of the replies, of each up to one that ends within a character.
        mean_kl: of the folder's distribution from the file's, in nats, over all positions.
        largest_kl: at one position.
        noise: the largest change of the difference of the two best log-probabilities.
        same_text: replies that both give, token for token.
        ties: positions where they choose otherwise, between tokens closer than the tie of this type.
        flips: positions where they choose otherwise beyond that.
        mean_kl_limit: what `mean_kl` may be.
        tie_limit: how close the two best are in a tie.
    """

    prompts: int
    positions: int
    mean_kl: float
    largest_kl: float
    noise: float
    same_text: int
    ties: int
    flips: int
    mean_kl_limit: float
    tie_limit: float


def limits_of(kind: str) -> Limits:
    """The limits of a type of file by its name."""
    table = tomllib.loads(files("tutelage.export.gguf").joinpath("limits.toml").read_text(encoding="utf-8"))
    return Limits(**table[kind])


def probe_messages() -> list[list[Message]]:
    """20 questions, for where the caller has no prompts of its own."""
    table = json.loads(files("tutelage.export.gguf").joinpath("probe_questions.json").read_text(encoding="utf-8"))
    return [[Message("user", question)] for question in table["questions"]]


def prove_output(
    witness: Witness, folder: Path, prompts: Sequence[Sequence[int]], *, kind: str, adapter: Path | None = None
) -> OutputProof:
    """Compare as `compare_output` does, and hold the limits of this type of file.

    Raises:
        DataError: the two differ beyond the limits.
    """
    proof = compare_output(witness, folder, prompts, kind=kind, adapter=adapter)
    _require_within(witness, proof, limits_of(kind), kind)
    return proof


def compare_output(
    witness: Witness, folder: Path, prompts: Sequence[Sequence[int]], *, kind: str, adapter: Path | None = None
) -> OutputProof:
    """Let llama.cpp reply to all prompts, and see what the model says along its replies.

    Args:
        witness: the file.
        folder: what it was written from.
        prompts: ids, not empty.
        kind: type of the file, which says how close a tie is.
        adapter: a PEFT folder that is put on the model.
    """
    limits = limits_of(kind)
    candidates = min(MOST_CANDIDATES, int(json.loads((folder / "config.json").read_text())["vocab_size"]))
    answers = witness.ask(
        [
            {
                "route": "/completion",
                "body": {"prompt": [int(token) for token in prompt],
                         "n_predict": NEW_TOKENS, "temperature": -1, "n_probs": candidates,
                         "return_tokens": True, "cache_prompt": False},
            }
            for prompt in prompts
        ]
    )  # fmt: skip
    model = _model(folder, adapter)
    counted = [_compared(model, prompt, answer, limits.tie) for prompt, answer in zip(prompts, answers, strict=True)]
    kls = [kl for reply in counted for kl in reply.kls]
    return OutputProof(
        prompts=len(prompts),
        positions=len(kls),
        mean_kl=sum(kls) / max(len(kls), 1),
        largest_kl=max(kls, default=0.0),
        noise=max((reply.noise for reply in counted), default=0.0),
        same_text=sum(not reply.ties and not reply.flips for reply in counted),
        ties=sum(reply.ties for reply in counted),
        flips=sum(reply.flips for reply in counted),
        mean_kl_limit=limits.mean_kl,
        tie_limit=limits.tie,
    )


@dataclass(frozen=True, slots=True)
class _Reply:
    kls: list[float]
    noise: float
    ties: int
    flips: int


def _model(folder: Path, adapter: Path | None) -> Any:
    from transformers import AutoModelForCausalLM

    with no_progress_bars():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
        if adapter is not None:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, adapter)
    return model.eval()


def _compared(model: Any, prompt: Sequence[int], answer: dict[str, Any], tie: float) -> _Reply:
    """One reply.

    Args:
        model: in fp32.
        prompt: ids.
        answer: of llama.cpp: the tokens it took, and the most likely ones at most of these places.
        tie: how close two tokens are that may change places.
    """
    chosen = [int(token) for token in answer["tokens"]]
    if not chosen:
        return _Reply([], 0.0, 0, 0)
    with torch.inference_mode():
        ids = torch.tensor([[*prompt, *chosen]])
        logits_TV = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
    trained_TV = torch.log_softmax(logits_TV.double(), dim=-1)
    kls, noise, ties, flips = [], 0.0, 0, 0
    # Of tokens that end within a character the server tells nothing, and what comes after could be any token's.
    for trained_V, token, step in zip(trained_TV, chosen, answer["completion_probabilities"], strict=False):
        if token != int(step["id"]):
            break
        served = {int(entry["id"]): max(float(entry["logprob"]), LEAST) for entry in step["top_logprobs"]}
        kls.append(_divergence(trained_V, served))
        first, second = trained_V.topk(2).indices.tolist()
        if first in served and second in served:
            noise = max(noise, abs(float(trained_V[first] - trained_V[second]) - (served[first] - served[second])))
        if token != first:
            close = float(trained_V[first] - trained_V[token]) <= tie
            ties, flips = ties + close, flips + (not close)
    return _Reply(kls, noise, ties, flips)


def _divergence(trained_V: torch.Tensor, served: dict[int, float]) -> float:
    """KL(trained || served) in nats over the tokens in `served` and all others as one."""
    places = torch.tensor(list(served))
    p, q = trained_V[places], torch.tensor(list(served.values()), dtype=torch.float64)
    kl = float((p.exp() * (p - q)).sum())
    p_rest, q_rest = max(1.0 - float(p.exp().sum()), FLOOR), max(1.0 - float(q.exp().sum()), FLOOR)
    rest = p_rest * float(torch.log(torch.tensor(p_rest / q_rest)))
    return max(kl + (rest if len(served) < len(trained_V) else 0.0), 0.0)


def _require_within(witness: Witness, proof: OutputProof, limits: Limits, kind: str) -> None:
    if proof.mean_kl > limits.mean_kl:
        raise DataError(
            "llama.cpp computes something else from the file than was trained",
            where=witness.model.name,
            found=f"a mean KL of {proof.mean_kl:.3g} nats over {proof.positions} tokens of {proof.prompts} prompts",
            expected=f"at most {limits.mean_kl:g} for {kind}",
            fix="try --type f32: where that fails too, serve the Hugging Face folder and report this model",
        )
    if proof.flips and not limits.flips:
        raise DataError(
            "llama.cpp chooses other words than the trained model where these are no ties",
            where=witness.model.name,
            found=f"{proof.flips} of {proof.positions} tokens",
            expected=f"none between tokens more than {limits.tie:g} nats apart for {kind}",
            fix="try --type f32: where that fails too, serve the Hugging Face folder and report this model",
        )

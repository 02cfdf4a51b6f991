"""What a base says before it is trained, kept to measure later how far the trained model has moved from it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from tutelage.evaluate.divergence import Divergence, ReplyStates, can_be_compared, divergence, reply_states
from tutelage.generate.replies import drawn_replies
from tutelage.generate.scoring import ROW_TOKENS, GivenText
from tutelage.model.architecture import Architecture
from tutelage.model.attention.packed import use_generation_attention
from tutelage.model.output_head import Head, head_of
from tutelage.render import Tokenizer
from tutelage.runs import folder as run_files
from tutelage.system.files import publish, scratch_path
from tutelage.types import TokenIds

MOST_TOKENS = 128
"""Of a reply: models part ways in its first tokens already, and a reasoning model would speak for minutes."""

Done = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class BaseReplies:
    """Replies drawn from a base at temperature 1, and its states at their tokens.

    Attributes:
        replies: each after its prompt, without the stop token.
        places: of each reply the set that its prompt is of, such as `task`.
        states: of all of them.
        noise: by place, nats a token of the base and itself, computed in rows of another length.
        drawn: False: they are the base's likeliest replies, as nothing can be drawn from this kind of model here.
    """

    replies: tuple[GivenText, ...]
    places: tuple[str, ...]
    states: ReplyStates
    noise: Mapping[str, float]
    drawn: bool


def ask_base(
    model: Any,
    tokenizer: Tokenizer,
    prompts: Mapping[str, Sequence[TokenIds]],
    architecture: Architecture,
    *,
    max_new_tokens: int,
    batch_prompts: int,
    seed: int,
    done: Done = lambda _: None,
) -> BaseReplies | None:
    """Replies of a base that is about to be trained; the model attends as it trains from here on.

    Args:
        model: with or without PEFT around it, what is to be trained marked so.
        tokenizer: its stop tokens end a reply.
        prompts: served ones, by place.
        architecture: what was tried on the model.
        max_new_tokens: where a reply is cut; at most `MOST_TOKENS` are taken.
        batch_prompts: replies that grow together.
        seed: of what is drawn.
        done: called with the number of replies finished since the last call.

    Returns:
        None where the trained model could not be compared, or all replies are empty.

    Raises:
        RuntimeError, MemoryError: memory runs out (`model.out_of_memory`).
    """
    head_is_trained = any(parameter.requires_grad for parameter in model.get_output_embeddings().parameters())
    if not can_be_compared(architecture, head_is_trained=head_is_trained):
        return None
    asked = [(place, prompt) for place, place_prompts in prompts.items() for prompt in place_prompts]
    use_generation_attention(model)
    ids, drawn = drawn_replies(
        model,
        tokenizer,
        [prompt for _, prompt in asked],
        max_new_tokens=min(max_new_tokens, MOST_TOKENS),
        batch_prompts=batch_prompts,
        seed=seed,
        done=done,
    )
    spoken = [
        (place, GivenText(prompt, np.asarray(reply, dtype=np.int32)))
        for (place, prompt), reply in zip(asked, ids, strict=True)
        if reply
    ]
    if not spoken:
        return None
    places, replies = tuple(place for place, _ in spoken), tuple(reply for _, reply in spoken)
    states = reply_states(model, replies, architecture, keeps_head=head_is_trained)
    again = divergence(model, replies, states, architecture, row_tokens=ROW_TOKENS // 2)
    noise = {place: part.mean for place, part in _by_place(again, places, {}).items()}
    return BaseReplies(replies, places, states, noise, drawn)


def moved(
    model: Any, base: BaseReplies, architecture: Architecture, *, done: Done = lambda _: None
) -> dict[str, Divergence]:
    """KL(base || model) by place; the model attends as it trains from here on.

    Args:
        model: what was trained.
        base: what it was before.
        architecture: what was tried on the model.
        done: called with the number of replies finished since the last call.

    Raises:
        RuntimeError, MemoryError: memory runs out (`model.out_of_memory`).
    """
    measured = divergence(model, base.replies, base.states, architecture, done=done)
    return _by_place(measured, base.places, base.noise)


def _by_place(measured: Divergence, places: Sequence[str], noise: Mapping[str, float]) -> dict[str, Divergence]:
    by_place: dict[str, Divergence] = {}
    for place in dict.fromkeys(places):
        chosen = [number for number, other in enumerate(places) if other == place]
        by_place[place] = Divergence(
            tuple(measured.sums[number] for number in chosen),
            tuple(measured.tokens[number] for number in chosen),
            noise.get(place),
        )
    return by_place


def save_base_replies(path: Path, base: BaseReplies) -> None:
    """Write them aside and rename the file.

    Raises:
        SaveError: the disk is full or refuses.
    """
    tensors = {"hidden": base.states.hidden_ND.contiguous()}
    for name in ("prompt", "text"):
        ids = [getattr(reply, name) for reply in base.replies]
        tensors[f"{name}_ids"] = torch.from_numpy(np.concatenate(ids).astype(np.int32))
        tensors[f"{name}_lengths"] = torch.tensor([len(part) for part in ids])
    facts: dict[str, Any] = {"places": base.places, "noise": dict(base.noise), "drawn": base.drawn}
    if (head := base.states.head) is not None:
        facts |= {"scale": head.scale, "cap": head.cap}
        tensors["head_weight"] = head.weight_VD.contiguous().cpu()
        if head.bias_V is not None:
            tensors["head_bias"] = head.bias_V.contiguous().cpu()
    scratch = scratch_path(path)
    try:
        save_file(tensors, scratch, {"base": json.dumps(facts)})
        publish(scratch, path)
    except (OSError, SafetensorError) as error:
        scratch.unlink(missing_ok=True)
        raise run_files.save_error("What the base said could not be written", path, error) from error


def read_base_replies(path: Path, model: Any) -> BaseReplies | None:
    """What `save_base_replies` wrote, its head on the device of the model's; None where there is nothing of use.

    Args:
        path: of the file.
        model: that was trained.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 not a mapping
            facts = json.loads((file.metadata() or {})["base"])
        prompts, texts = (
            torch.split(tensors[f"{name}_ids"], tensors[f"{name}_lengths"].tolist()) for name in ("prompt", "text")
        )
        replies = tuple(GivenText(prompt.numpy(), text.numpy()) for prompt, text in zip(prompts, texts, strict=True))
        head = None
        if "head_weight" in tensors:
            device = head_of(model).weight_VD.device
            bias_V = tensors.get("head_bias")
            bias_V = None if bias_V is None else bias_V.to(device)
            head = Head(tensors["head_weight"].to(device), bias_V, facts["scale"], facts["cap"])
        states = ReplyStates(tensors["hidden"], head)
        return BaseReplies(replies, tuple(facts["places"]), states, facts["noise"], facts["drawn"])
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):  # none, damaged, or of another version
        return None

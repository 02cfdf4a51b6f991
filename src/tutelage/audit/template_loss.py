"""How well a model predicts its template's control tokens: one that never saw them cannot. Needs torch."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import torch

from tutelage.render import Renderer
from tutelage.types import Finding, Message

PROBE_CONVERSATION = (
    Message("user", "What is the capital of France?"),
    Message("assistant", "The capital of France is Paris."),
    Message("user", "How many legs does a spider have?"),
    Message("assistant", "A spider has eight legs."),
    Message("user", "Name a fruit that is yellow."),
)
"""Plain questions with short replies: their ends are easy to see, and nothing in them is news to a language model."""

STRANGE_NATS = 5.0
"""Mean loss on control tokens from which the model cannot have seen them there. Measured on SmolLM2-135M-Instruct: see
docs/findings.md."""


@dataclass(frozen=True, slots=True)
class TemplateLoss:
    """Loss in nats per token over one plain conversation, the first token left out.

    Attributes:
        control: mean loss of each control token, by its text.
        control_mean: mean over all control tokens.
        text_mean: mean over all other tokens.
    """

    control: dict[str, float]
    control_mean: float
    text_mean: float


def template_loss(model: Any, renderer: Renderer) -> TemplateLoss | None:
    """Feed the model a plain conversation as it is served; None where the template writes no control tokens.

    Args:
        model: a causal language model of the transformers library.
        renderer: the run's template and tokenizer.

    Raises:
        TemplateRefusal: the template does not accept plain turns.
    """
    ids = torch.from_numpy(renderer.serve(PROBE_CONVERSATION)).long().to(next(model.parameters()).device)
    with torch.inference_mode():
        logits_SV = model(input_ids=ids[None]).logits[0, :-1].float()
    losses = torch.nn.functional.cross_entropy(logits_SV, ids[1:], reduction="none").tolist()
    names = {index: token for token, index in renderer.tokenizer.special_tokens.items()}
    control: dict[str, list[float]] = defaultdict(list)
    text: list[float] = []
    for index, loss in zip(ids[1:].tolist(), losses, strict=True):
        (control[names[index]] if index in names else text).append(loss)
    if not control or not text:
        return None
    control_losses = [loss for token_losses in control.values() for loss in token_losses]
    means = {token: sum(token_losses) / len(token_losses) for token, token_losses in control.items()}
    return TemplateLoss(means, sum(control_losses) / len(control_losses), sum(text) / len(text))


def loss_finding(measured: TemplateLoss) -> Finding:
    """What the measurement says about template and model."""
    each = ", ".join(f"{token} {loss:.2f}" for token, loss in measured.control.items())
    evidence = f"nats per token: control tokens {measured.control_mean:.2f} ({each}), text {measured.text_mean:.2f}"
    if measured.control_mean >= STRANGE_NATS:
        return Finding(
            "control_tokens_unexpected",
            "error",
            "The model does not expect this template's control tokens where the template writes them: it was not "
            "trained on this template, and must learn all of it from your data.",
            evidence,
            "name the template that the model was made with, or train enough rows and more than an adapter",
        )
    return Finding(
        "control_tokens_expected",
        "info",
        "The model expects this template's control tokens where the template writes them.",
        evidence,
    )

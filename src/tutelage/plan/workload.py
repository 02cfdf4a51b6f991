"""What one training step does to a model: the method, the precision, and the fullest packed row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

Method = Literal["full", "lora", "qlora", "prompt"]
METHODS: tuple[Method, ...] = ("full", "lora", "qlora", "prompt")
Precision = Literal["fp32", "bf16"]
COMPUTE_BYTES = {"fp32": 4, "bf16": 2}


@dataclass(frozen=True, slots=True)
class Workload:
    """What is trained and on how much at once.

    Attributes:
        method: how.
        precision: what the model computes in.
        document_tokens: lengths of the documents in the fullest row.
        trained_tokens: tokens of that row whose loss counts.
        optimizer: a value of `train.optimizer`.
        checkpointing: recompute each layer's activations in the backward pass.
        lora_rank: inner width of an adapter.
        lora_targets: "all-linear", or names of layers.
        dora: learn the length of each output's weights apart.
        double_quantization: of QLoRA: the scales of 4-bit weights are quantized themselves.
        frozen: patterns of parameters that full fine-tuning leaves as they are.
        averaged: keep a moving average of what is trained.
        pulled_to_base: keep the start of what full fine-tuning trains; an adapter needs none.
        held_to_base: logits of the base are computed beside those of the model, for rows that are replayed.
        kept_tokens: of full fine-tuning, tokens whose hidden states of the base are kept for that.
        virtual_tokens: of prompt tuning, in front of each document.
        parents: for each document the one that it continues, as in `types.PackedSequence`; empty for none.
    """

    method: Method
    precision: Precision
    document_tokens: tuple[int, ...]
    trained_tokens: int
    optimizer: str = "adamw"
    checkpointing: bool = False
    lora_rank: int = 16
    lora_targets: str | tuple[str, ...] = "all-linear"
    dora: bool = False
    double_quantization: bool = True
    frozen: tuple[str, ...] = ()
    averaged: bool = False
    pulled_to_base: bool = False
    held_to_base: bool = False
    kept_tokens: int = 0
    virtual_tokens: int = 20
    parents: tuple[int, ...] = ()

    @property
    def row_tokens(self) -> int:
        """Tokens of the fullest row."""
        return sum(self.document_tokens)

    def with_row(self, row_tokens: int) -> Workload:
        """The same on rows of another budget, with documents in the same proportions."""
        ratio = row_tokens / self.row_tokens
        longest = min(max(self.document_tokens), row_tokens)
        return replace(
            self,
            document_tokens=document_lengths(row_tokens, longest),
            parents=(),
            trained_tokens=max(1, round(self.trained_tokens * ratio)),
        )


def document_lengths(row_tokens: int, document_tokens: int) -> tuple[int, ...]:
    """A full row of equal documents, the last one shorter where they do not divide it."""
    full_documents, remainder = divmod(row_tokens, min(document_tokens, row_tokens))
    return (min(document_tokens, row_tokens),) * full_documents + ((remainder,) if remainder else ())


def single_document(
    method: Method, precision: Precision, tokens: int, *, lora_targets: str | Sequence[str] = "all-linear"
) -> Workload:
    """A row that is one document, every token but the first trained: the most a row of that length can need."""
    targets = lora_targets if isinstance(lora_targets, str) else tuple(lora_targets)
    return Workload(method, precision, (tokens,), tokens - 1, lora_targets=targets)

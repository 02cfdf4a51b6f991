"""Prompt tuning: embeddings of a few virtual tokens in front of every document are all that learns.

Lester et al. 2021, section 2. The embeddings live in PEFT's own module, and are saved in its format.

Shape legend: R = tokens of a packed row, D = hidden width, P = virtual tokens,
N = trained positions, S = stretches of a row, B = prompts of a batch, W = width of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

import torch

from tutelage.errors import ConfigError
from tutelage.model.adapters.trainable import Trainable, trainable_summary


def add_prompt(model: Any, *, tokens: int, text_ids: Sequence[int] | None = None) -> tuple[Any, Trainable]:
    """Freeze the model and put `tokens` virtual ones in front of what it reads.

    Args:
        model: a transformers causal language model.
        tokens: virtual tokens in front of each document.
        text_ids: they start as these tokens, repeated or cut to `tokens` (Lester et al. 2021, section 3.2); None draws
            tokens from the vocabulary.

    Raises:
        ConfigError: `text_ids` is empty.
    """
    from peft import PromptTuningConfig, get_peft_model

    if text_ids is not None and not text_ids:
        raise ConfigError(
            "The text of the prompt has no tokens", where="prompt.text", fix="write a sentence, or leave it out"
        )
    # PEFT would start from a text too, but writes this machine's path to the tokenizer into what it saves.
    config = PromptTuningConfig(
        num_virtual_tokens=tokens,
        prompt_tuning_init="SAMPLE_VOCAB" if text_ids is None else "RANDOM",
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(model, config)
    if text_ids is not None:
        ids_P = torch.tensor(list(islice(cycle(text_ids), tokens)), device=model.device)
        with torch.no_grad():
            adapted.prompt_encoder["default"].embedding.weight.copy_(model.get_input_embeddings()(ids_P))
    return adapted, trainable_summary(adapted, "prompt")


def has_prompt(model: Any) -> bool:
    """Whether virtual tokens belong in front of what `model` reads."""
    from peft import PeftModel

    return (
        isinstance(model, PeftModel)
        and model.active_peft_config.is_prompt_learning
        and bool(model.has_active_enabled_adapter)
    )


def virtual_tokens(model: Any) -> int:
    """How many stand in front of what `model` reads."""
    return int(model.active_peft_config.num_virtual_tokens) if has_prompt(model) else 0


def behind_virtual_tokens(model: Any, ids_1R: torch.Tensor) -> torch.Tensor:
    """[1, P + R, D]: the embeddings of the virtual tokens, and behind them those of ids.

    Args:
        model: has virtual tokens.
        ids_1R: whole numbers; R may be 0.
    """
    embedded_1RD = model.get_input_embeddings()(ids_1R)
    prompt_1PD = model.get_prompt(batch_size=1).to(embedded_1RD.dtype)
    return torch.cat([prompt_1PD, embedded_1RD], dim=1)


def without_prompt(model: Any) -> Any:
    """The model as it was before `add_prompt`; any other model itself."""
    return model.get_base_model() if has_prompt(model) else model


@dataclass(frozen=True, slots=True)
class DecoderInputs:
    """What the decoder is given for a row, and how far each of the row's tokens moved for it.

    Attributes:
        inputs: the decoder's named arguments, documents and positions included.
        moved_R: virtual tokens before each token; None where there are none.
    """

    inputs: dict[str, Any]
    moved_R: torch.Tensor | None

    def places(self, positions_N: torch.Tensor) -> torch.Tensor:
        """Where tokens of the row lie in what the decoder reads."""
        return positions_N if self.moved_R is None else positions_N + self.moved_R[positions_N]


def decoder_inputs(
    model: Any,
    ids_R: torch.Tensor,
    positions_R: torch.Tensor,
    document_tokens: tuple[int, ...],
    parents: tuple[int, ...] = (),
) -> DecoderInputs:
    """The row as the decoder reads it: with the virtual tokens, if any, in front of each of its documents.

    A stretch that continues another (`types.PackedSequence.parents`) has them in front of that one.
    """
    inputs: dict[str, Any] = {"document_tokens": document_tokens, "parents": parents}
    if not has_prompt(model):
        return DecoderInputs(inputs | {"input_ids": ids_R[None], "position_ids": positions_R[None]}, None)
    embedded_RD = model.get_input_embeddings()(ids_R)
    prompt_PD = model.get_prompt(batch_size=1)[0].to(embedded_RD.dtype)
    first_P = torch.arange(len(prompt_PD), device=ids_R.device)
    document_starts = [parent < 0 for parent in parents] or [True] * len(document_tokens)
    embeds, positions, moved = [], [], []
    for starts, embedded, token_positions in zip(
        document_starts, embedded_RD.split(document_tokens), positions_R.split(document_tokens), strict=True
    ):
        embeds += [prompt_PD, embedded] if starts else [embedded]
        positions += [first_P, token_positions + len(first_P)] if starts else [token_positions + len(first_P)]
        moved.append(starts * len(first_P))
    inputs |= {
        "inputs_embeds": torch.cat(embeds)[None],
        "position_ids": torch.cat(positions)[None],
        "document_tokens": tuple(
            tokens + virtual_tokens for tokens, virtual_tokens in zip(document_tokens, moved, strict=True)
        ),
    }
    moved_S, lengths_S = torch.tensor([moved, document_tokens], device=ids_R.device)
    return DecoderInputs(inputs, moved_S.cumsum(0).repeat_interleave(lengths_S, output_size=len(ids_R)))


def generation_inputs(model: Any, ids_BW: torch.Tensor, mask_BW: torch.Tensor) -> dict[str, torch.Tensor]:
    """Arguments for `generate`: prompts padded on the left, with the virtual tokens, if any, right before each.

    PEFT's own generate puts them left of the padding, and leaves the gap in the positions: a reply would depend on what
    else is in its batch.
    """
    if not has_prompt(model):
        return {"input_ids": ids_BW, "attention_mask": mask_BW}
    embedded_BWD = model.get_input_embeddings()(ids_BW)
    prompt_PD = model.get_prompt(batch_size=1)[0].to(embedded_BWD.dtype)
    padding = (mask_BW.shape[1] - mask_BW.sum(dim=1)).tolist()
    rows = [
        torch.cat([embedded[:gap], prompt_PD, embedded[gap:]])
        for embedded, gap in zip(embedded_BWD, padding, strict=True)
    ]
    prompt_mask_BP = mask_BW.new_ones(len(mask_BW), len(prompt_PD))
    return {"inputs_embeds": torch.stack(rows), "attention_mask": torch.cat([mask_BW, prompt_mask_BP], dim=1)}

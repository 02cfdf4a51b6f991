"""NEFTune: uniform noise on the embeddings of a document, in training only.

Source: Jain et al. 2023 (NEFTune), algorithm 1.

Shape legend: R = tokens of a packed row, D = hidden width.
"""

from __future__ import annotations

from typing import Any

import torch

from tutelage.model.layers import decoder_of


def add_embedding_noise(model: Any, *, alpha: float) -> None:
    """Have the decoder add noise, uniform within alpha / sqrt(L D), to embeddings while the model trains.

    L is the length of the document that a token belongs to: in a packed row, no document's noise depends on its
    neighbors.

    Args:
        model: a causal language model whose decoder is called with `input_ids` or `inputs_embeds`, and
            `document_tokens`, as `model.loss.row_loss` does.
        alpha: strength of the noise.
    """
    embed = model.get_input_embeddings()

    def hook(decoder: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not decoder.training:
            return None
        assert not kwargs.get("parents"), "documents that share a beginning would share its noise"
        inputs = dict(kwargs)
        embedded_1RD = inputs.pop("inputs_embeds", None)  # virtual tokens are embeddings already
        if embedded_1RD is None:
            embedded_1RD = embed(inputs.pop("input_ids"))
        width = embedded_1RD.shape[-1]
        lengths = torch.tensor(inputs["document_tokens"])
        bound_R = (alpha / (lengths * width).sqrt()).repeat_interleave(lengths).to(embedded_1RD.device)
        noise_1RD = torch.empty_like(embedded_1RD, dtype=torch.float32).uniform_(-1.0, 1.0) * bound_R[:, None]
        inputs["inputs_embeds"] = embedded_1RD + noise_1RD.to(embedded_1RD.dtype)
        return args, inputs

    decoder_of(model).register_forward_pre_hook(hook, with_kwargs=True)

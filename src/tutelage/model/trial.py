"""One small row through a model as it will train, forward and back, before anything is learned or measured."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tutelage.errors import ConfigError, cause_of
from tutelage.model.architecture import Architecture, bare_model
from tutelage.model.loss import row_loss
from tutelage.model.out_of_memory import is_out_of_memory
from tutelage.model.refusals import REFUSALS
from tutelage.types import PackedSequence

DOCUMENT_TOKENS = (5, 7)


def require_trainable(model: Any, architecture: Architecture) -> None:
    """Take a row forward and back, twice; no gradient is kept, and no random number used up.

    Args:
        model: ready to train, adapters, virtual tokens and lean layers included.
        architecture: what was tried on it.

    Raises:
        ConfigError: its code refuses.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    smallest = min(trainable, key=torch.Tensor.numel)
    devices = [torch.cuda.current_device()] if smallest.is_cuda else []
    trained = model.training
    model.train()
    try:
        with torch.random.fork_rng(devices=devices):
            for _ in range(2):  # some models keep a state, which the next row would reach back through
                loss, _ = row_loss(model, _row(model, architecture), architecture=architecture)
                torch.autograd.grad(loss, smallest, allow_unused=True)
    except REFUSALS as error:
        if is_out_of_memory(error):
            raise
        base_model = bare_model(model)
        raise ConfigError(
            f"The model does not train as it is: {cause_of(error)[:200]}",
            where=f"{type(base_model).__name__} (model_type {base_model.config.get_text_config().model_type})",
            expected="a loss for a row of ids, and its gradient",
            fix="leave out what was added to it (model.compile, train.activation_checkpointing, another model.method), "
            "or give another model",
        ) from error
    finally:
        model.train(trained)


def _row(model: Any, architecture: Architecture) -> PackedSequence:
    lengths = DOCUMENT_TOKENS if architecture.documents_isolated else DOCUMENT_TOKENS[-1:]
    positions = np.concatenate([np.arange(length, dtype=np.int32) for length in lengths])
    vocabulary = len(model.get_input_embeddings().weight)
    ids = ((1 + np.arange(len(positions))) % vocabulary).astype(np.int32)
    return PackedSequence(ids, (positions > 0).astype(np.float32), positions, lengths, ())

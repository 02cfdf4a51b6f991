"""Checkpoint files of a sharded run: each process writes what it keeps, any number of processes reads it again.

PyTorch's distributed checkpoints, in the form whose files are safetensors. A reader meets plain safetensors of a single
process and shards of several in the same way, so both kinds of run go on from either.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from tutelage.model.ranks import Ranks


def write_shards(folder: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write this process's part of `tensors` into `folder`; all processes do this together.

    Raises:
        CheckpointException: of torch.distributed.checkpoint, on every process, when one of them could not write.
    """
    save(dict(tensors), storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))


def read_shards(folder: Path, masters: Mapping[str, torch.Tensor], ranks: Ranks) -> dict[str, torch.Tensor]:
    """Read tensors from all safetensors files in `folder`; all processes do this together.

    Args:
        folder: of a checkpoint.
        masters: a tensor of the name and shape of a master, or a moment of one (`exp_avg:NAME`), is sharded as it is.
        ranks: the processes that read.
    """
    found = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    into: dict[str, torch.Tensor] = {}
    for name, stored in found.items():
        assert isinstance(stored, TensorStorageMetadata), f"{name} is not a tensor"
        master, dtype = masters.get(name.split(":", 1)[-1]), stored.properties.dtype
        if master is not None and master.shape == stored.size:
            into[name] = torch.empty_like(master, dtype=dtype, requires_grad=False)
        else:
            into[name] = torch.empty(stored.size, dtype=dtype)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # a single process may read alone
        load(into, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=ranks.size == 1)
    return into

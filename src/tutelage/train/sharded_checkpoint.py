"""Checkpoint files of a sharded run: each process writes what it keeps, any number of processes reads it again.

PyTorch's distributed checkpoints, in the form whose files are safetensors. A reader meets plain safetensors of a single
process and shards of several in the same way, so both kinds of run go on from either.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.distributed
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from tutelage.distributed.process_group import ProcessGroup
from tutelage.system.files import sync
from tutelage.system.seals import file_sha256


def write_shards(folder: Path, tensors: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Write this process's part of `tensors` into `folder`; all processes do this together.

    Returns:
        the file that this process wrote and its SHA-256, where it had something to write.

    Raises:
        OSError: on every process, when one of them could not write.
    """
    local_tensors = dict(tensors)
    try:
        save(local_tensors, storage_writer=HuggingFaceStorageWriter(str(folder), save_distributed=True))
    except CheckpointException as error:
        first, _ = next(iter(error.failures.values()))
        raise OSError(str(first).strip().split("\n")[0]) from error
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    names = sorted(path.name for path in folder.iterdir())[rank::size]
    return {name: sha256_and_sync(folder / name) for name in names}


def sha256_and_sync(path: Path) -> str:
    """The hash of a file's bytes, which are on the disk when this returns."""
    digest = file_sha256(path)
    sync(path)
    return digest


def with_rank(state: Mapping[str, torch.Tensor], process_group: ProcessGroup) -> dict[str, torch.Tensor]:
    """Append the rank to the names of tensors that differ between processes; alone, the names stay."""
    return {
        f"{name}:{process_group.rank}" if process_group.size > 1 else name: tensor for name, tensor in state.items()
    }


def of_rank(state: Mapping[str, torch.Tensor], process_group: ProcessGroup) -> dict[str, torch.Tensor]:
    """This process's part of what all `with_rank` gave; with more processes than saved it, some get the same."""
    saved: dict[str, dict[int, torch.Tensor]] = {}
    for name, tensor in state.items():
        name_match = re.fullmatch(r"(.+?)(?::(\d+))?", name)
        assert name_match is not None, "every name matches"
        saved.setdefault(name_match[1], {})[int(name_match[2] or 0)] = tensor
    return {name: by_rank[process_group.rank % len(by_rank)] for name, by_rank in saved.items()}


def read_shards(
    folder: Path, masters: Mapping[str, torch.Tensor], process_group: ProcessGroup
) -> dict[str, torch.Tensor]:
    """Read tensors from all safetensors files in `folder`; all processes do this together.

    Args:
        folder: of a checkpoint.
        masters: a tensor of the name and shape of a master, or a moment of one (`exp_avg:NAME`), is sharded as it is.
        process_group: the processes that read.
    """
    metadata = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor_metadata in metadata.items():
        assert isinstance(tensor_metadata, TensorStorageMetadata), f"{name} is not a tensor"
        master, dtype = masters.get(name.split(":", 1)[-1]), tensor_metadata.properties.dtype
        if master is not None and master.shape == tensor_metadata.size:
            tensors[name] = torch.empty_like(master, dtype=dtype, requires_grad=False)
        else:
            tensors[name] = torch.empty(tensor_metadata.size, dtype=dtype)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # a single process may read alone
        load(tensors, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=process_group.size == 1)
    return tensors

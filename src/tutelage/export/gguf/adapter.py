"""A PEFT folder with a LoRA adapter as one GGUF file, for `llama-server --lora` and Ollama's ADAPTER."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFType, GGUFWriter, Keys
from numpy.typing import NDArray

from tutelage.errors import ConfigError, command
from tutelage.export.gguf.export import Log, export_gguf, probe_prompts
from tutelage.export.gguf.family import Family, family_of
from tutelage.export.gguf.file_types import FileType, file_type, fitting
from tutelage.export.gguf.gguf_file import WrittenTensor, new_gguf, write_gguf
from tutelage.export.gguf.llama_cpp import Witness, is_available
from tutelage.export.gguf.output_proof import OutputProof, prove_output
from tutelage.export.gguf.stored_tensors import StoredTensors
from tutelage.export.gguf.tensors import HEAD, Tensor, is_tied, name_map, row_transform
from tutelage.render.tokenizer import read_object

PREFIX = "base_model.model."
PAIR = re.compile(r"(?P<module>.+)\.lora_(?P<matrix>[AB])\.weight")
MERGE = "merge it instead: " + command("export", "RUN", "--to", "gguf", "-o", "MODEL.gguf")
REFUSED_SETTINGS = {
    "use_dora": "a DoRA adapter, whose magnitudes llama.cpp does not compute",
    "modules_to_save": "whole modules beside the adapter",
    "trainable_token_indices": "trained rows of the embedding",
    "target_parameters": "an adapter on parameters that are no layers",
    "lora_bias": "biases of the adapter",
    "layer_replication": "layers that the base does not have",
    "alora_invocation_tokens": "an adapter that begins in the middle of a prompt",
}
"""Settings of PEFT that, when set, no file of llama.cpp can hold. Sources: llama.cpp#11554, #9114, and
src/llama-adapter.cpp."""


@dataclass(frozen=True, slots=True)
class AdapterExport:
    """What was written: the file, its tensors, what was not compared, and what was."""

    path: Path
    kind: FileType
    tensors: tuple[WrittenTensor, ...]
    notes: tuple[str, ...]
    output: OutputProof | None


def export_gguf_adapter(
    adapter: Path,
    base: Path,
    path: Path,
    *,
    kind: str = "f32",
    name: str | None = None,
    prompts: Sequence[Sequence[int]] | None = None,
    prove: bool = True,
    threads: int = 1,
    log: Log = print,
) -> AdapterExport:
    """Write `path` from a PEFT folder, and compare base with adapter in llama.cpp where it is installed.

    Args:
        adapter: adapter_config.json and adapter_model.safetensors.
        base: the folder of the model it belongs to.
        path: the file to be; there is none yet. Where anything fails, there is none afterwards.
        kind: f32, f16 or bf16.
        name: for people; the folder's name if None.
        prompts: ids of served prompts to compare on; 20 questions if None.
        prove: compare. This writes the base once, in fp32, into a temporary folder.
        threads: how many llama.cpp computes with.
        log: told of each long step.

    Raises:
        ConfigError: the adapter holds what such a file cannot, or `path` is taken.
        DataError: llama.cpp computes something else.
        SaveError: the disk is full or refuses.
    """
    file_kind = file_type(kind)
    if file_kind.name not in ("f32", "f16", "bf16"):
        raise ConfigError(
            f"An adapter is not written as {file_kind.name}", expected="f32, f16 or bf16", fix="--type f16"
        )
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(base)
    family = family_of(config, str(base))
    settings = read_object(adapter / "adapter_config.json")
    _require_plain(settings, adapter)
    tensors = adapter_tensors(adapter, settings, config, family)
    kinds = [fitting(file_kind.matrices, tensor.shape[-1]) for tensor in tensors]
    notes, output = [], None
    with new_gguf(path) as scratch:
        log(f"writing {path.name}: {len(tensors)} tensors as {file_kind.name}")
        describe = partial(_describe, settings, name or adapter.name)
        written = write_gguf(scratch, family.architecture, tensors, kinds, describe)
        if not prove or not is_available():
            notes.append(
                "nothing was compared: llama.cpp is not installed (pip install 'tutelage[gguf]'), or not asked"
            )
        else:
            log("comparing base and adapter with the run in llama.cpp")
            output = _proven(scratch, adapter, base, prompts, threads)
    return AdapterExport(path, file_kind, tuple(written), tuple(notes), output)


def adapter_tensors(adapter: Path, settings: Mapping[str, Any], config: Any, family: Family) -> list[Tensor]:
    """Both matrices of each layer, the first with r rows, the second with those of the layer.

    Raises:
        ConfigError: one belongs to a layer that the file of the base does not have.
    """
    stored = StoredTensors.of_files([adapter / "adapter_model.safetensors"])
    names = name_map(family, config.num_hidden_layers)
    tensors = []
    for source, shape in stored.shapes.items():
        match = PAIR.fullmatch(source.removeprefix(PREFIX))
        layer = f"{match['module']}.weight" if match else source
        name = names.get_name(layer, try_suffixes=(".weight",)) if match else None
        if match is None or name is None or (layer == HEAD and (is_tied(config) or family.tied_only)):
            raise ConfigError(
                "The adapter holds what llama.cpp has no place for",
                where=f"{adapter}: {source}",
                found="a layer that the base shares with its embedding" if layer == HEAD else f"shape {list(shape)}",
                expected="LoRA pairs on the projections of attention and feed-forward",
                fix=MERGE,
            )
        is_second = match["matrix"] == "B"
        transform = row_transform(layer, config, family) if is_second else None
        factor = _scale_beyond_alpha(settings, match["module"], shape[1]) if is_second else 1.0
        load = partial(_matrix, stored, source, transform, factor)
        tensors.append(Tensor(f"{name}.lora_{match['matrix'].lower()}", source, shape, load))
    return tensors


def _matrix(
    stored: StoredTensors, source: str, transform: Callable[[torch.Tensor], torch.Tensor] | None, factor: float
) -> NDArray[np.float32]:
    tensor = stored.load(source)
    if transform is not None:
        tensor = transform(tensor)
    return (tensor * factor).contiguous().numpy()


def _scale_beyond_alpha(settings: Mapping[str, Any], module: str, rank: int) -> float:
    """llama.cpp scales by the file's one alpha over the rank; what PEFT scales by beyond it goes into the matrix."""
    alpha = float(settings["lora_alpha"])
    own = next(
        (
            float(value)
            for pattern, value in (settings.get("alpha_pattern") or {}).items()
            if re.fullmatch(rf"(.*\.)?({pattern})", module)
        ),
        alpha,
    )
    scale = own / math.sqrt(rank) if settings.get("use_rslora") else own / rank
    return scale * rank / alpha


def _require_plain(settings: Mapping[str, Any], adapter: Path) -> None:
    problems = [what for setting, what in REFUSED_SETTINGS.items() if settings.get(setting)]
    if settings.get("peft_type") != "LORA":
        problems.insert(0, f"an adapter of kind {settings.get('peft_type')}")
    if settings.get("bias", "none") != "none":
        problems.append(f"trained biases (bias = {settings['bias']!r})")
    if problems:
        raise ConfigError(
            "This adapter cannot be written as GGUF",
            where=str(adapter / "adapter_config.json"),
            found="; ".join(problems),
            expected="LoRA pairs and nothing else",
            fix=MERGE,
        )


def _describe(settings: Mapping[str, Any], name: str, writer: GGUFWriter) -> None:
    writer.add_type(GGUFType.ADAPTER)
    writer.add_string(Keys.Adapter.TYPE, "lora")
    writer.add_float32(Keys.Adapter.LORA_ALPHA, float(settings["lora_alpha"]))
    writer.add_name(name)
    writer.add_quantization_version(2)


def _proven(
    path: Path, adapter: Path, base: Path, prompts: Sequence[Sequence[int]] | None, threads: int
) -> OutputProof:
    asked = probe_prompts(base) if prompts is None else prompts
    with tempfile.TemporaryDirectory(prefix="tutelage-base-") as scratch:
        whole = Path(scratch) / "base.gguf"
        export_gguf(base, whole, kind="f32", prove=False, log=lambda _: None)
        longest = max((len(prompt) for prompt in asked), default=0)
        witness = Witness(whole, adapter=path, context=longest + 256, threads=threads)
        return prove_output(witness, base, asked, kind="f32", adapter=adapter)

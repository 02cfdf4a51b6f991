"""The forms that a run can leave in, by the name that `--to` takes: a line of help and a function each.

Imports without torch: each function imports what it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tutelage.builders.export.request import Exported, ExportRequest


@dataclass(frozen=True, slots=True)
class Target:
    """A form.

    Attributes:
        summary: what is written, in a few words.
        write: writes `ExportRequest.out`, whole or not at all.
    """

    summary: str
    write: Callable[[ExportRequest], Exported]


def _hf(request: ExportRequest) -> Exported:
    from tutelage.builders.export.whole_model import write_whole_model

    return write_whole_model(request)


def _gguf(request: ExportRequest) -> Exported:
    from tutelage.builders.export.gguf_model import write_gguf_model

    return write_gguf_model(request)


def _gguf_adapter(request: ExportRequest) -> Exported:
    from tutelage.builders.export.gguf_model import write_gguf_adapter

    return write_gguf_adapter(request)


def _ollama(request: ExportRequest) -> Exported:
    from tutelage.builders.export.gguf_model import write_ollama_folder

    return write_ollama_folder(request)


TARGETS: Mapping[str, Target] = {
    "hf": Target("a folder with the whole model, merged, that transformers loads", _hf),
    "gguf": Target("one file with the whole model for llama.cpp, compared with the run there", _gguf),
    "gguf-adapter": Target("one file with the LoRA adapter alone, for llama.cpp's --lora", _gguf_adapter),
    "ollama": Target("a folder with such a file of the whole model and a Modelfile", _ollama),
}

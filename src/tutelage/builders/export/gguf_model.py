"""A run -> one GGUF file of its whole model or of its adapter, compared with the run in llama.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tutelage.builders.base_model import start_folder
from tutelage.builders.export.request import Exported, ExportRequest
from tutelage.builders.export.whole_model import whole_model
from tutelage.builders.trained_model import require_as_trained, trained_folder
from tutelage.errors import ConfigError, command
from tutelage.export.gguf.adapter import export_gguf_adapter
from tutelage.export.gguf.export import GgufExport, export_gguf, folder_renderer
from tutelage.export.gguf.gguf_file import WrittenTensor
from tutelage.export.gguf.ollama import modelfile
from tutelage.export.gguf.output_proof import OutputProof
from tutelage.export.gguf.tokenizer_proof import TokenizerProof
from tutelage.export.model_folder import copy_texts, license_files, require_free
from tutelage.system.files import new_folder

USUAL_KIND = "q4_k_m"
MODEL_FILE = "model.gguf"


def write_gguf_model(request: ExportRequest) -> Exported:
    """Write `request.out`, a file.

    Raises:
        TutelageError: see `whole_model` and `export_gguf`; nothing is left of that name.
    """
    threads = request.settings.model.threads or 1
    with whole_model(request) as folder:
        result = export_gguf(
            folder,
            request.out,
            kind=request.kind or USUAL_KIND,
            name=request.run.resolve().name,
            threads=threads,
            log=request.screen.log,
        )
        licenses = [file.name for file in license_files(folder)]
    tell(request, proof_lines(result))
    if licenses:
        tell(
            request, [f"note: the file has no place for the base's license ({', '.join(licenses)}): pass it on with it"]
        )
    return Exported(result.path, facts=facts_of(result))


def write_ollama_folder(request: ExportRequest) -> Exported:
    """Write `request.out`, a folder with a GGUF file and a Modelfile for `ollama create`.

    Raises:
        TutelageError: the chat template cannot be written in Ollama's language, or as `write_gguf_model`; nothing is
            left of that name.
    """
    require_free(request.out)
    with whole_model(request) as folder:
        renderer, add_bos = folder_renderer(folder)
        text = modelfile(renderer, folder, MODEL_FILE, add_bos=add_bos)
        if request.out.is_dir():
            request.out.rmdir()
        with new_folder(request.out) as scratch:
            result = export_gguf(
                folder,
                scratch / MODEL_FILE,
                kind=request.kind or USUAL_KIND,
                name=request.run.resolve().name,
                threads=request.settings.model.threads or 1,
                log=request.screen.log,
            )
            copy_texts(folder, scratch, code=False)
            (scratch / "Modelfile").write_text(text, encoding="utf-8")
    tell(request, [*proof_lines(result), f"next: ollama create NAME -f {request.out / 'Modelfile'}"])
    return Exported(request.out, facts=facts_of(result))


def write_gguf_adapter(request: ExportRequest) -> Exported:
    """Write `request.out`, a file with the LoRA adapter of a run.

    Raises:
        TutelageError: the run trained none, or see `export_gguf_adapter`; nothing is left of that name.
    """
    settings = request.settings
    if settings.model.method not in ("lora", "qlora") or request.dial is not None:
        raise ConfigError(
            "There is no LoRA adapter to write",
            where="--to gguf-adapter",
            found=f"model.method = {settings.model.method}" if request.dial is None else "--dial",
            expected="a run of lora or qlora, without --dial",
            fix=f"write the whole model: {command('export', request.run, '--to', 'gguf', '-o', request.out)}",
        )
    folder = trained_folder(request.run, settings)
    require_as_trained(request.run, folder)
    base = start_folder(settings.model, log=request.screen.log)
    result = export_gguf_adapter(
        folder,
        base,
        request.out,
        kind=request.kind or "f32",
        name=request.run.resolve().name,
        threads=settings.model.threads or 1,
        log=request.screen.log,
    )
    tell(request, [*_output_lines(result.output), *_note_lines(result.notes)])
    return Exported(result.path, facts={"output": _fields(result.output), "notes": list(result.notes)})


def proof_lines(result: GgufExport) -> list[str]:
    """What was compared, for people."""
    worst = max(result.tensors, key=lambda tensor: tensor.error)
    return [
        *_tokenizer_lines(result.tokenizer),
        *_output_lines(result.output),
        f"{result.kind.name}: {_types(result.tensors)}; the largest error of a tensor is {worst.error:.2%} "
        f"of its size, in {worst.name}",
        *_note_lines(result.notes),
    ]


def facts_of(result: GgufExport) -> dict[str, Any]:
    """The same for programs."""
    return {
        "type": result.kind.name,
        "stops": list(result.special.stops),
        "tokenizer": _fields(result.tokenizer),
        "output": _fields(result.output),
        "errors": {tensor.name: tensor.error for tensor in result.tensors if tensor.error},
        "notes": list(result.notes),
    }


def tell(request: ExportRequest, lines: Sequence[str]) -> None:
    """Say something to the person at the keyboard."""
    for line in lines:
        request.screen.log(line)


def _fields(proof: TokenizerProof | OutputProof | None) -> dict[str, Any] | None:
    return None if proof is None else asdict(proof)


def _tokenizer_lines(proof: TokenizerProof | None) -> list[str]:
    if proof is None:
        return []
    return [
        f"llama.cpp reads {proof.strings} hard texts, {proof.added_tokens} added tokens and {proof.served_prompts} "
        f"conversations as the run does, and stops on {', '.join(proof.stops)}"
    ]


def _output_lines(proof: OutputProof | None) -> list[str]:
    if proof is None:
        return []
    return [
        f"llama.cpp beside the run on {proof.prompts} prompts: mean KL {proof.mean_kl:.2g} nats (limit "
        f"{proof.mean_kl_limit:g}); {proof.same_text} replies the same word for word; of {proof.positions} tokens "
        f"{proof.ties} flipped in ties and {proof.flips} beyond"
    ]


def _note_lines(notes: Sequence[str]) -> list[str]:
    return [f"note: {note}" for note in notes]


def _types(tensors: Sequence[WrittenTensor]) -> str:
    counted: dict[str, int] = {}
    for tensor in tensors:
        counted[tensor.kind.name] = counted.get(tensor.kind.name, 0) + 1
    return ", ".join(f"{count} tensors as {name}" for name, count in counted.items())

"""From a Hugging Face folder to one GGUF file that llama.cpp serves as it was trained, or to none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from gguf import GGUFWriter

from tutelage.export.gguf.family import Family, family_of, notes_of
from tutelage.export.gguf.file_types import FileType, file_type
from tutelage.export.gguf.gguf_file import WrittenTensor, kinds_of, new_gguf, write_gguf
from tutelage.export.gguf.llama_cpp import Witness, is_available
from tutelage.export.gguf.output_proof import OutputProof, probe_messages, prove_output
from tutelage.export.gguf.properties import write_properties
from tutelage.export.gguf.special_tokens import SpecialTokens, special_tokens_of
from tutelage.export.gguf.stored_tensors import StoredTensors
from tutelage.export.gguf.tensors import model_tensors
from tutelage.export.gguf.tokenizer_proof import TokenizerProof, prove_tokenizer
from tutelage.export.gguf.vocabulary import Vocabulary, vocabulary_of
from tutelage.render import ChatTemplate, Renderer, Tokenizer
from tutelage.render.chat_template.template import TemplateRefusal
from tutelage.types import Message

NOT_PROVEN = "llama.cpp is not installed, so nothing was compared: pip install 'tutelage[gguf]' and export again"
SWALLOWING = "phi-3"
"""llama.cpp lets control tokens swallow the white space after them where the model's name holds this."""

PROOF_ROOM = 256
"""Tokens of context beyond the longest prompt: enough for hard strings and replies. It stays short, as llama.cpp takes
the long RoPE factors of Phi-3 wherever the context could be long."""

Log = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class GgufExport:
    """What was written.

    Attributes:
        path: the file.
        kind: its type.
        tensors: of it, with their errors.
        special: its special tokens.
        notes: what is not as in the folder, or was not compared.
        tokenizer: what was compared of the ids; None where llama.cpp is not installed.
        output: what was compared of the model; None likewise, or without a chat template and prompts.
    """

    path: Path
    kind: FileType
    tensors: tuple[WrittenTensor, ...]
    special: SpecialTokens
    notes: tuple[str, ...]
    tokenizer: TokenizerProof | None = None
    output: OutputProof | None = None


def export_gguf(
    folder: Path,
    path: Path,
    *,
    kind: str = "q4_k_m",
    name: str | None = None,
    prompts: Sequence[Sequence[int]] | None = None,
    prove: bool = True,
    threads: int = 1,
    log: Log = print,
) -> GgufExport:
    """Write `path` from `folder`, and compare the two in llama.cpp where it is installed.

    Args:
        folder: config.json, safetensors, tokenizer.json and template of the whole model.
        path: the file to be; there is none yet. Where anything fails, there is none afterwards.
        kind: type of the file; see `file_types`.
        name: of the model, for people; the folder's name if None.
        prompts: ids of served prompts to compare on; 20 questions in the chat template if None.
        prove: compare; otherwise the file is written unseen, and `notes` say so.
        threads: how many llama.cpp computes with.
        log: told of each long step.

    Raises:
        ConfigError: the type is unknown, `path` is taken, or llama.cpp would compute something else.
        DataError: the tokenizer, a tensor or the template cannot go, or llama.cpp reads the file otherwise.
        DependencyError: the type needs a package that is not installed.
        SaveError: the disk is full or refuses.
    """
    file_kind = file_type(kind)
    source = _source(folder)
    tensors = model_tensors(StoredTensors.of_model(folder), source.config, source.family, str(folder))
    kinds = kinds_of(tensors, file_kind, layers=source.config.num_hidden_layers)
    notes = [*notes_of(source.config, source.family), *source.vocabulary.notes]
    describe = partial(_describe, source, file_kind, name or folder.name)
    with new_gguf(path) as scratch:
        log(f"writing {path.name}: {len(tensors)} tensors as {file_kind.name}")
        written = write_gguf(scratch, source.family.architecture, tensors, kinds, describe)
        result = GgufExport(path, file_kind, tuple(written), source.special, tuple(notes))
        if not prove:
            result = _noted(result, "nothing was compared, as was asked")
        elif not is_available():
            result = _noted(result, NOT_PROVEN)
        else:
            log("comparing it with the folder in llama.cpp")
            result = _proven(result, scratch, source, prompts, threads)
    return result


def _renderer(folder: Path) -> Renderer:
    tokenizer = Tokenizer.load(folder)
    template = ChatTemplate(
        tokenizer.template or "",
        tools_source=tokenizer.templates.get("tool_use"),
        named_tokens=tokenizer.named_tokens,
    )
    return Renderer(tokenizer, template)


def _any_served(renderer: Renderer) -> list[int] | None:
    if not renderer.template.source:
        return None
    try:
        return list(map(int, renderer.serve([Message("user", "a")])))
    except TemplateRefusal:
        return list(renderer.serve([Message("system", "a"), Message("user", "a")]))


@dataclass(frozen=True, slots=True)
class _Source:
    """A folder, and what was read from it."""

    folder: Path
    config: Any
    family: Family
    renderer: Renderer
    vocabulary: Vocabulary
    special: SpecialTokens


def _source(folder: Path) -> _Source:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    family = family_of(config, str(folder))
    renderer = _renderer(folder)
    vocabulary = vocabulary_of(renderer.tokenizer, config.vocab_size)
    special = special_tokens_of(renderer.tokenizer, _any_served(renderer))
    return _Source(folder, config, family, renderer, vocabulary, special)


def _describe(source: _Source, kind: FileType, name: str, writer: GGUFWriter) -> None:
    write_properties(writer, source.config, source.family, kind, name=_shown_name(name, source.vocabulary))
    source.vocabulary.write(writer)
    source.special.write(writer)
    template = source.renderer.template
    if template.tools_source is not None:
        writer.add_chat_template(
            [
                {"name": "default", "template": template.source},
                {"name": "tool_use", "template": template.tools_source},
            ]
        )
    elif template.source:
        writer.add_chat_template(template.source)


def _shown_name(name: str, vocabulary: Vocabulary) -> str:
    """A name by which llama.cpp treats white space after control tokens as the tokenizer does."""
    holds = any(word in name.lower() for word in (SWALLOWING, "phi3"))
    if vocabulary.swallows and not holds:
        return f"{name} ({SWALLOWING})"
    if holds and not vocabulary.swallows:
        return name.lower().replace(SWALLOWING, "phi 3").replace("phi3", "phi 3")
    return name


def _noted(result: GgufExport, note: str) -> GgufExport:
    return replace(result, notes=(*result.notes, note))


def _proven(
    result: GgufExport, scratch: Path, source: _Source, prompts: Sequence[Sequence[int]] | None, threads: int
) -> GgufExport:
    if prompts is None:
        prompts = _probe_prompts(source.renderer)
    longest = max((len(prompt) for prompt in prompts), default=0)
    witness = Witness(scratch, context=longest + PROOF_ROOM, threads=threads)
    tokenizer = prove_tokenizer(witness, source.renderer, source.vocabulary)
    output = prove_output(witness, source.folder, prompts, kind=result.kind.name)
    silent = () if output.positions else ("no token of a reply could be compared",)
    return replace(result, tokenizer=tokenizer, output=output, notes=(*result.notes, *tokenizer.notes, *silent))


def folder_renderer(folder: Path) -> tuple[Renderer, bool]:
    """The tokenizer and template of a folder, and whether a file of it tells the server to add BOS."""
    renderer = _renderer(folder)
    return renderer, special_tokens_of(renderer.tokenizer, _any_served(renderer)).add_bos


def probe_prompts(folder: Path) -> list[list[int]]:
    """Ids of 20 questions as the chat template of a folder serves them."""
    return _probe_prompts(_renderer(folder))


def _probe_prompts(renderer: Renderer) -> list[list[int]]:
    messages = probe_messages()
    if renderer.template.source:
        return [list(map(int, renderer.serve(question))) for question in messages]
    return [renderer.tokenizer.encode_document(str(question[0].content)) for question in messages]

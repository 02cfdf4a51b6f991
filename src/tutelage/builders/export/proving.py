"""A run and the folder that was written of it -> the proof that both are one model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from tutelage.builders.base_model import start_folder
from tutelage.builders.dial import opened_for_dial
from tutelage.builders.export.prompts import Prompts, prompts_for
from tutelage.builders.export.request import ExportRequest
from tutelage.builders.resolved_run import resolve
from tutelage.builders.trained_model import TrainedModel, open_trained_model
from tutelage.export.expected_tensors import ExpectedTensors, expected_tensors
from tutelage.export.proof import Asked, Proof, answers_of, judged, require_proven
from tutelage.export.reference import Difference, Reference, difference_from, noise_in, reference_of
from tutelage.model.out_of_memory import release_memory
from tutelage.model.precision import DTYPES, device_here
from tutelage.model.safetensors_header import read_header
from tutelage.render import Renderer

SAFETENSORS_TYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def proof_of(
    request: ExportRequest,
    folder: Path,
    *,
    adapter: bool = False,
    conversations: Sequence[dict[str, Any]] = (),
) -> Proof:
    """Compare the folder with the run's own model, in a process that knows nothing of ours.

    Args:
        request: that the folder was written for.
        folder: what was written.
        adapter: it is an adapter, which is loaded on the base that the run started from.
        conversations: more of them for the folder's own template, as `Asked.conversations` has them.

    Raises:
        SaveError: it cannot be loaded there, or is not the model that was trained.
        TutelageError: the run cannot be opened.
    """
    screen, settings = request.screen, request.settings
    start = start_folder(settings.model, log=screen.log)
    stored = _stored_types(start if adapter else folder)
    usual = _usual_type(stored)
    main = _computed_type(request, usual, adapter=adapter)
    opened = _opened(request)
    prompts = prompts_for(request, opened.renderer)
    prompts = replace(prompts, conversations=(*prompts.conversations, *conversations))
    asked = _asked(request, opened.renderer, prompts, start, folder, adapter=adapter)
    with screen.counting("Asking the run's own model, in fp32", 4 * len(prompts.ids)) as done:
        reference, expected, noise, moved = _asked_here(
            request, opened, prompts, lambda name: stored.get(name, usual), main, merged=not adapter, done=done
        )
    del opened
    release_memory()
    with screen.counting("Asking what was written, in a process of its own", len(prompts.ids)) as done:
        answers = answers_of(asked, reference, expected, done=done)
    proof = judged(answers, asked, reference, expected, noise=noise, moved=moved, prompts=prompts.places, dtype=main)
    require_proven(proof, request.out)
    return proof


def _opened(request: ExportRequest) -> TrainedModel:
    """The run's model in fp32; beside whole weights those of its base, where the dial needs them."""
    if request.dial is not None:
        return opened_for_dial(request.run, request.settings, request.screen, precision="fp32")
    return open_trained_model(str(request.run), tuned=True, base=False, precision="fp32", log=request.screen.log)


def _asked_here(
    request: ExportRequest,
    opened: TrainedModel,
    prompts: Prompts,
    dtype_of: Callable[[str], torch.dtype],
    main: torch.dtype,
    *,
    merged: bool,
    done: Callable[[int], None],
) -> tuple[Reference, ExpectedTensors, Difference, Difference | None]:
    """What the run's model says and is, what of a difference is noise, and how far it is from its base."""
    with opened.as_tuned() if request.dial is None else opened.at(request.dial) as model:
        reference = reference_of(model, opened.renderer.tokenizer, prompts.ids, done=done)
        expected = expected_tensors(model, dtype_of, merged=merged)
    moved = None
    if request.settings.model.method != "full":
        with opened.as_base() as base:
            moved = difference_from(base, reference, done=done)
    with opened.as_tuned() if request.dial is None else opened.at(request.dial) as model:
        noise = noise_in(model, reference, main, merged=merged, done=done)
    return reference, expected, noise, moved


def _asked(
    request: ExportRequest, renderer: Renderer, prompts: Prompts, start: Path, folder: Path, *, adapter: bool
) -> Asked:
    settings, tokenizer = request.settings, renderer.tokenizer
    four_bit = None
    if adapter and settings.model.method == "qlora":
        four_bit = {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": settings.qlora.double_quantization,
            "bnb_4bit_compute_dtype": str(DTYPES[resolve(settings).precision]).removeprefix("torch."),
        }
    return Asked(
        model=start if adapter else folder,
        adapter=folder if adapter else None,
        four_bit=four_bit,
        device=device_here(),
        trust_remote_code=settings.model.trust_remote_code,
        date=str(settings.render.date),
        template_arguments=settings.render.template_arguments,
        conversations=prompts.conversations,
        added_tokens={token.content: number for number, token in tokenizer.fast.get_added_tokens_decoder().items()},
        stops=sorted(tokenizer.stop_ids),
        threads=settings.model.threads or 0,
    )


def _stored_types(folder: Path) -> dict[str, torch.dtype]:
    """The precision of each floating tensor of the safetensors in a folder."""
    entries = [item for path in sorted(folder.glob("*.safetensors")) for item in read_header(path)[0].items()]
    return {name: SAFETENSORS_TYPES[entry["dtype"]] for name, entry in entries if entry["dtype"] in SAFETENSORS_TYPES}


def _usual_type(stored: Mapping[str, torch.dtype]) -> torch.dtype:
    """That of most tensors."""
    counts = Counter(stored.values())
    return counts.most_common(1)[0][0] if counts else torch.float32


def _computed_type(request: ExportRequest, usual: torch.dtype, *, adapter: bool) -> torch.dtype:
    """What the folder computes in: as it is stored, but beside 4 bits in bf16, as a CPU that has it does unasked.

    Source: bitsandbytes 0.50, `Linear4bit`, which repacks weights when they are first evaluated.
    """
    return torch.bfloat16 if adapter and request.settings.model.method == "qlora" else usual

"""A model's name -> the findings about its template, tokenizer and weights. Torch only where a loss is measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tutelage.audit.embedding_findings import embedding_findings
from tutelage.audit.embedding_rows import Embedding, embedding_state, read_embedding
from tutelage.audit.template_findings import checkpoint_findings
from tutelage.audit.template_probe import probe_template
from tutelage.audit.tokenizer_findings import template_tokens
from tutelage.builders.renderer import renderer_for
from tutelage.config import RenderSettings
from tutelage.model.embedded import embedded_models
from tutelage.model.locate import model_folder
from tutelage.render import Renderer
from tutelage.render.chat_template.builtin_templates import find_builtin, is_path
from tutelage.types import Finding

Say = Callable[[str], None]
ORDER = ("error", "warning", "info")


@dataclass(frozen=True, slots=True)
class CheckpointReport:
    """All findings about a checkpoint, errors first, with the renderer that they are about."""

    renderer: Renderer
    findings: tuple[Finding, ...]


def checkpoint_report(
    model: str, settings: RenderSettings, *, tokenizer: str | None = None, measure_loss: bool = False, log: Say
) -> CheckpointReport:
    """Look at everything about a checkpoint that training depends on.

    Args:
        model: name or folder of the checkpoint; its weights are looked at where they are at hand.
        settings: the section `render`.
        tokenizer: a folder in place of the model's tokenizer.
        measure_loss: load the model and measure its loss on the template's control tokens, which needs torch.
        log: hears when something slow happens.

    Raises:
        TutelageError: model, tokenizer or template cannot be read.
    """
    folder = model_folder(model, weights=measure_loss, log=log)
    renderer = renderer_for(folder if tokenizer is None else model_folder(tokenizer, weights=False, log=log), settings)
    embedding = read_embedding(folder)
    if embedding is not None and tokenizer is not None:
        model_tokenizer = dataclasses.replace(renderer.tokenizer, vocabulary_size=embedding.rows)
        renderer = dataclasses.replace(renderer, tokenizer=model_tokenizer)
    findings = [*findings_of(renderer, settings), *_of_weights(renderer, embedding)]
    if model in embedded_models() or model.lower().endswith(".gguf"):
        findings.append(_from_gguf(model))
    if measure_loss:
        findings += _of_loss(folder, renderer)
    findings.sort(key=lambda finding: ORDER.index(finding.severity))
    return CheckpointReport(renderer, tuple(findings))


def findings_of(renderer: Renderer, settings: RenderSettings) -> tuple[Finding, ...]:
    """What template and tokenizer of a run do to training, errors first."""
    template_name = settings.template
    builtin_template = None if template_name is None or is_path(template_name) else find_builtin(template_name)
    return checkpoint_findings(
        renderer.template,
        renderer.tokenizer,
        missing_stop=settings.missing_stop,
        text_markers=() if builtin_template is None else builtin_template.text_markers,
    )


def _from_gguf(model: str) -> Finding:
    return Finding(
        "from_gguf",
        "info",
        "Template and tokenizer are those that were written into the GGUF file when it was made; the checkpoint it was "
        "made from may have newer ones, and weights of more than a few bits.",
        f"{model} is a GGUF file",
        "for a model that is served from another file, give that file's folder",
    )


def _of_weights(renderer: Renderer, embedding: Embedding | None) -> list[Finding]:
    if embedding is None:
        return [
            Finding(
                "weights_not_looked_at",
                "info",
                "Whether the model was trained on this template's control tokens was not looked at.",
                "there are no safetensors with an input embedding in the folder",
                "give a folder that holds the weights",
            )
        ]
    state = embedding_state(embedding, renderer.tokenizer)
    template_token_ids = template_tokens(renderer.template, probe_template(renderer.template))
    return list(embedding_findings(embedding, state, renderer.tokenizer, template_token_ids))


def _of_loss(folder: Path, renderer: Renderer) -> list[Finding]:
    from tutelage.audit.template_loss import loss_finding, template_loss
    from tutelage.model.load import load

    model, _ = load(folder)
    measured = template_loss(model.eval(), renderer)
    return [] if measured is None else [loss_finding(measured)]

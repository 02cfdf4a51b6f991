"""A folder that is written and proven -> its card and proof.json, and what a terminal shows of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from tutelage import config
from tutelage.builders.base_model import start_folder
from tutelage.builders.export.request import Exported, ExportRequest
from tutelage.config import Settings
from tutelage.curate.licenses import licenses_of
from tutelage.export.card import CARD, ModelCard, card_text
from tutelage.export.model_folder import license_files
from tutelage.export.proof import Proof
from tutelage.model.embedded import NOTICE_FILE, embedded_models
from tutelage.report.console.measures import result_table
from tutelage.report.numbers import count, percent, significant
from tutelage.runs import folder as run_files
from tutelage.system.seals import file_sha256

PROOF = "proof.json"
METHODS = {"full": "full fine-tuning", "lora": "LoRA", "qlora": "QLoRA", "prompt": "prompt tuning"}
MOST_LAYERS = 5
MOST_NOTICE = 2000
"""Characters of a notice that stand on the card; all of it is in the folder."""


def finished(
    request: ExportRequest,
    folder: Path,
    proof: Proof | None,
    *,
    form: str,
    lost_in_four_bits: Mapping[str, float] | None = None,
    notes: Sequence[str] = (),
) -> Exported:
    """Write proof.json and the card into `folder`, and put together what there is to show; `notes` go on the card."""
    lost = lost_in_four_bits or {}
    facts: dict[str, Any] = {"proof": {"proven": False} if proof is None else proof.as_json()}
    if lost:
        facts["proof"]["lost_in_four_bits"] = dict(lost)
    (folder / PROOF).write_text(json.dumps(facts["proof"], indent=1) + "\n", encoding="utf-8")
    (folder / CARD).unlink(missing_ok=True)
    (folder / CARD).write_text(card_text(_card(request, folder, proof, form, notes)), encoding="utf-8")
    tables = () if proof is None else (_proof_table(proof),)
    return Exported(request.out, (*tables, *((_lost_table(lost),) if lost else ())), facts)


def _card(request: ExportRequest, folder: Path, proof: Proof | None, form: str, notes: Sequence[str]) -> ModelCard:
    settings, result = request.settings, _result(request.run)
    table = result_table(result) if result else None
    return ModelCard(
        title=settings.name or request.run.name,
        base=settings.model.name,
        method=METHODS[settings.model.method],
        form=form,
        base_license=_base_license(request),
        license_texts=[path.name for path in license_files(folder) if path.name != NOTICE_FILE],
        notice=(folder / NOTICE_FILE).read_text(encoding="utf-8", errors="replace")[:MOST_NOTICE]
        if (folder / NOTICE_FILE).is_file()
        else "",
        licenses=licenses_of(_sources(settings), settings.data.licenses),
        data_sha256=result.get("data_sha256", {}),
        settings=config.dump(settings),
        measures=((), ()) if table is None else (("", *table.headings), table.rows),
        notes=(*(() if table is None else table.notes), *_notes(request, proof), *notes),
        proof=proof,
        files_sha256={
            path.relative_to(folder).as_posix(): file_sha256(path) for path in folder.rglob("*") if path.is_file()
        },
    )


def _base_license(request: ExportRequest) -> str | None:
    """As the package of an embedded model states it, or the card in the base's folder."""
    if (entry := embedded_models().get(request.settings.model.name)) is not None:
        return str(entry["license"])
    start = str(start_folder(request.settings.model, weights=False, log=request.screen.log))
    return licenses_of([start], {})[start]


def _notes(request: ExportRequest, proof: Proof | None) -> Iterator[str]:
    settings = request.settings
    if request.dial is not None:
        yield f"These are weights at {request.dial:g} between the base (0) and what was trained (1)"
    if settings.render.template_arguments:
        yield f"It was trained with these arguments of the template: {settings.render.template_arguments}"
    if proof is not None and proof.sampling:
        yield f"generation_config.json draws tokens as that of the base did: {dict(proof.sampling)}"


def _sources(settings: Settings) -> list[str]:
    return [source for source in (*settings.data.train, *settings.data.replayed) if isinstance(source, str)]


def _result(run: Path) -> dict[str, Any]:
    """What the run measured; empty where nothing readable says so."""
    try:
        return run_files.read_json(run / run_files.RESULT)
    except (OSError, ValueError):
        return {}


def _proof_table(proof: Proof) -> Table:
    """Rows of what was measured, what of it is noise, and what was allowed."""
    table = Table(box=SIMPLE_HEAD, title=f"Proven: the folder, in {proof.dtype}, against the run's model")
    for heading in ("", "measured", "noise", "limit"):
        table.add_column(heading, justify="left" if not heading else "right", overflow="fold")
    kinds = ", ".join(f"{number} {place}" for place, number in proof.prompts.items())
    table.add_row("prompts", kinds, "", "")
    for name, part in (("KL, nats a token", "kl"), ("largest difference of logits", "logit")):
        numbers = (getattr(values, part) for values in (proof.found, proof.noise, proof.limits))
        table.add_row(name, *(significant(number, 2) for number in numbers))
    if proof.moved is not None:
        table.add_row("  KL from its base, for comparison", significant(proof.moved.kl, 2), "", "")
    table.add_row("likeliest replies the same", count(proof.same_replies), "", "")
    table.add_row("  parted at a tie", count(proof.ties), "", "")
    table.add_row("  parted elsewhere", count(len(proof.flips)), "", "0")
    if proof.layers:
        worst = max(proof.layers, key=lambda name: proof.layers[name] / proof.layer_limits[name])
        limit = significant(proof.layer_limits[worst], 2)
        table.add_row(f"layers off, of {len(proof.layers)} the most", significant(proof.layers[worst], 2), "", limit)
    if proof.against_rounded:
        most = max(proof.against_rounded.values())
        table.add_row(f"  {len(proof.against_rounded)} from their sums, rounded once", significant(most, 2), "", "")
    table.add_row("tensors the same bit for bit", count(proof.exact_tensors), "", "all others")
    table.add_row("conversations by its template", count(proof.template), "", "all")
    return table


def _lost_table(lost: Mapping[str, float]) -> Table:
    """What 4 bits left out of the base's weights: the run was trained and measured without it."""
    table = Table(box=SIMPLE_HEAD, title="What 4 bits took from the base, and the run never had")
    table.add_column("layer", overflow="fold")
    table.add_column("of its length", justify="right")
    worst = sorted(lost, key=lambda name: -lost[name])
    for name in worst[:MOST_LAYERS]:
        table.add_row(name, percent(lost[name]))
    table.add_row(f"mean of {len(lost)} layers", percent(sum(lost.values()) / len(lost)))
    return table

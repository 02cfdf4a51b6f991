"""Curation as a whole: read -> steps -> output, each stage on disk, with books that balance.

Row steps that follow one another are one pass. The output is the same bytes for the same input, settings and seed,
whatever the number of workers, and whether or not an earlier process was killed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from tutelage.curate.engines import engine_for
from tutelage.curate.entries import READ
from tutelage.curate.funnel import Funnel
from tutelage.curate.judging import judge
from tutelage.curate.out_folder import WORK, finished_key, remove_stages, require_ours, restored_rows, row_files
from tutelage.curate.output import write_output
from tutelage.curate.overview.parts import PageWriter
from tutelage.curate.page import write_page
from tutelage.curate.reading_position import ReadingPosition
from tutelage.curate.request import Curated, CurationRequest
from tutelage.curate.row_json import row_json
from tutelage.curate.stage_keys import behind, output_key, stage_keys
from tutelage.curate.stages import Stage, Workshop, outside_of
from tutelage.curate.step import CorpusStep, EstimatedStep, Progress, RowStep
from tutelage.curate.steps import build_steps
from tutelage.curate.store import StoredRow
from tutelage.errors import SaveError, cause_of, remedy
from tutelage.formats.data_files import DataFiles
from tutelage.ledger import Ledger
from tutelage.runs.lock import locked
from tutelage.types import Conversation

SAMPLE_ROWS = 1_000
Passes = list[tuple[CorpusStep] | tuple[RowStep, ...]]


def curate(
    request: CurationRequest,
    *,
    steps: Sequence[RowStep | CorpusStep] | None = None,
    log: Callable[[str], None] = lambda _text: None,
    progress: Progress = lambda _title, _done, _total: None,
    page: PageWriter | None = None,
) -> Curated:
    """Curate the rows of the sources into a folder.

    Args:
        request: what, how and where to.
        steps: taken in place of those that the settings name.
        log: told what is worth saying.
        progress: told how far each stage is.
        page: draws the page of what was done; None leaves it out.

    Raises:
        ConfigError: the folder holds something that is not ours, or a step cannot work with its settings.
        DependencyError: a step or the engine needs a package that is not installed; no row has been read.
        EngineError: there is no such Ray cluster, or its workers have other packages than this machine.
        DataError: a file cannot be read, or changed while it was read.
        SaveError: the disk refuses.
    """
    require_ours(request.out)
    passes = _passes(build_steps(request.settings, request.context(progress, log)) if steps is None else steps)
    data_files = DataFiles(log)
    files = data_files.of(request.sources)
    work = request.out / WORK
    try:
        work.mkdir(parents=True, exist_ok=True)
        with (
            engine_for(request, log) as engine,
            locked(work, log=log),
            data_files.reading(files, request.sources),
        ):
            workshop = Workshop(engine, request.chunk_rows, progress)
            return _curated(request, passes, data_files, workshop, page)
    except SaveError:
        raise
    except OSError as error:
        raise SaveError(
            "The curated data cannot be written",
            where=str(request.out),
            found=cause_of(error),
            fix=remedy(error, elsewhere="choose another folder with -o"),
        ) from error


def sample(request: CurationRequest, *, rows: int = SAMPLE_ROWS) -> Curated:
    """Take the first rows of each file through the row steps, in this process, and write nothing.

    Where a step asks somebody, all rows are read, for what that would take.

    Args:
        request: as for `curate`; `out` is not looked at.
        rows: of all files together.

    Raises:
        ConfigError, DependencyError, DataError: as `curate`.
    """
    all_steps = build_steps(request.settings, request.context())
    steps = [step for step in all_steps if not isinstance(step, CorpusStep)]
    ledger, funnel = Ledger(), Funnel()
    stored = []
    for number, row in enumerate(_first_rows(request, ledger, min(rows, request.max_rows or rows))):
        address = row.address
        stored.append(StoredRow(row_json(row), address.file, address.number, address.unit, number))
    funnel.add([READ], ledger.rows_in, len(stored), _read_counts(ledger))
    judged = judge(steps, stored)
    counts: Counter[tuple[str, str, str]] = Counter()
    for entry in judged.entries:
        counts[entry.step, entry.what, entry.reason] += entry.rows or 1
    funnel.add([step.name for step in steps], len(stored), len(judged.rows), counts)
    funnel.check()
    left_out = tuple(step.name for step in all_steps if isinstance(step, CorpusStep))
    estimates = {
        step.name: step.estimate(_rows_before(request, all_steps[:place]))
        for place, step in enumerate(all_steps)
        if isinstance(step, EstimatedStep)
    }
    return Curated(funnel, tuple(ledger.notes), seconds=judged.seconds, left_out=left_out, estimates=estimates)


def _rows_before(request: CurationRequest, steps: Sequence[RowStep | CorpusStep]) -> Iterator[Conversation]:
    """All rows as the row steps leave them; a step that must see all of them is passed over."""
    row_steps = [step for step in steps if not isinstance(step, CorpusStep)]
    ledger = Ledger()
    files = DataFiles(ledger.note).of(request.sources)
    rows = enumerate(request.read(ledger, files, max_rows=request.max_rows))
    while chunk := list(islice(rows, SAMPLE_ROWS)):
        stored = [
            StoredRow(row_json(row), row.address.file, row.address.number, row.address.unit, number)
            for number, row in chunk
        ]
        yield from (row.conversation for row in judge(row_steps, stored).rows)


def _first_rows(request: CurationRequest, ledger: Ledger, rows: int) -> Iterator[Conversation]:
    files = DataFiles(ledger.note).of(request.sources)
    of_each = -(-rows // len(files))
    for file in files:
        yield from request.read(ledger, [file], max_rows=of_each)


def _read_counts(ledger: Ledger) -> dict[tuple[str, str, str], int]:
    dropped = {(READ, "dropped", reason): rows for reason, rows in ledger.dropped.items()}
    return dropped | {(READ, "changed", reason): rows for reason, rows in ledger.changed.items()}


def _passes(steps: Sequence[RowStep | CorpusStep]) -> Passes:
    """Steps that are taken together: row steps that follow one another, and each corpus step alone."""
    passes: Passes = []
    for step in steps:
        if isinstance(step, CorpusStep):
            passes.append((step,))
        elif passes and not isinstance(passes[-1][0], CorpusStep):
            passes[-1] = (*passes[-1], step)
        else:
            passes.append((step,))
    return passes


def _curated(
    request: CurationRequest, passes: Passes, data_files: DataFiles, workshop: Workshop, page: PageWriter | None
) -> Curated:
    files, work = data_files.of(request.sources), request.out / WORK
    keys = stage_keys(request, passes, files, data_files.sha256)
    restored = restored_rows(request.out, output_key(request, behind(keys[-1], _learned(work, passes, keys))))
    # A file that two sources hold belongs to the first, as it does where sources have weights in training.
    source_of_file = {
        file.display_name: source for source in reversed(request.sources) for file in data_files.of([source])
    }

    position = ReadingPosition(files)

    def read(ledger: Ledger) -> Iterator[Conversation]:
        return request.read(ledger, files, max_rows=request.max_rows, begin=position.begin)

    stages, outside = [workshop.read(work / f"00-{READ}-{keys[0]}", read, source_of_file, position)], ""
    for number, (group, key) in enumerate(zip(passes, keys[1:], strict=True), start=1):
        folder, rows = _folder(work, number, group, behind(key, outside)), stages[-1].rows
        if isinstance(group[0], CorpusStep):
            stages.append(workshop.decide(folder, group[0], rows))
        else:
            stages.append(workshop.judge(folder, [step for step in group if not isinstance(step, CorpusStep)], rows))
        outside += stages[-1].outside
    funnel, whole_key = _funnel(stages), output_key(request, behind(keys[-1], outside))
    if not restored:
        if finished_key(request.out) != whole_key:
            write_output(request, stages, funnel, data_files.sha256, workshop, whole_key)
        write_page(request, stages, funnel, page, workshop)
    remove_stages(request.out, but={stage.folder.name for stage in stages})
    notes = tuple(note for stage in stages for note in stage.notes)
    if restored:
        notes += (f"{restored:,} restored rows are in {request.out} beside those counted here, and stay there",)
    return Curated(
        funnel, notes, row_files(request.out), source_of_file, dict(workshop.computed), dict(workshop.seconds),
        incomplete=tuple(stage.incomplete for stage in stages if stage.incomplete),
    )  # fmt: skip


def _folder(work: Path, number: int, group: Sequence[RowStep | CorpusStep], key: str) -> Path:
    return work / f"{number:02d}-{group[0].name}-{key}"


def _learned(work: Path, passes: Passes, keys: Sequence[str]) -> str:
    """What stages that are there whole learned outside, as far as none before them is to be taken again."""
    outside = ""
    for number, (group, key) in enumerate(zip(passes, keys[1:], strict=True), start=1):
        outside += outside_of(_folder(work, number, group, behind(key, outside)))
    return outside


def _funnel(stages: Sequence[Stage]) -> Funnel:
    funnel = Funnel()
    for stage in stages:
        funnel.add(stage.names, stage.rows_in, len(stage.rows), stage.counts())
    funnel.check()
    return funnel

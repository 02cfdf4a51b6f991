"""What is asked of a curation, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tutelage import formats
from tutelage.config.curation import CurateSettings
from tutelage.curate.funnel import Funnel
from tutelage.curate.out_folder import TRAIN, WHOLE
from tutelage.curate.scoring_model import OpenModel
from tutelage.curate.step import Estimate, Progress, StepContext
from tutelage.curate.store import CHUNK_ROWS
from tutelage.formats.remarks import TreePaths
from tutelage.formats.sources import SourceFile
from tutelage.ledger import Ledger
from tutelage.system.workers import default_workers
from tutelage.types import Conversation

FileFormat = Literal["jsonl", "parquet"]
EngineName = Literal["local", "ray"]


@dataclass(frozen=True, slots=True)
class CurationRequest:
    """What is curated, how, and where to.

    Attributes:
        sources: as `formats.read` takes them.
        out: folder of the output.
        settings: the steps and their settings.
        seed: of every random choice.
        shape: of the rows, or "auto".
        columns: which column holds which field.
        tree_paths: of a row that is a tree of messages, the path that was kept, or all.
        max_rows: read at most this many; None reads all.
        held_out: files of a run that must not be trained on.
        file_format: of the rows that are kept.
        tokenizer: a tokenizer.json, to count tokens for the card; None counts words alone.
        workers: processes; None takes one for each core, up to 4, or all processors of a Ray cluster that is there.
        chunk_rows: rows worked on together; changes no row of the output.
        open_model: opens the models that steps ask; None where none can be asked.
        engine: who does the work: processes of this machine, or a Ray cluster; changes no row of the output.
        ray_address: of the cluster, as `ray_cluster` takes it.
    """

    sources: tuple[str, ...]
    out: Path
    settings: CurateSettings
    seed: int = 0
    shape: str = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)
    tree_paths: TreePaths = "kept"
    max_rows: int | None = None
    held_out: tuple[str, ...] = ()
    file_format: FileFormat = "jsonl"
    tokenizer: Path | None = None
    workers: int | None = None
    chunk_rows: int = CHUNK_ROWS
    open_model: OpenModel | None = None
    engine: EngineName = "local"
    ray_address: str | None = None

    @property
    def process_count(self) -> int:
        """Processes that work on rows."""
        return default_workers() if self.workers is None else self.workers

    def read(
        self,
        ledger: Ledger,
        files: Sequence[SourceFile],
        *,
        max_rows: int | None = None,
        begin: formats.Begin = lambda _file, _rows, _rows_before: None,
    ) -> Iterator[Conversation]:
        """The conversations of files, read as asked for; of each call at most `max_rows`; `begin` as `formats.read`."""
        return formats.read(
            [], ledger=ledger, shape=self.shape, columns=self.columns, max_rows=max_rows, files=files,
            tree_paths=self.tree_paths, begin=begin,
        )  # fmt: skip

    @property
    def reading_facts(self) -> list[Any]:
        """What decides, beside their bytes, what becomes of the files; JSON can hold it."""
        return [self.shape, dict(self.columns), self.tree_paths, self.max_rows, self.chunk_rows]

    def context(
        self,
        progress: Progress = lambda _title, _done, _total: None,
        log: Callable[[str], None] = lambda _text: None,
    ) -> StepContext:
        """What steps may need beside their settings.

        Args:
            progress: told how far a step is that takes its time to decide.
            log: told what is worth saying meanwhile.
        """
        steps = tuple(self.settings.steps)
        return StepContext(self.seed, self.sources, self.held_out, self.open_model, progress, steps, log)


@dataclass(frozen=True, slots=True)
class Curated:
    """What came of it.

    Attributes:
        funnel: the books.
        notes: what the reader said of whole files, and steps of all rows.
        files: those of the rows that are kept: `data`, or `train`, `validation` and `test`; none of a sample.
        source_of_file: the source, as the user named it, by the file that rows name in their metadata.
        computed: files written now, by what they are of; none where all was there.
        seconds: what each part took now, in all processes together.
        left_out: steps that a sample does not take, as they must see all rows.
        incomplete: what steps could not do to the end; the same request again goes on.
        estimates: of a sample, what steps that ask somebody would take, by their names.
    """

    funnel: Funnel
    notes: tuple[str, ...]
    files: Mapping[str, Path] = field(default_factory=dict)
    source_of_file: Mapping[str, str] = field(default_factory=dict)
    computed: Mapping[str, int] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    incomplete: tuple[str, ...] = ()
    estimates: Mapping[str, Estimate] = field(default_factory=dict)

    @property
    def data(self) -> Path | None:
        """The file of the rows to train on; None of a sample."""
        return self.files.get(WHOLE) or self.files.get(TRAIN)

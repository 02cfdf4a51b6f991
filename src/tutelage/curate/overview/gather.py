"""Gathers an overview from the finished stages of a curation."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tutelage.config.curation_quality import PersonalSettings
from tutelage.curate.decontaminate import NAME as DECONTAMINATE
from tutelage.curate.entries import GONE, Entry
from tutelage.curate.funnel import Funnel
from tutelage.curate.licenses import is_non_commercial
from tutelage.curate.overview.parts import (
    ANCHOR,
    KEPT,
    Described,
    DuplicateCluster,
    Mended,
    Overview,
    RowsMap,
    ShownRow,
    SourceCounts,
)
from tutelage.curate.overview.rows_map import places_of, text_vectors, topics_of, vectors_name
from tutelage.curate.overview.samples import (
    Kind,
    drawn,
    largest_clusters,
    members_of,
    sampled_entries,
    shares_of,
)
from tutelage.curate.parts import row_lengths
from tutelage.curate.quality.language import language_of
from tutelage.curate.quality.personal import Personal
from tutelage.curate.request import CurationRequest
from tutelage.curate.row_json import conversation_of
from tutelage.curate.stages import Stage
from tutelage.curate.store import Rows
from tutelage.curate.text_vectors import compared_text
from tutelage.curate.texts import message_text, reply_text
from tutelage.errors import DependencyError
from tutelage.types import Conversation

MAP_ROWS = 5_000
"""Kept rows on the map, and dropped ones, at most so many each."""
DESCRIBED_ROWS = 5_000
"""Rows whose lengths and languages are looked at, before and after."""
ROW_CHARACTERS = 8_000
"""Of a row that a page shows; a longer one is cut, so that 10,000 rows stay under 80 MB whatever they hold."""
CLUSTERS, MEMBERS, HITS, CHANGES = 20, 6, 50, 5
"""Of duplicates, rows of each, contaminated rows and changes of a kind that are shown."""
CONFIDENCE = 0.95
"""Below this the language of a row is not told; as `curate.quality.language.confidence` has it."""


def overview_of(
    request: CurationRequest,
    stages: Sequence[Stage],
    funnel: Funnel,
    licenses: Mapping[str, str | None],
    rows_read: Mapping[str, int],
) -> Overview:
    """What a page shows of a curation, the same for the same curation.

    Args:
        request: what was asked for.
        stages: reading first.
        funnel: their books.
        licenses: by source.
        rows_read: by source.
    """
    kept = stages[-1].rows
    counts: Counter[Kind] = Counter()
    for stage in stages[1:]:
        counts.update({Kind(step, what, reason): rows for (step, what, reason), rows in stage.counts().items()})
    gone = {kind: rows for kind, rows in counts.items() if kind.what in GONE}
    changed = {kind: rows for kind, rows in counts.items() if kind.what == "changed"}
    shares = shares_of(gone, MAP_ROWS) | dict.fromkeys(changed, CHANGES)
    entries = sampled_entries(stages[1:], shares, counts, np.random.default_rng([request.seed, 1]))
    dropped = [entry for entry in entries if entry.what in GONE]
    shown = _ShownRows()
    numbers = [shown.add_kept(kept, index) for index in drawn(len(kept), MAP_ROWS, _generator(request, 2)).tolist()]
    numbers += [shown.add_gone(entry) for entry in dropped]
    contaminated = [number for number in numbers if shown.rows[number].step == DECONTAMINATE]
    rows_map = _map_of(numbers, shown, request.seed)
    before, after = (
        _described(rows, request, _generator(request, place)) for place, rows in ((3, stages[0].rows), (4, kept))
    )
    names, codes = kept.sources
    kept_of = dict(zip(names, np.bincount(codes, minlength=len(names)).tolist(), strict=True))
    return Overview(
        funnel=funnel,
        sources=tuple(
            SourceCounts(name, text, is_non_commercial(text or ""), rows_read.get(name, 0), kept_of.get(name, 0))
            for name, text in licenses.items()
        ),
        before=before,
        after=after,
        map=rows_map,
        dropped=sum(gone.values()),
        duplicates=_duplicates(stages, shown),
        rows=tuple(shown.rows),
        contaminated=tuple(contaminated[:HITS]),
        reports={stage.names[0]: stage.report for stage in stages if stage.report},
        mended=tuple(_mended(changed, entries)),
        notes=tuple(note for stage in stages for note in stage.notes),
    )


def _generator(request: CurationRequest, draw: int) -> np.random.Generator:
    return np.random.default_rng([request.seed, draw])


@dataclass(slots=True)
class _ShownRows:
    """Rows that are shown, each once, with its number; `texts` are what the rows of the map are compared by."""

    rows: list[ShownRow] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    _numbers: dict[tuple[str, int, str], int] = field(default_factory=dict)
    _personal: Personal = field(default_factory=lambda: Personal(PersonalSettings()))

    def add_kept(self, rows: Rows, index: int, state: str = KEPT) -> int:
        """A row of a view."""
        row = rows.stored(index)
        return self._add(row.conversation, row.part, ShownRow(str(row.address), (), state=state))

    def add_gone(self, entry: Entry) -> int:
        """A row that went."""
        assert entry.text is not None, "only the reader drops what is no row"
        conversation = conversation_of(entry.text, entry.address)
        said = ShownRow(str(entry.address), (), 0, entry.reason, entry.step, entry.detail, entry.anchor or "")
        return self._add(conversation, entry.part, said)

    def _add(self, conversation: Conversation, part: int, said: ShownRow) -> int:
        key = said.address, part, said.state
        if key not in self._numbers:
            self._numbers[key] = len(self.rows)
            turns, cut = self._turns(conversation)
            self.rows.append(ShownRow(said.address, turns, cut, said.state, said.step, said.detail, said.anchor))
            self.texts.append(compared_text(conversation)[:ROW_CHARACTERS])
        return self._numbers[key]

    def _turns(self, conversation: Conversation) -> tuple[tuple[tuple[str, str], ...], int]:
        texts: list[tuple[str, str]] = [(message.role, message_text(message)) for message in conversation.messages]
        if conversation.tools:
            texts.insert(0, ("tools", json.dumps(list(conversation.tools), ensure_ascii=False, indent=1)))
        left, cut, turns = ROW_CHARACTERS, 0, []
        for role, text in texts:
            masked = self._personal.masked_text(text[: left + ROW_CHARACTERS])
            turns.append((role, masked[:left]))
            cut += max(0, len(text) - left)
            left = max(0, left - len(text))
        return tuple(turns), cut


def _map_of(numbers: Sequence[int], shown: _ShownRows, seed: int) -> RowsMap:
    texts = [shown.texts[number] for number in numbers]
    vectors = text_vectors(texts)
    topics, names = topics_of(texts, vectors, seed)
    return RowsMap(np.array(numbers, dtype=np.int64), places_of(vectors, topics), topics, names, vectors_name())


def _described(rows: Rows, request: CurationRequest, generator: np.random.Generator) -> Described:
    chosen = [rows.conversation(index) for index in drawn(len(rows), DESCRIBED_ROWS, generator).tolist()]
    tokenizer = None if request.tokenizer is None else request.tokenizer.read_text(encoding="utf-8")
    lengths = row_lengths(chosen, tokenizer)
    return Described(len(chosen), len(rows), lengths, _languages(chosen))


def _languages(rows: Iterable[Conversation]) -> dict[str, int] | None:
    try:
        met = Counter((language_of(reply_text(row), CONFIDENCE) or ("",))[0] for row in rows)
    except DependencyError:
        return None
    return dict(sorted(met.items(), key=lambda item: (-item[1], item[0])))


def _duplicates(stages: Sequence[Stage], shown: _ShownRows) -> tuple[DuplicateCluster, ...]:
    clusters = largest_clusters(stages, CLUSTERS)
    members = members_of(stages, clusters, MEMBERS)
    found = []
    for stage in {cluster.stage for cluster in clusters}:
        anchors = {cluster.anchor for cluster in clusters if cluster.stage == stage}
        rows = stages[stage - 1].rows
        places = rows.find(anchors)
        for cluster in clusters:
            if cluster.stage == stage:
                place = places.get(cluster.anchor)
                anchor_row = None if place is None else shown.add_kept(rows, place, ANCHOR)
                numbers = tuple(shown.add_gone(entry) for entry in members[cluster])
                name = stages[stage].names[0]
                found.append(DuplicateCluster(name, cluster.anchor, anchor_row, cluster.size, numbers))
    return tuple(sorted(found, key=lambda cluster: (-cluster.size, cluster.step, cluster.anchor)))


def _mended(changed: Mapping[Kind, int], entries: Sequence[Entry]) -> Iterable[Mended]:
    for kind in sorted(changed, key=lambda kind: (-changed[kind], kind)):
        said = [entry for entry in entries if Kind(entry.step, entry.what, entry.reason) == kind]
        yield Mended(kind.step, kind.reason, changed[kind], tuple((str(entry.address), entry.detail) for entry in said))

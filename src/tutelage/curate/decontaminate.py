"""Rows that hold questions or answers of evaluation sets are dropped, with the passage and the item's address.

Every turn of a row is compared: prompts, replies, system turns and results of tools. A text of eight words or more that
a row holds whole is always met; a shorter question only where a whole turn is that question. A paraphrase is not seen.

Shape legend: N = rows.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tutelage.config.curation_decontaminate import DecontaminateSettings
from tutelage.curate.evaluation_items import evaluation_files, evaluation_items
from tutelage.curate.evaluation_overlap import Met, SharedItems, overlap_notes, overlap_report
from tutelage.curate.ngram_index import Hit, NgramIndex, SharedRun
from tutelage.curate.step import Decisions, StepContext, StepDefinition
from tutelage.curate.store import Rows
from tutelage.curate.texts import message_text, words
from tutelage.curate.word_hashes import offsets_of
from tutelage.errors import ConfigError
from tutelage.system.seals import file_sha256
from tutelage.types import Conversation

if TYPE_CHECKING:
    import pyarrow as pa

NAME, REASON = "decontaminate", "contaminated"
WHOLE_TURN, WHOLE_PROMPT = "the whole turn is the question", "the whole prompt is the question"
PHRASE_SHARE = 0.0001
"""Of the rows: what more of them hold is a phrase, where at least `phrase_rows` do."""
_SHOWN_WORDS = 30

Turns = Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Decontaminate:
    """The step.

    Attributes:
        settings: how much may be shared.
        index: of the evaluation items.
        facts: the evaluation files and their SHA-256.
    """

    settings: DecontaminateSettings
    index: NgramIndex
    facts: list[list[str]] = field(default_factory=list)
    name: str = NAME

    def features(self, conversations: Sequence[Conversation]) -> pa.RecordBatch:
        """Which runs of the index each row has (`hits`), and what shows that it holds an item whole."""
        import pyarrow as pa

        rows = [_turns(conversation) for conversation in conversations]
        of_all_turns = iter(self.index.hits(list(chain.from_iterable(rows))))
        hits, evidence = [], []
        for conversation, turns in zip(conversations, rows, strict=True):
            of_turns = list(islice(of_all_turns, len(turns)))
            hits.append(sorted({run for of_turn in of_turns for _, run in of_turn}))
            met = self._shared(turns, of_turns, whole=True) | self._whole_turns(turns, _prompt_of(conversation))
            evidence.append(json.dumps(met) if met else None)
        numbers = np.fromiter(chain.from_iterable(hits), np.int64)
        offsets = offsets_of([len(of_row) for of_row in hits])
        return pa.record_batch(
            {
                "hits": pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(numbers)),
                "evidence": pa.array(evidence, pa.large_string()),
            }
        )

    def decide(self, features: pa.Table, rows: Rows) -> Decisions:
        """Rows that hold an item whole go, and those that share enough of one, templates of the rows aside."""
        texts = features.column("evidence").to_pylist()
        met: dict[int, Met] = {row: json.loads(text) for row, text in enumerate(texts) if text is not None}
        counts = np.zeros(len(self.index), dtype=np.int64)
        chunks = [_hits_of(chunk) for chunk in features.column("hits").chunks]
        for numbers, _ in chunks:
            counts += np.bincount(numbers, minlength=len(counts))
        phrase = max(self.settings.phrase_rows, int(PHRASE_SHARE * len(rows)) + 1)
        met = _without_phrases(met, phrase)
        bound = max(self.settings.template_rows, int(self.settings.template_share * len(rows)) + 1)
        is_sign, is_rare = counts < bound, counts < min(phrase, bound)
        row = 0
        for numbers, offsets in chunks:
            signs_before = np.concatenate([[0], np.cumsum(is_sign[numbers])])
            for place in np.flatnonzero(np.diff(signs_before[offsets])).tolist():
                turns = _turns(rows.conversation(row + place))
                hits = [[hit for hit in of_turn if is_sign[hit[1]]] for of_turn in self.index.hits(turns)]
                rare = [[hit for hit in of_turn if is_rare[hit[1]]] for of_turn in hits]
                shared = self._shared(turns, hits) | self._shared(turns, rare, short=True)
                for file, evidence in shared.items():
                    met.setdefault(row + place, {}).setdefault(file, evidence)
            row += len(offsets) - 1
        keep = np.ones(len(rows), dtype=bool)
        keep[list(met)] = False
        report = overlap_report(met, rows, self._sets_that_share())
        return Decisions(
            keep,
            dict.fromkeys(met, REASON),
            {number: _said(of_row) for number, of_row in met.items()},
            report=report,
            notes=overlap_notes(report),
        )

    def _sets_that_share(self) -> SharedItems:
        """Items of different sets that hold each other's texts: half of one is enough, as all are items."""
        shared: SharedItems = {}
        texts = self.index.texts
        for number, hits in enumerate(self.index.hits([self.index.words(text) for text in range(len(texts))])):
            turns, own = [self.index.words(number)], texts[number]
            for other, (address, _) in (self._shared(turns, [hits], short=None) | self._whole_turns(turns)).items():
                if other < own.file:
                    shared.setdefault((other, own.file), set()).add((address, own.address))
                elif other > own.file:
                    shared.setdefault((own.file, other), set()).add((own.address, address))
        return shared

    def _whole_turns(self, turns: Turns, prompt: int | None = None) -> Met:
        """The short questions that are a whole turn; `prompt` is the turn which is all that the row asks."""
        met: Met = {}
        prompt_first = sorted(enumerate(turns), key=lambda numbered: numbered[0] != prompt)
        for place, turn in prompt_first:
            for text in self.index.whole(turn):
                said = WHOLE_PROMPT if place == prompt else WHOLE_TURN
                met.setdefault(self.index.texts[text].file, self._evidence(text, said, turn))
        return met

    def _shared(
        self, turns: Turns, hits: Sequence[Sequence[Hit]], *, whole: bool = False, short: bool | None = False
    ) -> Met:
        """What shows that a row is contaminated, by evaluation file; the first text of each that it shares enough of.

        Args:
            turns: words of each turn.
            hits: of each turn, those that count.
            whole: only if it holds an item whole.
            short: only texts of fewer than `short_words` words, or only longer ones; None for all, half being enough.
        """
        runs: dict[int, list[tuple[SharedRun, Sequence[str]]]] = defaultdict(list)
        for turn, of_turn in zip(turns, hits, strict=True):
            for run in self.index.shared_runs(turn, of_turn) if of_turn else ():
                runs[run.text].append((run, turn))
        met: Met = {}
        for text, of_text in runs.items():
            if self.index.texts[text].file in met:
                continue
            longest, turn = max(of_text, key=lambda run_and_turn: run_and_turn[0].length)
            places = {place for run, _ in of_text for place in range(run.item_start, run.item_start + run.length)}
            telling = int(self.index.telling[text])
            if not whole and short not in (None, telling < self.settings.short_words):
                continue
            if len(places) >= telling or (
                not whole and self._is_enough(longest.length, len(places), telling, short=short)
            ):
                share = len(places) / telling
                said = f"{longest.length} words in a row, {share:.0%} of the {self.index.texts[text].part}"
                passage = turn[longest.start : longest.start + longest.length]
                met[self.index.texts[text].file] = self._evidence(text, said, passage)
        return met

    def _is_enough(self, longest: int, covered: int, telling: int, *, short: bool | None) -> bool:
        settings, rules = self.settings, self.settings.rules
        least = telling * (settings.short_coverage if short else settings.coverage)
        is_phrase = short is not None and longest < settings.ngram_share * telling
        run = settings.long_words if is_phrase else settings.ngram_words
        return (
            ("ngram" in rules and longest >= run)
            or ("coverage" in rules and covered >= least)
            or ("longest" in rules and longest >= least)
        )

    def _evidence(self, text: int, said: str, passage: Sequence[str]) -> tuple[str, str]:
        shown = " ".join(passage[:_SHOWN_WORDS]) + (" ..." if len(passage) > _SHOWN_WORDS else "")
        return self.index.texts[text].address, f"{said}: '{shown}'"


def _without_phrases(met: dict[int, Met], bound: int) -> dict[int, Met]:
    """Without short questions that are one turn of several in so many rows: people ask so on the way.

    One that is all that a row asks stays met in any number of rows: an evaluation set that was copied in many times.
    """
    by_address = Counter(
        address for of_row in met.values() for address, said in of_row.values() if said.startswith(WHOLE_TURN)
    )
    left = {
        row: {
            file: (address, said)
            for file, (address, said) in of_row.items()
            if not said.startswith(WHOLE_TURN) or by_address[address] < bound
        }
        for row, of_row in met.items()
    }
    return {row: of_row for row, of_row in left.items() if of_row}


def _said(met: Met) -> str:
    (address, said), *others = met.values()
    also = f"; also {', '.join(address for address, _ in others)}" if others else ""
    return f"{address}: {said}{also}"


def _prompt_of(conversation: Conversation) -> int | None:
    """The place of the only user turn; None where there are several, or none."""
    places = [place for place, message in enumerate(conversation.messages) if message.role == "user"]
    return places[0] if len(places) == 1 else None


def _turns(conversation: Conversation) -> list[list[str]]:
    return [words(message_text(message)) for message in conversation.messages]


def _hits_of(chunk: pa.LargeListArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    offsets = chunk.offsets.to_numpy()
    return chunk.values.to_numpy()[offsets[0] : offsets[-1]], offsets - offsets[0]


def _build(settings: DecontaminateSettings, context: StepContext) -> Decontaminate:
    """Read all evaluation files.

    Raises:
        ConfigError: there is none.
        SourceNotFoundError, DataError: one is missing, empty, or in a shape that is not recognized.
    """
    files = evaluation_files([*settings.evaluations, *context.held_out])
    if not files:
        raise ConfigError(
            "The step decontaminate has no evaluation set, so rows would be decontaminated against nothing",
            found="curate.decontaminate.evaluations is empty, and no rows are held out",
            fix="set curate.decontaminate.evaluations=[FILE, ...], or leave decontaminate out of curate.steps",
        )
    texts = [text for file in files for text in evaluation_items(file, settings.columns)]
    facts = [[file.display_name, file_sha256(file.path)] for file in files]
    return Decontaminate(settings, NgramIndex(texts, template_items=settings.template_items), facts)


DECONTAMINATE = StepDefinition(
    NAME, "rows that hold questions or answers of evaluation sets are dropped", DecontaminateSettings, _build
)

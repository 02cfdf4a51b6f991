"""How replies look, source by source, and prompts that are answered in contradictory ways.

Nothing here says which of two styles is right: a model that learns both says now this, now that.

Shape legend: N = rows.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from tutelage.config.curation_consistency import ConsistencySettings
from tutelage.curate.prose import is_json
from tutelage.curate.screens import DIGIT, SPACE, TextColumn, any_case
from tutelage.curate.step import Decisions, StepContext, StepDefinition
from tutelage.curate.store import Rows
from tutelage.curate.texts import words
from tutelage.curate.word_hashes import Ragged, UInt64s, numbered_words, offsets_of, sequence_numbers
from tutelage.types import Conversation

if TYPE_CHECKING:
    import pyarrow as pa

NAME: Final = "consistency"
QUANTILES: Final = (5, 25, 50, 75, 95)
SAMPLES: Final = 20
"""Contradicted prompts that are shown."""
_ANSWER_WORDS: Final = 3
"""A reply of at most so many words is an answer by itself: of five, two sentences that are both good differ."""
SENTENCE_CHARACTERS: Final = 40
"""A reply of fewer characters is a label or an answer: how it begins and ends is no style."""
_OF_SENTENCES: Final = frozenset({"capital_start", "full_stop"})
_NUMBER: Final = re.compile(r"(?:[a-z]+ )*(-?\d[\d,]*(?:\.\d+)?)(?: ?[a-z%°]+(?: [a-z%°]+)*)?")
"""An answer that is one number, with words and a unit around it: `therefore 3`, `120 pints`."""
_MOST_NOTES: Final = 8
_ANSWER: Final = re.compile(
    r"^####\s*(.+)$|\bthe (?:final |correct )?answer is:?[ \t]*([^\n]{1,60}?)(?:\.(?=\s|\Z)|[ \t]*$)"
    r"|\\boxed\{([^{}]+)\}",
    re.IGNORECASE | re.MULTILINE,
)
_LIST: Final = re.compile(r"^\s*(?:[-*+•]|\d+[.)])\s", re.MULTILINE)
_MARKDOWN: Final = re.compile(r"^#{1,6} (?!-?[\d.,$]+\s*$)|\*\*[^*\n]+\*\*|^\|.*\|$", re.MULTILINE)
_SIGN_OFF: Final = re.compile(
    r"(?:let me know if|i hope (?:this|that|it) helps|feel free to|is there anything else|happy to help|"
    r"(?:best|kind|warm) regards|sincerely)\b[^\n]*(?:\n[^\n]{0,40})?\s*\Z",
    re.IGNORECASE,
)
_PERSONA: Final = re.compile(r"\bI(?:['’]m| am) (?:an?|your|the|here)\b")
_BEHIND_FULL_STOP: Final = "\"'”’»)]*_"
_FULL_STOPS: Final = tuple(".!?。！？।؟…")


def _is_capital(text: str) -> bool:
    if text[:1].isalpha():
        return text[0].isupper()
    first = next((character for character in text if character.isalpha()), "")
    return first.isupper()


MARKS: Final[dict[str, Callable[[str], bool]]] = {
    "markdown": lambda text: _MARKDOWN.search(text) is not None,
    "list": lambda text: len(_LIST.findall(text)) > 1,
    "code_fence": lambda text: "```" in text,
    "json": is_json,
    "sign_off": lambda text: _SIGN_OFF.search(text[-200:]) is not None,
    "persona": lambda text: _PERSONA.search(text) is not None,
    "capital_start": _is_capital,
    "full_stop": lambda text: text.rstrip(_BEHIND_FULL_STOP).endswith(_FULL_STOPS),
    "final_answer": lambda text: _ANSWER.search(text) is not None,
}
"""What is looked for in the last reply of a row, or in a document."""
_MAY_HAVE: Final = {
    "markdown": r"[#|]|\*\*",
    "list": rf"(?m)^[{SPACE}]*(?:[-*+•]|{DIGIT}+[.)])[{SPACE}]",
    "code_fence": "```",
    "json": rf"\A[{SPACE}]*[\[{{]",
    "sign_off": any_case("let me know|i hope|feel free|is there anything|happy to help|regards|sincerely"),
    "persona": "I['’]m |I am ",
    "final_answer": any_case("####|answer is|boxed"),
}
"""What every text with such a mark has, as a pattern of `screens`; marks that are seen at one end have none."""
_ANSWER_CHARACTERS: Final = 80
"""A reply of at most so many characters may be an answer by itself."""


@dataclass(frozen=True, slots=True)
class Consistency:
    """The step."""

    settings: ConsistencySettings
    name: str = NAME

    def features(self, conversations: Sequence[Conversation]) -> pa.RecordBatch:
        """A hash of the prompt (0 where there is not just one), the answer if it is short or marked, and the marks."""
        import pyarrow as pa

        column = TextColumn([[_last_reply(conversation)] for conversation in conversations])
        return pa.record_batch(
            {
                "prompt": pa.array(_prompt_hashes(conversations)),
                "answer": pa.array(_final_answers(column), pa.string()),
                "characters": pa.array(column.lengths),
                "marks": pa.array(_marks(column)),
            }
        )

    def decide(self, features: pa.Table, rows: Rows) -> Decisions:
        """Report on sources and contradictions; rows whose prompt has contradictory answers go, if that was asked."""
        names, sources = rows.sources
        prompts, marks, characters = (features.column(name).to_numpy() for name in ("prompt", "marks", "characters"))
        answers = features.column("answer").to_pylist()
        groups = _contradictions(prompts, answers, marks)
        described = {
            name: self._described(marks[sources == code], characters[sources == code])
            for code, name in enumerate(names)
            if (sources == code).any()
        }
        report: dict[str, Any] = {
            "sources": described,
            "differing": self._differing(described),
            "contradictions": {
                "prompts": len(groups),
                "rows": sum(map(len, groups)),
                "between": [
                    {"sources": [names[first], names[second]], "prompts": count}
                    for (first, second), count in _sources_that_contradict(
                        groups, sources, answers, marks
                    ).most_common()
                ],
                "samples": [_sample(group, answers, rows) for group in groups[:SAMPLES]],
            },
        }
        keep = np.ones(len(rows), dtype=np.bool_)
        evidence: dict[int, str] = {}
        if self.settings.contradictions == "drop":
            for group in groups:
                keep[group] = False
                evidence |= {index: _contradicted(index, group, answers, marks, rows) for index in group}
        reasons = dict.fromkeys(evidence, "contradicts")
        return Decisions(keep, reasons, evidence, report=report, notes=_notes(report))

    def _described(self, marks: NDArray[np.uint16], characters: NDArray[np.int64]) -> dict[str, Any]:
        """Shares of the marks, None where too few replies are long enough for one, and quantiles of the length."""
        sentences = marks[characters >= SENTENCE_CHARACTERS]
        shares: dict[str, float | None] = {}
        for place, name in enumerate(MARKS):
            judged = sentences if name in _OF_SENTENCES else marks
            is_enough = len(judged) >= min(len(marks), self.settings.rows)
            shares[name] = round(float(((judged >> place) & 1).mean()), 4) if is_enough else None
        quantiles = np.percentile(characters, QUANTILES, method="lower")
        lengths = {str(name): int(value) for name, value in zip(QUANTILES, quantiles, strict=True)}
        return {"rows": len(marks), "shares": shares, "characters": lengths}

    def _differing(self, described: dict[str, Any]) -> list[dict[str, Any]]:
        """The marks whose shares are far apart, with the shares of sources that are large enough, in falling order."""
        large = {name: facts["shares"] for name, facts in described.items() if facts["rows"] >= self.settings.rows}
        differing = []
        for mark in MARKS:
            shares = {name: of_source[mark] for name, of_source in large.items() if of_source[mark] is not None}
            if shares and max(shares.values()) - min(shares.values()) >= self.settings.difference:
                ordered = sorted(shares.items(), key=lambda pair: -pair[1])
                differing.append({"mark": mark, "shares": dict(ordered)})
        return differing


def _notes(report: dict[str, Any]) -> tuple[str, ...]:
    """The report in sentences."""
    notes = []
    for differing in report["differing"]:
        (most, high), *_, (least, low) = differing["shares"].items()
        notes.append(f"replies differ in {differing['mark']}: {high:.0%} of {most}, {low:.0%} of {least}")
    found = report["contradictions"]
    if found["prompts"]:
        notes.append(f"{found['prompts']:,} prompts have contradictory answers, in {found['rows']:,} rows")
    for pair in found["between"][: max(0, _MOST_NOTES - len(notes))]:
        first, second = pair["sources"]
        where = f"within {first}" if first == second else f"between {first} and {second}"
        notes.append(f"contradictory answers {where}: {pair['prompts']:,} prompts")
    return tuple(notes)


def final_answer(reply: str) -> str | None:
    r"""What a reply says in the end, in one form: after `####` or `the answer is`, in `\boxed{}`, or all of it."""
    met = list(_ANSWER.finditer(reply))
    if not met:
        if len(reply) > _ANSWER_CHARACTERS or not reply.strip() or len(words(reply)) > _ANSWER_WORDS:
            return None
        answer = reply
    else:
        answer = next(group for group in met[-1].groups() if group is not None)
    plain = " ".join(answer.casefold().replace("$", "").split()).strip(" .!*`\"'")
    number = _NUMBER.fullmatch(plain.rpartition("=")[2].strip())
    if number is not None:
        return f"{float(number[1].replace(',', '')):.15g}"
    return plain or None


def _final_answers(replies: TextColumn) -> list[str | None]:
    """`final_answer` of each; what can be in none of the forms is not searched."""
    possible = replies.rows_with(_MAY_HAVE["final_answer"]) | (replies.lengths <= _ANSWER_CHARACTERS)
    return [
        final_answer(reply) if asked else None for reply, asked in zip(replies.flat, possible.tolist(), strict=True)
    ]


def _last_reply(conversation: Conversation) -> str:
    contents = [message.content for message in conversation.messages if message.role in ("assistant", "text")]
    return contents[-1] or "" if contents else ""


def _prompt_hashes(conversations: Sequence[Conversation]) -> UInt64s:
    """Of system prompt and question, word by word; 0 for a conversation of several turns, and for a document."""
    asked = TextColumn(
        [
            [message.content or "" for message in conversation.messages if message.role in ("system", "user")]
            for conversation in conversations
        ]
    )
    words_of_text = numbered_words(asked.flat)
    texts = Ragged(sequence_numbers(words_of_text), offsets_of(asked.counts))
    users = (sum(message.role == "user" for message in conversation.messages) for conversation in conversations)
    is_one = np.fromiter(users, np.int64, len(conversations)) == 1
    return np.where(is_one, sequence_numbers(texts) | np.uint64(1), np.uint64(0))


def _marks(replies: TextColumn) -> NDArray[np.uint16]:
    marks = np.zeros(len(replies.flat), dtype=np.uint16)
    for place, (name, holds) in enumerate(MARKS.items()):
        possible = replies.rows_with(_MAY_HAVE[name]) if name in _MAY_HAVE else np.ones(len(marks), dtype=np.bool_)
        for row in np.flatnonzero(possible).tolist():
            if holds(replies.flat[row]):
                marks[row] |= 1 << place
    return marks


def _contradictions(
    prompts: NDArray[np.uint64], answers: Sequence[str | None], marks: NDArray[np.uint16]
) -> list[list[int]]:
    """Rows by prompt, in order, where one prompt has different final answers, or JSON beside another form."""
    order = np.argsort(prompts, kind="stable")
    cuts = np.flatnonzero(np.diff(prompts[order])) + 1
    groups = []
    for part in np.split(order, cuts):
        if len(part) > 1 and prompts[part[0]]:
            group = part.tolist()
            if any(_differs(group[0], other, answers, marks) for other in group[1:]) or _any_differ(group, answers):
                groups.append(group)
    return sorted(groups)


def _sources_that_contradict(
    groups: Sequence[Sequence[int]],
    sources: NDArray[np.int32],
    answers: Sequence[str | None],
    marks: NDArray[np.uint16],
) -> Counter[tuple[int, int]]:
    """How many prompts each two sources answer differently; a source and itself among them."""
    counts: Counter[tuple[int, int]] = Counter()
    for group in groups:
        pairs = combinations(group, 2)
        met = ((sources[left], sources[right]) for left, right in pairs if _differs(left, right, answers, marks))
        counts.update({(int(min(pair)), int(max(pair))) for pair in met})
    return counts


def _any_differ(group: Sequence[int], answers: Sequence[str | None]) -> bool:
    return len(Counter(answers[row] for row in group if answers[row] is not None)) > 1


def _differs(left: int, right: int, answers: Sequence[str | None], marks: NDArray[np.uint16]) -> bool:
    first, second = answers[left], answers[right]
    json = 1 << list(MARKS).index("json")
    return (first is not None and second is not None and first != second) or bool((marks[left] ^ marks[right]) & json)


def _contradicted(
    index: int, group: Sequence[int], answers: Sequence[str | None], marks: NDArray[np.uint16], rows: Rows
) -> str:
    """What of the other rows of its prompt contradicts a row, or each other where it has no final answer itself."""
    other = next((row for row in group if _differs(row, index, answers, marks)), None)
    if other is None:
        first = next(row for row in group if answers[row] is not None)
        second = next(row for row in group if answers[row] not in (None, answers[first]))
        said = " and ".join(f"{answers[row]!r} in {rows.address(row)}" for row in (first, second))
        return f"no final answer, beside {said}"
    said = "another form" if answers[index] is None else f"{answers[index]!r}, not {answers[other]!r}"
    return f"{said} as in {rows.address(other)}"


def _sample(group: Sequence[int], answers: Sequence[str | None], rows: Rows) -> dict[str, Any]:
    prompt = next(message.content or "" for message in rows.conversation(group[0]).messages if message.role == "user")
    said = [{"address": str(rows.address(row)), "answer": answers[row]} for row in group[:SAMPLES]]
    return {"prompt": prompt[:200], "rows": said}


def _build(settings: ConsistencySettings, _: StepContext) -> Consistency:
    return Consistency(settings)


CONSISTENCY = StepDefinition(
    NAME,
    "tells how replies look in each source, and which prompts have contradictory answers; drops only if asked",
    ConsistencySettings,
    _build,
)

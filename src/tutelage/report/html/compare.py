"""One held-out row: the wanted reply beside those before and after training, field by field where all are JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tutelage.runs.reading import Sample

LONGEST_TEXT = 4000


@dataclass(frozen=True, slots=True)
class FieldMark:
    """One field of a reply: whether it is the wanted one, and what was found and wanted (JSON; empty = absent)."""

    name: str
    matches: bool
    found: str
    wanted: str


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply as shown. `matches` is None when there is no reply; `marks` is empty unless both texts are objects."""

    heading: str
    text: str
    cut_characters: int
    matches: bool | None
    verdict: str
    marks: tuple[FieldMark, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """One row of the examples."""

    address: str
    prompt: str
    prompt_cut_characters: int
    wanted: str
    wanted_cut_characters: int
    replies: tuple[Reply, Reply]


def compare(sample: Sample) -> Comparison:
    """Mark the two replies of a row against the one that was wanted."""
    prompt, prompt_cut = _cut(sample.prompt)
    wanted, wanted_cut = _cut(sample.reference)
    return Comparison(
        address=sample.address,
        prompt=prompt,
        prompt_cut_characters=prompt_cut,
        wanted=wanted,
        wanted_cut_characters=wanted_cut,
        replies=(
            _reply("Before", sample.before, sample.reference),
            _reply("After", sample.after, sample.reference),
        ),
    )


def _reply(heading: str, text: str | None, reference: str) -> Reply:
    if text is None:
        return Reply(heading, "", 0, None, "not generated", ())
    shown_text, cut = _cut(text)
    wanted, found = _json_object(reference), _json_object(text)
    if wanted is not None and found is not None:
        marks = _field_marks(found, wanted)
        matching_fields = sum(mark.matches for mark in marks)
        matches = matching_fields == len(marks)
        verdict = "every field as wanted" if matches else f"{matching_fields} of {len(marks)} fields as wanted"
        return Reply(heading, shown_text, cut, matches, verdict, marks)
    matches = text.strip() == reference.strip()
    if wanted is not None:
        return Reply(heading, shown_text, cut, False, "not a JSON object", ())
    return Reply(heading, shown_text, cut, matches, "as wanted" if matches else "not as wanted", ())


def _field_marks(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[FieldMark, ...]:
    """A mark for each field of either side, the wanted ones first; a field nobody wanted does not match."""
    names = list(dict.fromkeys((*wanted, *found)))
    marks = []
    for name in names:
        found_text = _canonical(found[name]) if name in found else ""
        wanted_text = _canonical(wanted[name]) if name in wanted else ""
        marks.append(FieldMark(name, found_text == wanted_text, found_text, wanted_text))
    return tuple(marks)


def _canonical(value: Any) -> str:
    """JSON text: unlike Python's `==`, it tells true from 1."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _json_object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _cut(text: str) -> tuple[str, int]:
    return text[:LONGEST_TEXT], max(0, len(text) - LONGEST_TEXT)

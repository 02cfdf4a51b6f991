"""Replies of two models, their pairs, and verdicts on them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tutelage.evaluate.pairwise.pairs import Answered, Pairing, Replies, Side, pair_replies
from tutelage.evaluate.pairwise.verdicts import Choice, Kind, Verdict, VerdictFile
from tutelage.types import Message


def replies(name: str, *texts: str, first: int = 0) -> Replies:
    """A reply to question `first` and each one after it."""
    rows = [
        Answered(f"{name}:{number}", (Message("user", f"question {number}"),), text)
        for number, text in enumerate(texts, start=first)
    ]
    return Replies(name, tuple(rows))


def pairing(count: int, *, seed: int = 0) -> Pairing:
    """So many pairs; B's replies are the longer ones."""
    a = replies("old", *(f"short {number}" for number in range(count)))
    b = replies("new", *(f"a longer one {number}" for number in range(count)))
    return pair_replies(a, b, seed=seed)


def said(file: VerdictFile, pair: str, choice: Choice, *, rater: str = "anna", kind: Kind = "person",
         left: Side = "a") -> None:  # fmt: skip
    """Add a verdict to the file."""
    file.append(Verdict(pair=pair, kind=kind, rater=rater, left=left, choice=choice))


def judged(file: VerdictFile, pair: str, with_a_first: Choice, with_b_first: Choice, *, model: str = "m") -> None:
    """Add a judge's verdicts in both orders."""
    said(file, pair, with_a_first, rater=model, kind="judge", left="a")
    said(file, pair, with_b_first, rater=model, kind="judge", left="b")


def write_rows(path: Path, rows: Iterable[dict[str, object]]) -> Path:
    """Write JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path

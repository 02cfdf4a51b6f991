"""Where TRL's masks differ from the proven ones, counted by the kind of difference.

    python -m benchmarks.masks.trl_compare runs/masks/kept.jsonl runs/masks/trl.jsonl

Both sides are compared as ids. A turn *stands* in TRL's sequence when that begins with the ids of the served prompt
followed by the ids of the reply.
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Difference:
    """One pair in one of TRL's modes: every kind of difference that was seen; none means equal."""

    template: str
    case: str
    mode: str
    kinds: tuple[str, ...]


def comparison(kept: Path, trl: Path) -> str:
    """A section of the report."""
    ours = {(line["template"], line["case"]): line for line in _lines(kept)}
    found = []
    for line in _lines(trl):
        if (mine := ours.get((line["template"], line["case"]))) is not None:
            kinds = tuple(dict.fromkeys(differences(mine, line)))
            found.append(Difference(line["template"], line["case"], line["mode"], kinds))
    lines = [
        "",
        "## TRL on the same pairs (first vocabulary, default setting)",
        "",
        "`assistant` is assistant_only_loss on messages, `completion` a prompt with the last turn as its completion.",
        "A pair may show several differences.",
        "",
    ]
    for mode in sorted({one.mode for one in found}):
        lines += _section(mode, [one for one in found if one.mode == mode], ours)
    return "\n".join(lines) + "\n"


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)


def _section(mode: str, some: Sequence[Difference], ours: dict[tuple[str, str], dict[str, Any]]) -> list[str]:
    proven = [one for one in some if ours[one.template, one.case]["verdict"] == "proven"]
    dropped = [one for one in some if ours[one.template, one.case]["verdict"] != "proven"]
    lines = [f"### {mode}", "", f"Of {len(proven)} pairs that tutelage proves:", ""]
    lines += _table(proven)
    lines += [f"Of {len(dropped)} pairs that tutelage drops:", ""]
    return [*lines, *_table(dropped)]


def _table(some: Sequence[Difference]) -> list[str]:
    groups: dict[str, list[Difference]] = defaultdict(list)
    for one in some:
        for kind in one.kinds or ("equal",):
            groups[kind].append(one)
    lines = ["| TRL | pairs | templates | for example |", "|---|--:|--:|---|"]
    for kind, found in sorted(groups.items(), key=lambda item: -len(item[1])):
        names = Counter(one.template for one in found)
        shown = "; ".join(f"{one.template} / {one.case}" for one in list({d.template: d for d in found}.values())[:3])
        lines.append(f"| {kind} | {len(found)} | {len(names)} | {shown} |")
    return [*lines, ""]


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> Iterator[str]:
    """Kinds of difference between the proven turns and TRL's sequence."""
    if "refused" in theirs:
        yield "refuses: " + _short(theirs["refused"])
        return
    ids, trained = theirs["ids"], set(theirs["trained"])
    turns = ours["turns"]
    if theirs["mode"] == "completion":
        last = max((message for message, _, _ in turns), default=None)
        turns = [turn for turn in turns if turn[0] == last]
    if not turns:
        yield "trains a row that tutelage drops" if trained else "trains nothing"
        return
    expected: set[int] = set()
    astray = 0
    for _, prompt, reply in turns:
        start, end = len(prompt), len(prompt) + len(reply)
        if ids[:end] == [*prompt, *reply]:
            expected |= set(range(start, end))
            yield from _missing(range(start, end), trained)
        else:
            astray += 1
            yield _why_astray(ids, prompt, reply)
    if astray:
        return  # where a turn does not stand, what is trained beside the others cannot be told apart
    yield from _extra(trained - expected, turns)


def _missing(span: range, trained: set[int]) -> Iterator[str]:
    left = [one for one in span if one not in trained]
    if len(left) == len(span):
        yield "does not train a turn"
    elif left == [span[-1]]:
        yield "does not train the stop token"
    elif left:
        yield "leaves out part of a reply"


def _why_astray(ids: list[int], prompt: list[int], reply: list[int]) -> str:
    if ids[: len(prompt)] != prompt:
        return "trains a turn on a context that no server feeds"
    if ids[len(prompt) : len(prompt) + len(reply) - 1] == reply[:-1]:
        return "has no stop token after a reply"
    return "trains another text or other ids as the reply"


def _extra(extra: set[int], turns: Sequence[Sequence[Any]]) -> Iterator[str]:
    ends = {len(prompt) + len(reply) for _, prompt, reply in turns}
    starts = {len(prompt) for _, prompt, _ in turns}
    after, before, other = 0, 0, 0
    for position in sorted(extra):
        if position in ends or (position - 1 in extra and position not in starts and _follows(position, extra, ends)):
            after += 1
        elif any(all(index in extra for index in range(position, start)) for start in starts if start > position):
            before += 1
        else:
            other += 1
    if after:
        yield "trains what follows the stop token"
    if before:
        yield "trains the end of the prompt (the header of the turn)"
    if other:
        yield "trains text of other turns"


def _follows(position: int, extra: set[int], ends: set[int]) -> bool:
    """Whether an unbroken run leads from a reply's end to this position."""
    while position in extra:
        if position in ends:
            return True
        position -= 1
    return False


def _short(text: str) -> str:
    return " ".join(text.split())[:110].replace("|", "/")


if __name__ == "__main__":
    print(comparison(Path(sys.argv[1]), Path(sys.argv[2])))

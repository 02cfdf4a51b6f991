"""Which share of damage done to real replies the rules of quality find, and how often they find something without it.

    python benchmarks/curate/damage.py --data FILE [FILE ...] --rows 2000 --seed 1

Of each file as many rows are drawn, and the last reply of each is damaged in one way at a time: cut behind a word, a
bracket taken out of JSON, a sentence said over and over, put in another language, the end of a block of code taken out.
A rule is asked of the damaged reply, and of the same reply as it was. Nothing is written but the table.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from tutelage.config.curation_quality import QualitySettings
from tutelage.curate.quality.rule import RowTexts
from tutelage.curate.quality.rules import RULES
from tutelage.formats import read
from tutelage.ledger import Ledger
from tutelage.types import Conversation

TEXTS = Path(__file__).resolve().parents[2] / "datasets/texts"
LANGUAGES = ("french", "german", "spanish")
LEAST_WORDS = 20
"""Of a reply that is damaged: in a shorter one a cut may leave a whole answer."""

Damage = Callable[[str, random.Random], str | None]
"""The damaged reply; None where a reply cannot be damaged in this way."""


@dataclass(frozen=True)
class Planted:
    """One kind of damage, and which rule is to find it, with which settings."""

    name: str
    rule: str
    damage: Damage
    settings: dict[str, object]
    undamaged: Callable[[str], str] = lambda reply: reply


def cut(reply: str, draw: random.Random) -> str | None:
    """The reply up to a word in its last two thirds; not where a sentence ends there."""
    words = list(re.finditer(r"\S+", reply))
    if len(words) < LEAST_WORDS:
        return None
    place = draw.randrange(len(words) // 3, len(words) - 1)
    kept = reply[: words[place].end()]
    return None if re.search(r"[.!?:;。！？][\"')*]*\Z", kept) else kept


def as_json(reply: str) -> str:
    """JSON that holds the reply, line by line."""
    lines = [{"line": number, "text": line} for number, line in enumerate(reply.split("\n")[:20])]
    return json.dumps({"reply": lines, "count": len(lines)}, ensure_ascii=False, indent=1)


def without_bracket(reply: str, draw: random.Random) -> str | None:
    """The JSON without one of its own brackets."""
    text = as_json(reply)
    outside = [match.start(1) for match in re.finditer(r'"(?:[^"\\]|\\.)*"|([\[\]{}])', text) if match.group(1)]
    place = draw.choice(outside[1:])  # without the first it does not begin as JSON
    return text[:place] + text[place + 1 :]


def repeated(reply: str, draw: random.Random) -> str | None:
    """The reply with one of its sentences 8 to 20 times more at the end."""
    sentences = [piece for piece in re.split(r"(?<=[.!?])\s+", reply) if 5 <= len(piece.split()) <= 30]
    return f"{reply} {' '.join([draw.choice(sentences)] * draw.randint(8, 20))}" if sentences else None


def translated(reply: str, draw: random.Random) -> str | None:
    """Sentences of another language."""
    if len(reply.split()) < LEAST_WORDS:
        return None
    text = (TEXTS / f"{draw.choice(LANGUAGES)}.txt").read_text(encoding="utf-8")
    sentences = re.split(r"(?<=[.!?])\s+", text)
    first = draw.randrange(len(sentences) - 2)
    return " ".join(sentences[first : first + 3])


def without_fence(reply: str, _: random.Random) -> str | None:
    """The reply without the end of its last block of code, and what follows."""
    fences = list(re.finditer(r"^```", reply, re.MULTILINE))
    return reply[: fences[-1].start()] if len(fences) >= 2 and len(fences) % 2 == 0 else None


PLANTED = (
    Planted("cut behind a word", "cut", cut, {}),
    Planted("cut, missing_full_stop", "cut", cut, {"missing_full_stop": True}),
    Planted("bracket taken out", "bad_json_in_reply", without_bracket, {}, as_json),
    Planted("sentence repeated", "repetition", repeated, {}),
    Planted("other language, languages", "language", translated, {"languages": ["en"]}),
    Planted("other language, as_prompt", "language", translated, {"as_prompt": True}),
    Planted("fence taken out", "code_fences", without_fence, {}),
)


def drawn(paths: list[Path], rows: int, seed: int, columns: dict[str, str]) -> Iterator[Conversation]:
    """Rows with a reply, as many of each file."""
    for path in paths:
        of_file = [row for row in read([str(path)], ledger=Ledger(), columns=columns) if reply_of(row)]
        random.Random(seed).shuffle(of_file)
        yield from of_file[:rows]


def reply_of(row: Conversation) -> str:
    """What the last turn says, if it is a reply."""
    last = row.messages[-1]
    return (last.content or "") if last.role == "assistant" else ""


def with_reply(row: Conversation, reply: str) -> RowTexts:
    """The row with another last reply."""
    *before, last = row.messages
    return RowTexts(replace(row, messages=(*before, replace(last, content=reply))))


def measure(planted: Planted, rows: list[Conversation], seed: int) -> tuple[int, int, int]:
    """How many replies were damaged, how many of them were found, and how many are found undamaged."""
    (definition,) = (definition for definition in RULES if definition.name == planted.rule)
    rule = definition.build(type(getattr(QualitySettings(), planted.rule))(**planted.settings))
    draw, count, found, alarms = random.Random(seed), 0, 0, 0
    for row in rows:
        damaged = planted.damage(reply_of(row), draw)
        if damaged is not None:
            count += 1
            found += rule(with_reply(row, damaged)) is not None
            alarms += rule(with_reply(row, planted.undamaged(reply_of(row)))) is not None
    return count, found, alarms


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--columns", nargs="*", default=[], help="prompt=KEY response=KEY")
    parser.add_argument("--rows", type=int, default=2000, help="most rows of a file")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    columns = dict(pair.split("=", 1) for pair in asked.columns)
    rows = list(drawn(asked.data, asked.rows, asked.seed, columns))
    print(f"{len(rows):,} rows of {len(asked.data)} files, seed {asked.seed}")
    print(f"{'damage':28}{'planted':>9}{'found':>9}{'share':>9}{'found undamaged':>18}")
    for planted in PLANTED:
        count, found, alarms = measure(planted, rows, asked.seed)
        share = f"{found / count:.1%}" if count else ""
        print(f"{planted.name:28}{count:>9,}{found:>9,}{share:>9}{alarms:>18,}")


if __name__ == "__main__":
    main()

"""Rows of which it is known what each is: fresh ones made of published texts, planted copies, contamination and traps.

    python benchmarks/curate/rows.py --material FOLDER --rows 20000 --seed 1 OUT

OUT/rows.jsonl has a row a line, OUT/labels.jsonl what that row is: its kind, and the number of the row it was made of.
The same seed makes the same bytes. A row that was made of another one always comes after it. Near-copies are kept only
where their Jaccard similarity to the original is at least 0.8 by the definition (runs of five words, both sides, and at
least 0.5 on each); what is called fresh shares single sentences with others and no more.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TRAINING = ("gsm8k_train.jsonl", "flan_cot_aqua.tsv", "flan_cot_qasc.tsv", "flan_cot_sensemaking.tsv")
EVALUATIONS = (
    "gsm8k_test.jsonl",
    "fastchat_mt_bench_question.jsonl",
    "ifeval_input_data.jsonl",
    "arenahard_question.jsonl",
)
SHARES = {
    "exact": 0.08,
    "spaced": 0.04,
    "near": 0.10,
    "contaminated": 0.02,
    "contaminated_reply": 0.005,
    "contaminated_short": 0.002,
    "paraphrased": 0.003,
    "empty_reply": 0.01,
    "repetition": 0.01,
    "refusal": 0.01,
    "mojibake": 0.01,
    "end_token": 0.01,
    "cut_reply": 0.01,
    "trap_template": 0.05,
    "trap_prompt": 0.05,
    "trap_language": 0.02,
    "trap_first_turns": 0.03,
}
"""What share of the rows is of each kind; the others are fresh."""
COPIES = ("exact", "spaced", "near")
CONTAMINATED = ("contaminated", "contaminated_reply", "contaminated_short")
TRAPS = ("trap_template", "trap_prompt", "trap_language", "trap_first_turns")
NOISE = ("empty_reply", "repetition", "refusal", "mojibake", "end_token", "cut_reply")
SHORT_QUESTIONS = ("Which river is the longest?", "Who invented the telephone?", "What does a cow drink?")
TEMPLATES = 20
RECENT = 50_000
"""Fresh rows that copies are made of."""

Turns = list[tuple[str, str]]


@dataclass
class Material:
    """Sentences for fresh rows, in their order, and questions of evaluation sets, of eight words or more."""

    sentences: list[str]
    questions: list[str]


def material(folder: Path) -> Material:
    """Read the published files."""
    texts = []
    for name in TRAINING:
        for line in (folder / name).read_text(encoding="utf-8").split("\n"):
            if line:
                fields = json.loads(line).values() if name.endswith("jsonl") else line.split("\t")
                texts += [field.replace("\\n", " ") for field in fields]
    pieces = (piece.strip() for text in texts for piece in re.split(r"(?<=[.?!])\s+", text))
    evaluated = {run for name in EVALUATIONS for text in _texts(folder / name) for run in _runs(text, 8)}
    fit = (piece for piece in pieces if 6 <= len(piece.split()) <= 40 and evaluated.isdisjoint(_runs(piece, 8)))
    sentences = list(dict.fromkeys(fit))
    return Material(sentences, [text for name in EVALUATIONS for text in _questions(folder / name)])


def _texts(path: Path) -> Iterator[str]:
    """All texts of an evaluation set: sentences that it shares with the training file would be contamination, too."""
    for line in path.read_text(encoding="utf-8").split("\n"):
        if line:
            yield from (value for value in json.loads(line).values() if isinstance(value, str))


def _runs(text: str, width: int) -> set[tuple[str, ...]]:
    of_text = words(text)
    return {tuple(of_text[start : start + width]) for start in range(len(of_text) - width + 1)}


def _questions(path: Path) -> Iterator[str]:
    for line in path.read_text(encoding="utf-8").split("\n"):
        if line:
            row = json.loads(line)
            turns = row.get("turns") or [row.get("prompt") or row.get("question")]
            text = turns[0]["content"] if isinstance(turns[0], dict) else turns[0]
            if 8 <= len(words(text)) <= 150:
                yield text


def words(text: str) -> list[str]:
    """Runs of word characters, in lower case."""
    return re.findall(r"\w+", text.lower())


def shingles(text: str) -> set[tuple[str, ...]]:
    """Runs of five words; all of them where there are fewer."""
    of_text = words(text)
    return {tuple(of_text[start : start + 5]) for start in range(max(1, len(of_text) - 4))} if of_text else set()


def is_near(first: Turns, second: Turns) -> bool:
    """Whether two rows of two turns are near-duplicates by the definition."""
    sides = [(shingles(first[turn][1]), shingles(second[turn][1])) for turn in (0, 1)]
    shared, total = [len(a & b) for a, b in sides], [len(a | b) for a, b in sides]
    return sum(shared) >= 0.8 * sum(total) and all(a >= 0.5 * b for a, b in zip(shared, total, strict=True))


class RowMaker:
    """Makes rows of each kind."""

    def __init__(self, source: Material, seed: int) -> None:
        self.random = random.Random(seed)
        self.source = source
        self.templates = [" ".join(self.pick(6)) for _ in range(TEMPLATES)]
        self.fresh_rows: list[tuple[int, Turns]] = []
        self.number = 0

    def pick(self, count: int) -> list[str]:
        """Some sentences."""
        return self.random.choices(self.source.sentences, k=count)

    def fresh(self) -> Turns:
        """A row of its own."""
        prompt, reply = self.pick(self.random.randint(2, 5)), self.pick(self.random.randint(2, 7))
        return [("user", " ".join(prompt)), ("assistant", " ".join(reply))]

    def make(self, kind: str) -> tuple[Turns, int | None]:
        """A row of a kind, and the number of the row it was made of."""
        if kind == "fresh":
            return self.fresh(), None
        return getattr(self, f"_{kind}")()

    def _original(self) -> tuple[int, Turns]:
        return self.random.choice(self.fresh_rows)

    def _exact(self) -> tuple[Turns, int]:
        number, turns = self._original()
        return turns, number

    def _spaced(self) -> tuple[Turns, int]:
        number, turns = self._original()
        return [(role, text.replace(". ", ".\n ") + " ") for role, text in turns], number

    def _near(self) -> tuple[Turns, int]:
        while True:
            number, turns = self._original()
            copy = [(role, self._edited(text)) for role, text in turns]
            if copy != turns and is_near(turns, copy):
                return copy, number

    def _edited(self, text: str) -> str:
        pieces = text.split(" ")
        for _ in range(self.random.randint(0, max(1, len(pieces) // 40))):
            place = self.random.randrange(len(pieces))
            other = self.random.choice(self.random.choice(self.source.sentences).split(" "))
            pieces[place : place + self.random.randint(0, 1)] = [other]
        return " ".join(pieces)

    def _asked(self) -> str:
        return self.random.choice(self.source.questions)

    def _contaminated(self) -> tuple[Turns, None]:
        prompt, reply = self.fresh()
        before, after = self.random.choice((("", ""), (f"{self.pick(1)[0]} ", ""), ("", f" {self.pick(1)[0]}")))
        return [(prompt[0], f"{before}{self._asked()}{after}"), reply], None

    def _contaminated_reply(self) -> tuple[Turns, None]:
        prompt, reply = self.fresh()
        return [prompt, (reply[0], f"{self.pick(1)[0]} {self._asked().upper()}")], None

    def _contaminated_short(self) -> tuple[Turns, None]:
        return [("user", self.random.choice(SHORT_QUESTIONS)), self.fresh()[1]], None

    def _paraphrased(self) -> tuple[Turns, None]:
        pieces = self._asked().split(" ")
        for place in range(2, len(pieces), 4):
            pieces[place] = self.random.choice(self.random.choice(self.source.sentences).split(" "))
        return [("user", " ".join(pieces)), self.fresh()[1]], None

    def _empty_reply(self) -> tuple[Turns, None]:
        return [self.fresh()[0], ("assistant", self.random.choice((".", "...", "N/A")))], None

    def _repetition(self) -> tuple[Turns, None]:
        return [self.fresh()[0], ("assistant", " ".join(self.pick(1) * self.random.randint(6, 15)))], None

    def _refusal(self) -> tuple[Turns, None]:
        return [self.fresh()[0], ("assistant", "I'm sorry, but as an AI language model I cannot help with that.")], None

    def _mojibake(self) -> tuple[Turns, None]:
        prompt, (role, text) = self.fresh()
        return [prompt, (role, f"“{text}” – that’s it".encode().decode("cp1252", "replace"))], None

    def _end_token(self) -> tuple[Turns, None]:
        prompt, (role, text) = self.fresh()
        return [prompt, (role, f"{text}<|endoftext|>")], None

    def _cut_reply(self) -> tuple[Turns, None]:
        prompt, (role, text) = self.fresh()
        pieces = text.split(" ")
        return [prompt, (role, " ".join(pieces[: max(4, len(pieces) * 2 // 3)]).rstrip(".?!"))], None

    def _trap_template(self) -> tuple[Turns, None]:
        content = " ".join(self.pick(1)[0].split()[:8])
        return [
            ("user", f"{self.random.choice(self.templates)} {content} {self.number}"),
            ("assistant", self.pick(1)[0]),
        ], None

    def _trap_prompt(self) -> tuple[Turns, int]:
        number, turns = self._original()
        return [turns[0], self.fresh()[1]], number

    def _trap_language(self) -> tuple[Turns, None]:
        cost, count = self.random.randint(2, 9_999), self.random.randint(2, 9_999)
        said = self.random.choice(
            (
                ("A shop sells {0} boxes for {1} dollars. How much is one box?", "Divide {1} by {0}, and you have it."),
                (
                    "Ein Laden verkauft {0} Kisten für {1} Euro. Was kostet eine Kiste?",
                    "Teile {1} durch {0}, das ist es.",
                ),
                ("Un magasin vend {0} boîtes pour {1} euros. Combien coûte une boîte ?", "Divisez {1} par {0}."),
            )
        )
        prompt, reply = (text.format(count, cost) for text in said)
        return [("user", prompt), ("assistant", reply)], None

    def _trap_first_turns(self) -> tuple[Turns, int]:
        number, turns = self._original()
        return [*turns, *self.fresh(), *self.fresh()], number


def kinds_of(rows: int, shuffled: random.Random) -> list[str]:
    """The kind of each row: the first tenth is fresh, so that there is something to copy."""
    first = rows // 10
    kinds = [kind for kind, share in SHARES.items() for _ in range(int(share * rows))]
    kinds += ["fresh"] * (rows - first - len(kinds))
    shuffled.shuffle(kinds)
    return ["fresh"] * first + kinds


def write(folder: Path, rows: int, seed: int, out: Path) -> Counter[str]:
    """Write the rows, their labels, and the short questions as an evaluation set; how many there are of each kind."""
    out.mkdir(parents=True, exist_ok=True)
    maker = RowMaker(material(folder), seed)
    kinds = kinds_of(rows, random.Random(seed + 1))
    with (
        (out / "rows.jsonl").open("w", encoding="utf-8") as data,
        (out / "labels.jsonl").open("w", encoding="utf-8") as labels,
    ):
        for number, kind in enumerate(kinds):
            maker.number = number
            turns, origin = maker.make(kind)
            if kind == "fresh" and len(maker.fresh_rows) < RECENT:
                maker.fresh_rows.append((number, turns))
            messages = [{"role": role, "content": text} for role, text in turns]
            data.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
            labels.write(json.dumps({"row": number, "kind": kind, "of": origin}) + "\n")
    short = out / "short_questions.jsonl"
    short.write_text("".join(json.dumps({"question": text}) + "\n" for text in SHORT_QUESTIONS), encoding="utf-8")
    return Counter(kinds)


def read_labels(path: Path) -> list[dict[str, Any]]:
    """What each row is."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    """Write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--material", type=Path, required=True, help="folder with the published files")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    for kind, count in write(asked.material, asked.rows, asked.seed, asked.out).most_common():
        print(f"{kind:20} {count:>9,}")


if __name__ == "__main__":
    main()

"""Replies for IFEval's rows: built to follow all instructions of a row, just not to, or whatever they ask.

They are built from what an instruction asks, not from how it is checked, so that a check can be wrong about them.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

TEXTS: dict[str, list[str]] = tomllib.loads((Path(__file__).parent / "texts.toml").read_text(encoding="utf-8"))
SENTENCE_COUNTS = (*range(8), 10, 12, 16, 20, 25, 30, 32, 45, 55, 60, 80, 101, 140)
SHORT_SENTENCES = ("We go.", "I know.", "You do.", "So we go.")

Row = Sequence[tuple[str, Mapping[str, Any]]]
"""Names of instructions, each with its arguments; some rows have one name twice."""

ANY_ROW = {
    "nothing": "",
    "white space": " \n\t \n",
    "unicode": "Ünïcödé — naïve café 😀 “quoted” 東京 Ωmega a\u0301 \u200bend.",
    "digits": "12345 67890 🎉",
    "markdown": "# Plan\n\n* **First** step: read.\n* **Second** step: write, then rest.\n\n---\n\n1. Wash\n2. Dry\n\n"
    "Use `code`, [a link](b) and *care*.\n\n- [ ] open\n- [x] done\n\n***Very*** good.",
    "titles": "Dr. Smith met Mrs. Jones at 5 p.m. in the U.S. and paid 3.50 dollars. Wait... what? "
    '"Yes!" she said. e.g. this',
    "capitals": "NASA AND THE UN MET AT NOON. IT'S OK, I GUESS. DON'T PANIC: U.S. OFFICIALS ARE ON THE WAY TO BERLIN.",
    "small letters": "we met at noon. it's fine, i guess. don't panic: help is on the way to the old bridge.",
    "paragraphs": "First part.\n\n\n\nSecond part.\n\nThird part.\n\n***\n\nFourth part.",
    "nested JSON": '```JSON\n{"sections": [1, 2, {"a": null}]}\n```',
    "a number": "42",
    "curly quotes": "“My answer is yes.”",
    "postscripts": "Thank you.\nP.S. One more thing.\nP.P.S Another.\n<<Title>> [name] [] [ ] [[x]]",
    "a second postscript": "Thank you.\nP.P.S. Another.",
    "asterisks": "A ***bold italic*** word ****** and *one* more\n******\n* * *\n** two **\n*a\nb*",
    "scripts": "नमस्ते मेरे दोस्त। आप कैसे हैं۔ 你好。再见！ اب، 東京、大阪，横浜",
    "not a number": "NaN",
    "pluses": "+ one point\n+ another\n+ a third",
    "contractions": "DON'T",
    "thinking": "<think>\nHm, *no* idea.\n</think>\nyes",
    "long": "The same line again and again.\n" * 120,
}  # fmt: skip
"""Replies that are given to every row."""


def following(row: Row) -> Iterator[str]:
    """Replies that should follow all instructions of a row, the shortest first; a caller takes the first that does."""
    pool = _pool(row)
    for sentences in (pool, list(SHORT_SENTENCES), [text.rstrip(".।۔") for text in pool]):
        for count in SENTENCE_COUNTS:
            yield _reply(row, count, sentences)


def near_misses(row: Row) -> Iterator[Row]:
    """Rows with one argument changed: replies to them are near those that the row itself asks for."""
    for at, (name, arguments) in enumerate(row):
        for key, value in arguments.items():
            for changed in _changed(key, value, lowest=arguments.get("nth_paragraph", 1)):
                yield [*row[:at], (name, {**arguments, key: changed}), *row[at + 1 :]]
        yield [*row[:at], *row[at + 1 :]]


def _changed(key: str, value: Any, *, lowest: int) -> list[Any]:
    if key.endswith("relation"):
        return ["less than" if value == "at least" else "at least"]
    if isinstance(value, int):
        return [] if key == "nth_paragraph" else [value + 1, *([value - 1] if value > lowest else [])]
    if isinstance(value, list):
        return [[*value, "hippopotamus"], value[:-1] or ["hippopotamus"]]
    return ["es"] if key == "language" else [value[:-1] or "x"]


def _arguments(row: Row, name: str) -> Mapping[str, Any] | None:
    return next((arguments for own, arguments in row if own == name), None)


def _pool(row: Row) -> list[str]:
    """Sentences in the row's language without what it forbids."""
    unwanted: list[str] = []
    for name, arguments in row:
        unwanted += arguments.get("forbidden_words", ())
        if name == "keywords:frequency" and arguments["relation"] == "less than":
            unwanted.append(arguments["keyword"])
        if name == "keywords:letter_frequency" and arguments["let_relation"] == "less than":
            unwanted.append(arguments["letter"])
    language = (_arguments(row, "language:response_language") or {"language": "en"})["language"]
    kept = [text for text in TEXTS[language] if not any(word.lower() in text.lower() for word in unwanted)]
    return kept or ["Why?" if "o" in unwanted else "So do I."]


def _reply(row: Row, sentences: int, pool: Sequence[str]) -> str:
    names = {name for name, _ in row}
    if "detectable_format:constrained_response" in names:
        return "My answer is maybe."
    lines = [*_extras(row), " ".join(islice(cycle(pool), sentences))]
    text = _divided(row, "\n".join(line for line in lines if line), pool)
    if (arguments := _arguments(row, "combination:repeat_prompt")) is not None:
        text = f"{arguments['prompt_to_repeat']}\n{text}"
    if "combination:two_responses" in names:
        text = f"{text}\n******\n{text} {pool[-1]}"
    text += "".join(f"\n{tail}" for tail in _tails(row))
    return _wrapped(row, text)


def _extras(row: Row) -> Iterator[str]:
    for name, arguments in row:
        match name:
            case "keywords:existence":
                yield " ".join(arguments["keywords"])
            case "keywords:frequency" if arguments["relation"] == "at least":
                yield " ".join([arguments["keyword"]] * arguments["frequency"])
            case "keywords:letter_frequency" if arguments["let_relation"] == "at least":
                yield arguments["letter"] * arguments["let_frequency"]
            case "change_case:capital_word_frequency" if arguments["capital_relation"] == "at least":
                yield " ".join(["NOTE"] * arguments["capital_frequency"])
            case "detectable_content:number_placeholders":
                yield " ".join(f"[place {at}]" for at in range(arguments["num_placeholders"]))
            case "detectable_format:number_highlighted_sections":
                yield " and ".join(["*this part*"] * arguments["num_highlights"])
            case "detectable_format:number_bullet_lists":
                yield "\n".join(["* a point"] * arguments["num_bullets"])
            case "detectable_format:multiple_sections":
                yield "\n".join(f"{arguments['section_spliter']} {at + 1}" for at in range(arguments["num_sections"]))
            case "detectable_format:title":
                yield "<<The old bridge>>"


def _divided(row: Row, text: str, pool: Sequence[str]) -> str:
    short = pool[0]
    if (arguments := _arguments(row, "length_constraints:number_paragraphs")) is not None:
        return "\n***\n".join([text or short, *[short] * (arguments["num_paragraphs"] - 1)])
    if (arguments := _arguments(row, "length_constraints:nth_paragraph_first_word")) is not None:
        paragraphs = [text or short, *[short] * (arguments["num_paragraphs"] - 1)]
        at = arguments["nth_paragraph"] - 1
        paragraphs[at] = f"{arguments['first_word']} {paragraphs[at]}"
        return "\n\n".join(paragraphs)
    return text


def _tails(row: Row) -> Iterator[str]:
    if (arguments := _arguments(row, "detectable_content:postscript")) is not None:
        yield f"{arguments['postscript_marker']} Thanks"
    if (arguments := _arguments(row, "startend:end_checker")) is not None:
        yield arguments["end_phrase"]


def _wrapped(row: Row, text: str) -> str:
    names = {name for name, _ in row}
    if "change_case:english_capital" in names:
        text = text.upper()
    if "change_case:english_lowercase" in names:
        text = text.lower()
    if "detectable_format:json_format" in names:
        return json.dumps({"answer": text}, ensure_ascii=False)
    return f'"\n{text}"' if "startend:quotation" in names else text

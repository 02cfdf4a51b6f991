"""The verb of an instruction and what it is done to, by rule: what Self-Instruct's figure of diversity is made of.

English alone. No parser is asked, as those that are kept come without a model that a package registry has; how often
the rule agrees with one is measured by `benchmarks/synthesize/root_verbs.py`. Source: Wang et al. 2022, figure 3: the
verb closest to the root of the parse tree, and its first direct noun object.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

WORDS_FILE = "root_verbs.toml"
_POLITE = re.compile(
    r"^\s*(?:please|kindly|can you|could you|would you|will you|i want you to|i need you to|i'd like you to|"
    r"you (?:need|have|are asked|are required|are expected|should|must|will)(?: to)?|your (?:task|job|goal) is to|"
    r"you are to|help me|try to|let's|now|then|first|next)\b[\s,]*",
    re.I,
)
_TOKEN = re.compile(r"[^\W_]+(?:['’.-][^\W_]+)*|[^\w\s]|_")
_WORD = re.compile(r"[^\W_]")
_OPENING = frozenset("\"'“‘<[(*`")
_PARTS = re.compile(r"(?<=[,:;.!?])\s+|\n+")


@dataclass(frozen=True, slots=True)
class RootVerb:
    """A verb in its base form and the head of its object, in small letters; an empty object is none."""

    verb: str
    object: str


@cache
def _words() -> Mapping[str, frozenset[str]]:
    table = tomllib.loads((files(__package__) / WORDS_FILE).read_text(encoding="utf-8"))
    return {name: frozenset(text.split()) for name, text in table.items()}


def root_verb(instruction: str) -> RootVerb | None:
    """The verb that an instruction begins with, behind words of courtesy or a clause, and the head of its object.

    None for a question, a statement, or what is not English.
    """
    for part in _PARTS.split(instruction.strip())[:4]:
        tokens = _TOKEN.findall(_without_courtesy(part))
        while tokens and (tokens[0].lower().endswith("ly") or not _WORD.match(tokens[0])):
            tokens = tokens[1:]
        if not tokens:
            continue
        verb = tokens[0].lower()
        if tokens[1:2] == [":"]:  # a heading
            continue
        if verb in _words()["questions"]:
            return None
        if verb in _words()["verbs"]:
            return RootVerb(verb, _object(tokens[1:]))
    return None


def _without_courtesy(part: str) -> str:
    while match := _POLITE.match(part):
        part = part[match.end() :]
    return part


def _object(tokens: Sequence[str]) -> str:
    """The last word of the first phrase of nouns: what stands before a preposition, a verb form or a mark."""
    words = _words()
    phrase: list[str] = []
    for token, following in zip(tokens, [*tokens[1:], "."], strict=True):
        word, next_word = token.lower(), following.lower()
        if not phrase and (word in words["before"] or word in words["determiners"] or token in _OPENING):
            continue
        ends = not _WORD.match(token) or word in words["ends"] or word in words["before"]
        ends |= word.endswith("ly") and (
            next_word in words["ends"] or not _WORD.match(next_word)
        )  # "solve it quickly."
        # "describing the", "associated with": what such a word begins belongs to the noun before it.
        opens = word.endswith("ing") and next_word in words["determiners"]
        opens |= word.endswith("ed") and next_word in words["ends"]
        if ends or (phrase and opens):
            break
        phrase.append(word)
    return _singular(phrase[-1]) if phrase and not phrase[-1].isdigit() else ""


def _singular(noun: str) -> str:
    if len(noun) <= 3 or noun.endswith(("ss", "us", "is", "as")) or noun in _words()["plural_alone"]:
        return noun
    if noun.endswith("ies"):
        return f"{noun[:-3]}y"
    if noun.endswith(("ches", "shes", "sses", "xes")):
        return noun[:-2]
    return noun[:-1] if noun.endswith("s") else noun


@dataclass(frozen=True, slots=True)
class VerbShare:
    """A verb with the rows that begin with it, and its commonest objects with theirs."""

    verb: str
    rows: int
    objects: tuple[tuple[str, int], ...]


def commonest(pairs: Iterable[RootVerb], *, verbs: int = 20, objects: int = 4) -> list[VerbShare]:
    """The commonest verbs with their commonest objects; of those with an object alone, as in the paper's figure.

    Args:
        pairs: of all instructions.
        verbs: so many of them.
        objects: so many of each. Source of both numbers: Wang et al. 2022, figure 3.
    """
    by_verb: dict[str, Counter[str]] = {}
    for pair in pairs:
        if pair.object:
            by_verb.setdefault(pair.verb, Counter())[pair.object] += 1
    shares = [
        VerbShare(verb, found.total(), tuple(sorted(found.items(), key=lambda item: (-item[1], item[0]))[:objects]))
        for verb, found in by_verb.items()
    ]
    return sorted(shares, key=lambda share: (-share.rows, share.verb))[:verbs]

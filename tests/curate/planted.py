"""Rows with near-copies planted among them, and the similarity of two rows by its definition."""

from __future__ import annotations

import random
from collections.abc import Sequence

from tutelage.curate.shingles import shingle_sets
from tutelage.curate.word_hashes import Ragged, numbered_words

VOWELS, CONSONANTS = "aeiou", "bcdfghklmnprstvz"


def vocabulary(generator: random.Random, size: int) -> list[str]:
    """Made-up words of two or three syllables."""
    syllables = [consonant + vowel for consonant in CONSONANTS for vowel in VOWELS]
    return ["".join(generator.choices(syllables, k=generator.choice((2, 3)))) for _ in range(size)]


def edited(generator: random.Random, text: Sequence[str], words: Sequence[str], edits: int) -> list[str]:
    """The text with some words replaced, put in or taken out."""
    copy = list(text)
    for _ in range(edits):
        place = generator.randrange(len(copy))
        match generator.choice(("replace", "insert", "delete")):
            case "replace":
                copy[place] = generator.choice(words)
            case "insert":
                copy.insert(place, generator.choice(words))
            case "delete" if len(copy) > 1:
                del copy[place]
    return copy


def planted_rows(seed: int, originals: int) -> tuple[list[list[str]], list[list[str]]]:
    """Prompts and replies as words: originals and up to four near-copies of each, in any order.

    A near-copy has up to one edit in its prompt and two in its reply.
    """
    generator = random.Random(seed)
    words = vocabulary(generator, 3000)
    prompts, replies = [], []
    for _ in range(originals):
        prompt = generator.choices(words, k=generator.randint(3, 80))
        reply = generator.choices(words, k=generator.randint(3, 120))
        prompts.append(prompt)
        replies.append(reply)
        for _ in range(generator.choice((0, 1, 1, 2, 4))):
            prompts.append(edited(generator, prompt, words, generator.choice((0, 0, 1))))
            replies.append(edited(generator, reply, words, generator.randint(0, 2)))
    order = generator.sample(range(len(prompts)), len(prompts))
    return [prompts[row] for row in order], [replies[row] for row in order]


def sets_of_words(prompts: Sequence[Sequence[str]], replies: Sequence[Sequence[str]]) -> Ragged:
    """The shingles of rows that are given as words."""
    sides = (numbered_words([" ".join(words) for words in side]) for side in (prompts, replies))
    return shingle_sets(*sides)


def shingles(words: Sequence[str]) -> set[tuple[str, ...]]:
    """Runs of five words; all words of a shorter text."""
    return {tuple(words[start : start + 5]) for start in range(max(1, len(words) - 4))} if words else set()

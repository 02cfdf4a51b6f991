"""A model of tests: it answers in the asked form, with new instructions each time, by what it is asked alone."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

VERBS = [
    "name",
    "list",
    "explain",
    "translate",
    "rewrite",
    "count",
    "compare",
    "describe",
    "sort",
    "judge",
    "plan",
    "shorten",
    "invent",
    "answer",
    "find",
]
THINGS = [
    "river",
    "teapot",
    "lawyer",
    "sentence",
    "poem",
    "prime",
    "planet",
    "recipe",
    "letter",
    "song",
    "verb",
    "island",
    "castle",
    "garden",
    "market",
]


def good_reply(body: dict[str, Any]) -> str:
    """What a well-behaved model says to a request."""
    prompt = body["messages"][-1]["content"]
    digest = hashlib.sha256(prompt.encode()).hexdigest()
    if "yes or no" in prompt:
        return "Yes." if int(digest[0], 16) % 2 else "no"
    if asked := re.search(r"Go on with the numbers (\d+) to (\d+)", prompt):
        numbers = range(int(asked[1]), int(asked[2]) + 1)
        return "\n".join(f"{number}. Instruction: {_instruction(digest, number)}\n###" for number in numbers)
    if asked := re.search(r"with the numbers 1 to (\d+)", prompt):
        return "Sure!\n\n" + "\n".join(_triple(digest, number) for number in range(1, int(asked[1]) + 1))
    parts = ["Output", "Input"] if "First the label" in prompt else ["Input", "Output"]
    return "\n".join(
        "\n".join([*(f"{number}. {part}: {part.lower()} {digest[number : number + 9]}" for part in parts), "###"])
        for number in (1, 2)
    )


def _triple(digest: str, number: int) -> str:
    given = "<none>" if number % 3 else f"material {digest[number:20]}"
    instruction = _instruction(digest, number)
    return f"{number}. Instruction: {instruction}\n{number}. Input: {given}\n{number}. Output: It costs 20.5.\n###"


def _instruction(digest: str, number: int) -> str:
    words = _words(hashlib.sha256(f"{digest} {number}".encode()).digest())
    return f"{words[0].capitalize()} " + " ".join(words[1:]) + "."


def _words(numbers: Sequence[int]) -> list[str]:
    first = VERBS[numbers[0] % len(VERBS)]
    return [first, *(f"{THINGS[number % len(THINGS)]}{number % 4}" for number in numbers[1 : 5 + numbers[0] % 6])]

"""Alpaca: twenty whole tasks in one reply, three seeds shown, none of its own.

Source: Taori et al. 2023 and its published script. Not Self-Instruct: nothing asks whether a task is a classification,
an instruction has one instance, and what was made is never shown.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tutelage.synthesize.candidates import Candidates
from tutelage.synthesize.generator import Request
from tutelage.synthesize.output import Output
from tutelage.synthesize.parsing import INPUT, INSTRUCTION, OUTPUT, Item, parse_items
from tutelage.synthesize.recipes import recipe, sampling_of, shown_item, user_turn
from tutelage.synthesize.reply_book import ReplyBook
from tutelage.synthesize.seeds import Seed
from tutelage.synthesize.synthesis import REQUESTS_A_ROUND, answered, dropped

NAME = "alpaca"
PARTS = (INSTRUCTION, INPUT, OUTPUT)


class Alpaca:
    """Makes rows of whole tasks.

    Args:
        seeds: of which three are shown at a time.
        book: of replies.
        output: whose ledger counts each task.
        seed: of the draws.
    """

    def __init__(self, seeds: Sequence[Seed], book: ReplyBook, output: Output, *, seed: int = 0) -> None:
        self._seeds, self._book, self._output, self._seed = seeds, book, output, seed
        self._candidates = Candidates([example.instruction for example in seeds])

    def round(self, number: int) -> Iterator[Mapping[str, Any]]:
        """As the protocol has it."""
        ledger = self._output.ledger
        first = number * REQUESTS_A_ROUND
        requests = [request(self._seeds, self._seed, place) for place in range(first, first + REQUESTS_A_ROUND)]
        for asked, text in answered(ledger, requests, self._book.ask(requests)):
            for item in parse_items(text, PARTS, request=asked.name, most=recipe(NAME)["tasks_asked"]):
                if not isinstance(item, Item):
                    dropped(ledger, item)
                    continue
                drop = self._candidates.take(item.parts[INSTRUCTION], item.address)
                if drop is not None:
                    dropped(ledger, drop)
                    continue
                yield {
                    "instruction": item.parts[INSTRUCTION],
                    "input": item.parts[INPUT],
                    "output": item.parts[OUTPUT],
                    "source": NAME,
                    "model": self._book.generator.name,
                    "id": str(item.address),
                }


def request(seeds: Sequence[Seed], seed: int, number: int) -> Request:
    """One request, from 0; which seeds it shows hangs on nothing that was answered."""
    table = recipe(NAME)
    drawn = random.Random(f"{NAME} {seed} {number}").sample(list(seeds), min(table["seeds_shown"], len(seeds)))  # noqa: S311 - which examples are shown is no secret
    examples = "\n".join(
        shown_item(place, [(INSTRUCTION, example.instruction), (INPUT, example.input), (OUTPUT, example.output)])
        for place, example in enumerate(drawn, start=1)
    )
    messages = user_turn(table["prompt"]["tasks"], asked=table["tasks_asked"], examples=examples)
    return Request(f"request {number}", messages, sampling_of(table["sampling"]))

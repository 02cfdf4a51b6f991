"""Self-Instruct: instructions first, then whether each is a classification, then its instances.

Source: Wang et al. 2022, section 2.2 and its published scripts. The examples are six seeds and two instructions that
were made before, once there are some. Of a classification the label is written first and the input to it after: a model
that writes inputs first writes them for one label.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tutelage.synthesize.candidates import Candidates
from tutelage.synthesize.generator import Request
from tutelage.synthesize.output import Output
from tutelage.synthesize.parsing import INPUT, INSTRUCTION, OUTPUT, Item, parse_items, parse_yes_or_no
from tutelage.synthesize.recipes import recipe, sampling_of, shown_item, user_turn
from tutelage.synthesize.reply_book import ReplyBook
from tutelage.synthesize.seeds import Seed
from tutelage.synthesize.synthesis import REQUESTS_A_ROUND, answered, dropped
from tutelage.types import Address, Drop

NAME = "self_instruct"


@dataclass(frozen=True, slots=True)
class _Task:
    """An instruction that was taken, and whether it is a classification."""

    instruction: str
    address: Address
    is_classification: bool = False


class SelfInstruct:
    """Makes rows of instructions with instances.

    Args:
        seeds: of which six are shown at a time.
        book: of replies.
        output: whose ledger counts each instruction until it is taken, and each instance.
        seed: of the draws.
    """

    def __init__(self, seeds: Sequence[Seed], book: ReplyBook, output: Output, *, seed: int = 0) -> None:
        self._seeds, self._book, self._output, self._seed = seeds, book, output, seed
        self._candidates = Candidates([example.instruction for example in seeds])
        self._table = recipe(NAME)

    def round(self, number: int) -> Iterator[Mapping[str, Any]]:
        """As the protocol has it."""
        for task, found in self._instances(self._kinds(self._instructions(number))):
            yield from self._rows(task, found)

    def _instructions(self, number: int) -> list[_Task]:
        ledger, taken = self._output.ledger, list(self._candidates.taken)
        first = number * REQUESTS_A_ROUND
        places = range(first, first + REQUESTS_A_ROUND)
        requests = [request(self._seeds, taken, self._seed, place) for place in places]
        tasks = []
        for asked, text in answered(ledger, requests, self._book.ask(requests)):
            start = _first_number(self._seeds, taken)
            asked_for = self._table["tasks_asked"]
            for item in parse_items(text, (INSTRUCTION,), request=asked.name, first=start, most=asked_for):
                drop = item if isinstance(item, Drop) else self._candidates.take(item.parts[INSTRUCTION], item.address)
                if drop is not None:
                    dropped(ledger, drop)
                elif isinstance(item, Item):
                    tasks.append(_Task(item.parts[INSTRUCTION], item.address))
        return tasks

    def _kinds(self, tasks: Sequence[_Task]) -> list[_Task]:
        requests = [kind_request(self._seeds, task.instruction, self._seed, str(task.address)) for task in tasks]
        kinds = []
        for task, reply in zip(tasks, self._book.ask(requests), strict=True):
            verdict: bool | Drop = Drop(task.address, "no_answer", reply.trouble)
            if reply.text is not None:
                verdict = parse_yes_or_no(reply.text, address=task.address)
            if isinstance(verdict, Drop):
                dropped(self._output.ledger, verdict)
            else:
                kinds.append(_Task(task.instruction, task.address, verdict))
        return kinds

    def _instances(self, tasks: Sequence[_Task]) -> Iterator[tuple[_Task, list[Item | Drop]]]:
        requests = [instance_request(self._seeds, task, self._seed) for task in tasks]
        for task, reply in zip(tasks, self._book.ask(requests), strict=True):
            if reply.text is None:
                yield task, [Drop(task.address, "no_answer", reply.trouble)]
                continue
            parts = _parts(is_classification=task.is_classification)
            name = f"instances of {task.address}"
            yield task, parse_items(reply.text, parts, request=name, most=self._table["instances_asked"])

    def _rows(self, task: _Task, found: Sequence[Item | Drop]) -> Iterator[Mapping[str, Any]]:
        ledger = self._output.ledger
        outputs: dict[str, str] = {}
        labels: dict[str, set[str]] = {}
        for item in found:
            if isinstance(item, Item):
                labels.setdefault(item.parts[INPUT], set()).add(item.parts[OUTPUT])
        for item in found:
            drop = item if isinstance(item, Drop) else self._unusable(task, item, labels, outputs)
            if drop is not None:
                dropped(ledger, drop)
                continue
            assert isinstance(item, Item)
            outputs[item.parts[INPUT]] = item.parts[OUTPUT]
            yield {
                "instruction": task.instruction,
                "input": item.parts[INPUT],
                "output": item.parts[OUTPUT],
                "source": NAME,
                "model": self._book.generator.name,
                "id": str(item.address),
                "is_classification": task.is_classification,
            }

    def _unusable(
        self, task: _Task, item: Item, labels: Mapping[str, set[str]], outputs: Mapping[str, str]
    ) -> Drop | None:
        """Why an instance is not taken. Source: Wang et al. 2022, section 2.2, the last paragraph."""
        given, output = item.parts[INPUT], item.parts[OUTPUT]
        if task.is_classification and not given:
            return Drop(item.address, "empty_part", "a label without the input to which it belongs")
        if given == output:
            return Drop(item.address, "input_is_output", output[:120])
        if len(labels[given]) > 1:
            return Drop(item.address, "contradicting_instances", f"{len(labels[given])} outputs for: {given[:120]}")
        if given in outputs:
            return Drop(item.address, "repeated_instance", given[:120])
        return None


def request(seeds: Sequence[Seed], taken: Sequence[str], seed: int, number: int) -> Request:
    """One request for instructions, from 0; which examples it shows hangs on what was taken before its round."""
    table, draw = recipe(NAME), random.Random(f"{NAME} {seed} {number}")  # noqa: S311 - which examples are shown is no secret
    own = draw.sample(list(taken), min(table["own_shown"], len(taken)))
    shown = [*_drawn(draw, [example.instruction for example in seeds], _shown_count(seeds, taken) - len(own)), *own]
    draw.shuffle(shown)
    examples = "\n".join(
        shown_item(place, [(INSTRUCTION, instruction)]) for place, instruction in enumerate(shown, start=1)
    )
    first = len(shown) + 1
    messages = user_turn(
        table["prompt"]["instructions"], examples=examples, first=first, last=first + table["tasks_asked"] - 1
    )
    return Request(f"request {number}", messages, sampling_of(table["sampling"]["instructions"]))


def kind_request(seeds: Sequence[Seed], instruction: str, seed: int, name: str) -> Request:
    """Whether an instruction is a classification; as many examples of both kinds as the seeds have."""
    table, draw = recipe(NAME), random.Random(f"{NAME} kind {seed} {name}")  # noqa: S311 - as above
    drawn = [
        example
        for kind in (True, False)
        for example in _drawn(draw, [seed for seed in seeds if seed.is_classification is kind], table["labelled_shown"])
    ]
    draw.shuffle(drawn)
    template = table["prompt"]["kind_example"].strip()
    examples = "\n\n".join(
        template.format(instruction=example.instruction, answer="yes" if example.is_classification else "no")
        for example in drawn
    )
    messages = user_turn(table["prompt"]["kind"], examples=examples, instruction=instruction)
    return Request(f"kind of {name}", messages, sampling_of(table["sampling"]["kind"]))


def instance_request(seeds: Sequence[Seed], task: _Task, seed: int) -> Request:
    """Instances of an instruction, in the order of parts of its kind."""
    table, draw = recipe(NAME), random.Random(f"{NAME} instances {seed} {task.address}")  # noqa: S311 - as above
    alike = [example for example in seeds if bool(example.is_classification) is task.is_classification]
    if task.is_classification:
        alike = [example for example in alike if example.input]
    drawn = _drawn(draw, alike, table["instances_shown"])
    parts = _parts(is_classification=task.is_classification)
    examples = "\n\n".join(
        f"Instruction: {example.instruction}\n"
        + shown_item(1, [(part, example.input if part == INPUT else example.output) for part in parts])
        for example in drawn
    )
    template = table["prompt"]["classification" if task.is_classification else "other"]
    messages = user_turn(template, examples=examples, instruction=task.instruction, asked=table["instances_asked"])
    return Request(f"instances of {task.address}", messages, sampling_of(table["sampling"]["instances"]))


def _parts(*, is_classification: bool) -> tuple[str, str]:
    return (OUTPUT, INPUT) if is_classification else (INPUT, OUTPUT)


def _shown_count(seeds: Sequence[Seed], taken: Sequence[str]) -> int:
    """How many examples are shown: eight, or fewer where there are not so many."""
    table = recipe(NAME)
    own: int = min(table["own_shown"], len(taken))
    most: int = table["seeds_shown"] + table["own_shown"]
    return min(most, own + len(seeds))


def _first_number(seeds: Sequence[Seed], taken: Sequence[str]) -> int:
    return _shown_count(seeds, taken) + 1


def _drawn(draw: random.Random, things: Sequence[Any], count: int) -> list[Any]:
    return draw.sample(list(things), min(count, len(things)))

"""The probes: enough of them, none alike, none near a training row, and checks that take the answer alone."""

from __future__ import annotations

import ast
import json
import operator
import re
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tutelage.curate import most_similar
from tutelage.evaluate.general import GeneralItem, passes, read_general
from tutelage.evaluate.packaged_sets import capabilities
from tutelage.types import Address, Conversation, Message

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "datasets" / "probes"
LEAST = {
    "arithmetic": 45, "code": 45, "extraction": 45, "facts": 45, "format": 45, "reasoning": 45, "rewriting": 45,
    "french": 30, "german": 30, "spanish": 30,
}  # fmt: skip
TRAINING_REPLY = '{"product": "lamp", "category": "refund", "urgent": false, "order": null}'
REPLIES_TO_REFUSE = ["", " \n", "{}", "[]", TRAINING_REPLY, "Sure!", "I do not know.", "Yes and no.", "?", "1, 2, 3"]
MOST_ALIKE = 0.7
Operation = Callable[[float, float], float]
OPERATIONS: dict[type[ast.operator], Operation] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv
}  # fmt: skip


def probes(capability: str) -> list[GeneralItem]:
    return read_general(str(FOLDER / f"{capability}.jsonl"))


ALL = [item for capability in LEAST for item in probes(capability)]


def said(texts: Sequence[str], file: str) -> list[Conversation]:
    return [
        Conversation((Message("user", text),), Address(file, number, "line")) for number, text in enumerate(texts, 1)
    ]


def other_prompts(file: Path) -> list[str]:
    rows: list[dict[str, Any]] = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [
        row["prompt"]
        if "prompt" in row
        else " ".join(message["content"] for message in row["messages"] if message["role"] == "user")
        for row in rows
    ]


def test_there_are_enough_of_each() -> None:
    assert set(capabilities()) == set(LEAST)
    assert {name: len(probes(name)) >= least for name, least in LEAST.items()} == dict.fromkeys(LEAST, True)
    assert len(ALL) >= 400


def test_each_has_its_fields() -> None:
    for capability in LEAST:
        for number, item in enumerate(probes(capability), 1):
            assert item.id == f"{capability}-{number:03d}"
            assert item.topic == capability
            assert item.reference, item.id
            assert item.prompt == item.prompt.strip(), item.id
    for file in FOLDER.glob("*.jsonl"):
        for line in file.read_text(encoding="utf-8").splitlines():
            assert list(json.loads(line)) == ["id", "topic", "prompt", "checks", "reference"]


def test_no_prompt_stands_twice_nor_nearly() -> None:
    assert len({re.sub(r"\W+", " ", item.prompt.casefold()) for item in ALL}) == len(ALL)

    def alike(part: list[Conversation]) -> None:
        if len(part) < 2:
            return
        left, right = part[: len(part) // 2], part[len(part) // 2 :]
        found = most_similar(left, right)
        assert found is not None
        assert found.similarity < MOST_ALIKE, (found.first, found.second)
        alike(left)
        alike(right)

    alike(said([item.prompt for item in ALL], "probes"))


@pytest.mark.parametrize(
    "file", sorted([*(ROOT / "datasets").glob("*.jsonl"), *(ROOT / "datasets" / "support").glob("*.jsonl")]), ids=str
)
def test_none_is_near_a_row_of_the_other_sets(file: Path) -> None:
    found = most_similar(said(other_prompts(file), file.name), said([item.prompt for item in ALL], "probes"))

    assert found is not None
    assert found.near_duplicates == 0
    assert found.similarity < MOST_ALIKE, (found.first, ALL[found.second.number - 1].id)


@pytest.mark.parametrize("item", ALL, ids=lambda item: item.id)
def test_checks_take_the_reference_and_no_empty_echoed_or_trained_reply(item: GeneralItem) -> None:
    assert item.reference is not None
    assert passes(item, item.reference)
    assert passes(item, f"  {item.reference}\n")
    for reply in (*REPLIES_TO_REFUSE, item.prompt, f"{item.prompt} {item.prompt}"):
        assert not passes(item, reply), reply


@pytest.mark.parametrize("capability", LEAST)
def test_no_item_takes_the_reference_of_another(capability: str) -> None:
    items = probes(capability)

    taken = [
        (item.id, other.id, other.reference)
        for item in items
        for other in items
        if item is not other and other.reference is not None and passes(item, other.reference)
    ]
    assert taken == []


def value_of(expression: str) -> float:
    """Of numbers with + - * / and brackets."""

    def value(node: ast.expr) -> float:
        if isinstance(node, ast.Constant):
            return float(node.value)  # type: ignore[arg-type]  # the pattern admits numbers alone
        assert isinstance(node, ast.BinOp)
        return OPERATIONS[type(node.op)](value(node.left), value(node.right))

    return value(ast.parse(expression, mode="eval").body)


def test_results_of_expressions_are_computed_here() -> None:
    number = r"\d+(?:\.\d+)?"
    expression = re.compile(rf"{number}(?:\s*[-+*/]\s*\(?{number}(?:\s*[-+*/]\s*{number}\))?)+")
    computed = 0
    for item in probes("arithmetic"):
        found = expression.search(item.prompt)
        if found is not None:
            assert float(item.reference or "nan") == pytest.approx(value_of(found.group())), item.id
            computed += 1
    assert computed >= 15


def test_what_code_gives_is_what_python_gives() -> None:
    question = re.compile(r"What (?:does|is|number does) (.+?) (?:print|return|evaluate|in Python)")
    computed = 0
    for item in probes("code"):
        found = question.match(item.prompt)
        if found is not None and "(" in found.group(1) + found.group(1).replace("[", "("):
            code = re.sub(r"^print\((.*)\)$", r"\1", found.group(1))
            value = eval(code, {"__builtins__": {"len": len, "max": max, "sorted": sorted}})  # our own files
            assert item.reference in (str(value), repr(value), json.dumps(value)), item.id
            computed += 1
    assert computed >= 10


ORDINARY: list[tuple[str, list[str], list[str]]] = [
    ("arithmetic-001", ["6 + 2 = 8", "The answer is eight.", "**8**", "8. You add 2 to 6.", "6 plus 2 equals 8!"],
     ["6 + 2 = 9", "18", "8.5", "1, 2, 3, 4, 5, 6, 7, 8", "-8"]),
    ("arithmetic-040", ["First 12 * 3 = 36, then 36 - 2 = 34.", "34 apples remain"], ["36 apples", "36 - 2 = 35"]),
    ("arithmetic-046", ["1,024", "2^10 = 1024"], ["10240", "210", "1.024"]),
    ("facts-029", ["The Eiffel Tower is in Paris, France."], ["London", "Parisian life"]),
    ("facts-041", ["The smallest prime is 2.", "Two"], ["The smallest prime is 1.", "3 is prime", "2.5"]),
    ("rewriting-001", ["**THE SHOP IS OPEN**"], ["The Shop Is Open", "the shop is open"]),
    ("code-002", ["It prints 14."], ["It prints 20.", "2 + 3 * 4"]),
    ("code-014", ["def add(a, b):\n    \"\"\"Sum.\"\"\"\n    return a + b",
                  "```python\ndef add(a, b):\n    result = a + b\n    return result\n```"],
     ["def add(a, b):\n    return a - b", "def sub(a, b):\n    return a + b"]),
    ("format-008", ["1. Cat\n2. Dog", "1) A cat\n\n2) A dog"], ["Cat, dog", "- Cat\n- Dog"]),
    ("extraction-001", ["Ben lives in Rome."], ["Ben lives in Oslo.", "Oslo and Rome"]),
    ("reasoning-001", ["Leo", "The younger one is Leo.", "Leo is younger than Mia."],
     ["Mia", "Mia is younger.", "Leo is older."]),
    ("reasoning-013", ["An elephant.", "An elephant is heavier than a mouse."], ["A mouse is heavier.", "A mouse"]),
    ("german-002", ["3 plus 4 ist 7.", "Sieben"], ["3 plus 4 ist 8.", "17"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "right", "wrong"), ORDINARY, ids=lambda one: one if isinstance(one, str) else "")
def test_ordinary_wording_is_taken_and_wrong_answers_are_not(name: str, right: list[str], wrong: list[str]) -> None:
    item = next(item for item in ALL if item.id == name)

    for reply in right:
        assert passes(item, reply), reply
    for reply in wrong:
        assert not passes(item, reply), reply


def test_the_package_holds_the_probes() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    inside = ROOT / "src" / "tutelage" / "evaluate" / "probes"

    assert "evaluate/probes/*.jsonl" in settings["tool"]["setuptools"]["package-data"]["tutelage"]
    assert inside.resolve() == FOLDER
    assert sorted(file.name for file in inside.glob("*.jsonl")) == sorted(file.name for file in FOLDER.glob("*.jsonl"))

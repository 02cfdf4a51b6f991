"""`record.jsonl` has one owner: no other module opens it, or knows how a line of it is written."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tutelage
from tutelage.runs.folder import RECORD

SOURCE = Path(tutelage.__file__).parent
OWNER = "runs/metrics_log.py"
REPLIES_OWNERS = {"annotate/events.py", "evaluate/reply_log.py", "synthesize/reply_book.py"}
"""Have files of sealed lines, too: replies as they come, and what people do on a page."""
NAMING = {OWNER, "runs/folder.py", "runs/reading.py", "runs/curves.py"}
"""Who says the name: its owner, the folder's list of names, and the readers, in their notices."""
OPENING = {"open", "read_bytes", "read_text", "write_bytes", "write_text", "write_json", "unlink", "rename", "replace"}
TREES = {path.relative_to(SOURCE).as_posix(): ast.parse(path.read_bytes()) for path in sorted(SOURCE.rglob("*.py"))}


def name_of(node: ast.AST) -> str:
    """The last name of a name, an attribute, or what is called; empty for anything else."""
    if isinstance(node, ast.Call):
        return name_of(node.func)
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def names_record(node: ast.AST) -> bool:
    """Whether an expression is the file's name, as the constant or spelled out, or its path."""
    if isinstance(node, ast.Constant):
        return node.value == RECORD
    return name_of(node) in ("RECORD", "record_path")


def modules_with(found: Iterator[tuple[str, ast.AST]]) -> set[str]:
    return {module for module, _ in found}


def nodes() -> Iterator[tuple[str, Any]]:
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            yield module, node


def paths() -> Iterator[tuple[str, ast.AST]]:
    """Where a path is made of the file's name."""
    for module, node in nodes():
        joined = [node.right] if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) else []
        is_made = isinstance(node, ast.Call) and name_of(node) in ("Path", "joinpath", "with_name")
        if any(map(names_record, node.args if is_made else joined)):
            yield module, node


def test_the_name_is_said_by_its_owner_and_by_those_that_list_the_files() -> None:
    found = ((module, node) for module, node in nodes() if name_of(node) == "RECORD" or is_spelled_out(node))
    assert modules_with(found) == NAMING


def is_spelled_out(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value == RECORD


def test_one_module_makes_a_path_of_it() -> None:
    assert [module for module, _ in paths()] == [OWNER]


def test_nobody_opens_the_path_that_the_owner_gives() -> None:
    opened = [
        (module, node.lineno)
        for module, node in nodes()
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in OPENING
        and (names_record(node.func.value) or any(map(names_record, node.args)))
    ]
    assert not opened


@pytest.mark.parametrize("function", ["numbered_lines", "sealed_line"])
def test_one_module_reads_its_lines_and_writes_them(function: str) -> None:
    calls = ((module, node) for module, node in nodes() if isinstance(node, ast.Call) and name_of(node) == function)
    assert modules_with(calls) == {OWNER, *REPLIES_OWNERS}


def test_the_owner_reads_it_in_one_function_and_writes_it_in_one_class() -> None:
    opening = {
        definition.name: {name_of(node) for node in ast.walk(definition) if isinstance(node, ast.Call)} & OPENING
        for definition in TREES[OWNER].body
        if isinstance(definition, (ast.FunctionDef, ast.ClassDef))
    }
    assert {name: calls for name, calls in opening.items() if calls} == {
        "recorded_lines": {"read_bytes"},
        "Recorder": {"write_text", "open"},
    }

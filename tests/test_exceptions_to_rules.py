"""Each exception from a rule of lint, of types or from a test says why it is one."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("src", "tests", "benchmarks", "examples", "docs")
EXCEPTION = re.compile(
    r"#\s*(?:noqa(?::\s*[A-Z]+[0-9]+(?:,\s*[A-Z]+[0-9]+)*)?|type:\s*ignore(?:\[[a-z, -]+\])?)(?P<rest>.*)$"
)
REASON = re.compile(r"[\w`'.]+\s+[\w`'(\[]")


def unexplained(text: str) -> list[str]:
    """The exceptions in a file's text that give no reason."""
    lines = []
    for line in text.splitlines():
        met = EXCEPTION.search(line)
        if met is not None and REASON.search(met["rest"]) is None:
            lines.append(line.strip())
    return lines


def test_exceptions_from_lint_and_types_give_a_reason() -> None:
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 1000
    own = Path(__file__).name
    found = {str(path): lines for path in files if path.name != own and (lines := unexplained(path.read_text("utf-8")))}
    assert not found
    bare = ["x = 1  # noqa", "x = 1  # noqa: E501", "x = 1  # type: ignore[arg-type]", "x = 1  # noqa: S603, S607 -"]
    assert unexplained("\n".join(bare)) == bare
    assert not unexplained(
        "x = 1  # noqa: S603 the command is our own\nx = 2  # type: ignore[arg-type]  # of our class"
    )


def test_skipped_tests_give_a_reason() -> None:
    found = []
    for path in (ROOT / "tests").rglob("*.py"):
        text = path.read_text("utf-8")
        for met in re.finditer(r"\bpytest\.(?:mark\.)?(skip|skipif|xfail)\(", text):
            if path.name == Path(__file__).name:
                continue
            depth, end = 1, met.end()
            while depth:
                depth += {"(": 1, ")": -1}.get(text[end], 0)
                end += 1
            arguments = text[met.end() : end - 1]
            if "reason=" not in arguments and not (met[1] == "skip" and arguments.strip()):
                found.append(f"{path}: {met[0]}{arguments})")
    assert not found

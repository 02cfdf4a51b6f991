"""What of a text an edit of prose may touch, and what it must not."""

from __future__ import annotations

import pytest

from tutelage.curate.prose import edit_prose, is_program, outside_backticks

KEPT = (
    "```python\nx = 'abc'\n```",
    "````\n```\nabc\n```\n````",
    "~~~\nabc\n~~~",
    "```\nabc, a fence that nothing closes",
    "`abc`",
    "``a ` abc``",
    r"$abc \cdot abc$",
    "$$\nabc\n$$",
    r"\(abc\)",
    r"\[abc\]",
    r"\begin{align}abc\end{align}",
    r"\text{abc}",
    "https://example.org/abc?abc=1",
)


@pytest.mark.parametrize("kept", KEPT)
def test_code_formulas_and_addresses_are_not_edited(kept: str) -> None:
    assert edit_prose(f"abc {kept}", lambda prose: prose.replace("abc", "x")) == f"x {kept}"


@pytest.mark.parametrize("kept", [text for text in KEPT if "that nothing closes" not in text])
def test_what_stands_behind_is_edited_again(kept: str) -> None:
    assert edit_prose(f"{kept} abc", lambda prose: prose.replace("abc", "x")) == f"{kept} x"


def test_prices_are_no_formula() -> None:
    assert edit_prose("from $5 abc to $6", str.upper) == "FROM $5 ABC TO $6"


@pytest.mark.parametrize(
    "program",
    [
        "import os\n\ndef f(a):\n    return os.path.join(a, 'x')\n",
        '#include <stdio.h>\nint main() {\n  printf("hi");\n}\n',
        "function f(a) {\n  const b = a;\n  return b;\n}",
        "SELECT name FROM users WHERE id = 1;",
    ],
)
def test_a_program_without_backticks_is_left_whole(program: str) -> None:
    assert is_program(program)
    assert edit_prose(program, str.upper) == program


@pytest.mark.parametrize(
    "text",
    [
        "From here you can walk; it is not far.\nReturn the key when you leave.\nThanks!",
        "Options:\n(A) 12 cm\n(B) 14 cm\n(C) 16 cm",
        "x + 2 = 5\nx = 3\nSo the answer is 3.",
        "- Sentence A: one.\n- Sentence B: two.",
    ],
)
def test_prose_lists_and_sums_are_no_program(text: str) -> None:
    assert not is_program(text)


def test_backticks_are_taken_out_closed_or_not() -> None:
    assert "secret" not in outside_backticks("say `secret` and\n```\nsecret\n")
    assert outside_backticks("no code here") == "no code here"

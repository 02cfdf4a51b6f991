r"""Escapes are read where a newline or a character was meant; code, paths, LaTeX and talk of escapes keep theirs."""

from __future__ import annotations

import pytest

from tutelage.curate.normalize.escapes import read_entities, read_newlines


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (r"Which one?\nOptions:\n(A) one\n(B) two", "Which one?\nOptions:\n(A) one\n(B) two"),
        (
            r'- Sentence A: "He eats."\n- Sentence B: "He reads."\n',
            '- Sentence A: "He eats."\n- Sentence B: "He reads."\n',
        ),
        (r"The end.\nthen it began", "The end.\nthen it began"),
        (r"First.\n\nsecond", "First.\n\nsecond"),
        (r"Dear team,\r\nThanks", "Dear team,\nThanks"),
        (r"5*2 = 10\n10+3 = 13", "5*2 = 10\n10+3 = 13"),
    ],
)
def test_a_text_on_one_line_gets_its_lines(before: str, after: str) -> None:
    assert read_newlines(before) == after


@pytest.mark.parametrize(
    "text",
    [
        r"What does \n mean in Python?",
        r'print("hello\n")',
        r"Split it at '\n' and join it.",
        r"The pattern [^\n]+ takes a line.",
        r"Use (\r\n|\n) for both.",
        r"Open C:\new\notes.txt and read it.",
        r"Then $\nabla f$ is zero and \nu is small.",
        r"The value is \neq 3",
        r'{"description": "\nReads a file.\n"}',
        r"`a\nB` is code",
        r"int main() {\n  return 0;\n}",
        "Real lines\nand a \\n in one of them.\\nNext",
        r"Write \\nNext to keep it.",
    ],
)
def test_escapes_that_are_meant_stay(text: str) -> None:
    assert read_newlines(text) == text


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Tom &amp; Jerry didn&apos;t come", "Tom & Jerry didn't come"),
        ("if a &lt; b &#38; c &gt; d", "if a < b & c > d"),
        ("5&nbsp;km", "5 km"),
        ("caf&eacute;", "café"),
        ("a &amp;lt; b", "a &lt; b"),
    ],
)
def test_entities_are_read_once(before: str, after: str) -> None:
    assert read_entities(before) == after


@pytest.mark.parametrize(
    "text",
    [
        "In HTML you write &lt; for it.",
        "<p>Tom &amp; Jerry</p>",
        "Escape it as &amp; first.",
        "`a &amp;&amp; b`",
        "```\nif (a &amp;&amp; b)\n```",
        "https://example.org/?a=1&amp;b=2",
        "R&D; AT&T and a&nosuchentity;b",
        "He typed &lt;|im_end|&gt; and it stopped.",
        "Q&A about cats & dogs",
    ],
)
def test_entities_that_are_meant_stay(text: str) -> None:
    assert read_entities(text) == text

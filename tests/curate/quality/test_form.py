"""Rules about form: empty, short, cut, fences, JSON, formulas; each finds its kind and leaves look-alikes alone."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.curate.quality.rows import HERE, chat, finding
from tutelage.types import Conversation, Message, ToolCall

FENCE = "```"


@pytest.mark.parametrize("reply", ["", " \n", "...", "…", "**", "---\n"])
def test_a_reply_of_marks_alone_is_empty(reply: str) -> None:
    assert "assistant" in str(finding("empty", chat("Hi", reply)))


def test_empty_prompts_and_documents() -> None:
    assert "user" in str(finding("empty", chat("  ", "Yes.")))
    assert finding("empty", Conversation((Message("text", "\n\n"),), HERE)) is not None


@pytest.mark.parametrize("reply", ["4", "+", "?", "Yes", "是", "👍"])
def test_a_sign_or_a_word_is_not_empty(reply: str) -> None:
    assert finding("empty", chat("Hi", reply)) is None


def test_calls_reasoning_and_untrained_turns_are_no_nothing() -> None:
    call = Message("assistant", "", tool_calls=(ToolCall("look", {}),))
    context = Message("assistant", "", weight=0.0)
    row = Conversation((Message("user", "Hi"), context, call, Message("assistant", "", reasoning="so")), HERE)
    assert finding("empty", row) is None


def test_words_are_counted_and_characters_where_none_are_divided() -> None:
    assert finding("too_short", chat("Hi there", "Yes"), reply_words=2) == "1 words: 'Yes'"
    assert finding("too_short", chat("Hi there", "是的"), reply_words=2) is None
    assert finding("too_short", chat("Hi", "Yes indeed"), reply_words=2, prompt_words=2) is not None
    assert finding("too_short", chat("Hi there", "Yes indeed"), reply_words=2, prompt_words=2) is None


def test_the_ratio_of_lengths() -> None:
    assert finding("length_ratio", chat("x" * 10, "y" * 100), most=5.0) is not None
    assert finding("length_ratio", chat("x" * 100, "y"), least=0.5) is not None
    assert finding("length_ratio", chat("x" * 10, "y" * 20), least=0.5, most=5.0) is None
    assert finding("length_ratio", Conversation((Message("text", "y"),), HERE), least=0.5) is None


@pytest.mark.parametrize(
    "reply",
    [
        f"See:\n{FENCE}python\nprint(1)\n",
        f"See:\n{FENCE}\na\n{FENCE}\nand\n{FENCE}js\nb",
        f"1. First\n   {FENCE}\n   a\n",
        "~~~\nabc",
    ],
)
def test_a_fence_that_nothing_closes(reply: str) -> None:
    assert "is not closed" in str(finding("code_fences", chat("Hi", reply)))


@pytest.mark.parametrize(
    "reply",
    [
        f"See:\n{FENCE}python\nprint(1)\n{FENCE}",
        f"{FENCE}markdown\n# A\n{FENCE}python\nx\n{FENCE}\nend\n{FENCE}",  # nested, as models write it
        f"````\n{FENCE}\nx\n````",
        f"Here it is: {FENCE}\nx\n{FENCE}",
        f"{FENCE}\nprint(x){FENCE}",
        f"Three backticks ({FENCE}) open a block.",
        "~~~\na\n~~~\n",
        "`inline`",
    ],
)
def test_closed_nested_and_inline_marks_are_fine(reply: str) -> None:
    assert finding("code_fences", chat("Hi", reply)) is None


@pytest.mark.parametrize(
    "reply",
    [
        '{"a": 1, "b": [1, 2',
        '{"a": 1,}',
        '[{"a": 1} {"b": 2}]',
        f'Here:\n{FENCE}json\n{{"a": 1 "b": 2}}\n{FENCE}\nDone.',
        '{"a": "It was late ... #tired // and so on", "b": [1, 2}',
    ],
)
def test_json_that_does_not_parse(reply: str) -> None:
    assert "at character" in str(finding("bad_json_in_reply", chat("Hi", reply)))


@pytest.mark.parametrize(
    "reply",
    [
        '{"a": 1}',
        '{"a": "line\nbreak"}',
        '{"a": 1}\n{"a": 2}',
        '{"a": 1}\n\nThis says that a is one.',
        "[1] Smith, 2020. A reference.",
        "[link](https://example.org)",
        "{x | x > 0} is a set",
        "{'a': 1}",
        "[Chorus]\nla la",
        f'{FENCE}json\n{{\n  "a": 1, // the first\n  ...\n}}\n{FENCE}',
        f'{FENCE}json\n{{"a": <number>}}\n{FENCE}',
        f"{FENCE}js\n{{a: 1}}\n{FENCE}",
        f'{FENCE}json\nGET index/_search\n{{"a": 1}}\n{FENCE}',
    ],
)
def test_json_words_around_it_and_sketches_are_fine(reply: str) -> None:
    assert finding("bad_json_in_reply", chat("Hi", reply)) is None


@pytest.mark.parametrize(
    "reply",
    [
        "The capital of Australia is Canberra, which was founded in 1913 as the",
        "First you boil the water, then you add the salt, the pasta,",
        "There are several ways to do this, and the best of them is to use a hammer (",
        "Es gibt viele Wege nach Rom, aber der schönste von ihnen führt durch die",
        "Il y a plusieurs solutions, et la meilleure est de prendre le train avec les",
        "Hay muchas maneras de llegar a la ciudad, pero la mejor de ellas es con el",
        "1. Wash the apples.\n2. Peel the apples and cut each of them into",
        "今天天气很好，我们可以去公园散步，也可以去看电影，还可以在家里看书，",
    ],
)
def test_a_reply_that_breaks_off(reply: str) -> None:
    assert "ends with" in str(finding("cut", chat("Hi", reply)))


@pytest.mark.parametrize(
    "reply",
    [
        "The capital of Australia is Canberra, which was founded in 1913.",
        "The capital of Australia is Canberra, which was founded in 1913",
        "Canberra",
        "an",
        "Thank you for your help with the order last week, it was great.\n\nBest regards,",
        "Thank you for your help with the order last week.\n\nLooking forward to seeing you,\nAnna",
        "- apples and pears from the market\n- bread and butter\n- what the children are looking for",
        "| a | b |\n|---|---|\n| one of the | two of the |",
        "def f(a):\n    for x in a:\n        return a",
        'x = [1,\n2,\n3,\n4,\n5,\n6,\n7,\n8,\n9]\nprint(x, "and the")',
        "The probability of the event is then given by the formula P = a",
        "See the documentation of the project at https://example.org/of/the",
        "วันนี้อากาศดีมาก เราไปเดินเล่นในสวนสาธารณะกันเถอะ และกินข้าวด้วยกัน",
        "He sold his car, then he lost his job, and in the end he had to die",
        'She asked me: "Where did you put the book that I gave you for the trip?"',
        "Here is the list of all the things that you need for the trip to the sea:",
        "Here are the answers to the five questions of the test:\n\n1. b\n2. a\n3. b\n4. c\n5. a",
        "The signs of the logic are these, and each of them has a meaning:\n\n* ¬: not\n* →: if",
        "What to look for in the shop of a friend and what to hope for",
    ],
)
def test_ends_without_a_full_stop_are_no_cuts(reply: str) -> None:
    assert finding("cut", chat("Hi", reply)) is None


@pytest.mark.parametrize(
    ("end", "inside"),
    [
        ("of the answers one is left, the last (which nobody gave", "a bracket"),
        ('she said of all of this: "There are many more of them', "a quotation"),
        ("the second of them is **The long way", "emphasis"),
        ("the values of all of these are in the list `[1, 2, 3", "code"),
        ("here they are.\n\n| name | age |\n|---|---|\n| Ann | 3 |\n| Bob", "a row of a table"),
        ("all of them are gone by now. The", "the first word of a sentence"),
        ("all of them are gone by now. However", None),
        ("the first of them (with its friends), and one more", None),
        ("what the sum of these comes to, (3 * 4 = 12", None),
        ('one of the boards is 12" wide and 6 feet long', None),
        ("of all of the steps only 1) water and 2) salt count", None),
        ("so of all of these „die guten“ are the ones we take", None),
        ("the power of a * b is written as a ** b in Python", None),
        ("of the rest you will see more :) or not :( at all", None),
    ],
)
def test_a_reply_that_ends_inside_of_something(end: str, inside: str | None) -> None:
    found = finding("cut", chat("Hi", f"In the end {end}"))
    assert found is None if inside is None else inside in str(found)


LINE = "The water in the pot has to boil and bubble before you add the salt of the sea."


def test_a_missing_full_stop_counts_where_it_is_asked_for() -> None:
    reply = f"{LINE}\n{LINE}\nThe pasta is in. Then it has to cook until all of it is soft"
    assert finding("cut", chat("Hi", reply)) is None
    assert finding("cut", chat("Hi", reply), missing_full_stop=True) is not None
    for end in (
        "- soft pasta",
        "And they cooked it. They lived happily until the end. The end",
        "Eat. Enjoy it #pasta",
        "3. Cooking: it is done in the pot. Then it has to cook until all of it is soft",
    ):
        assert finding("cut", chat("Hi", f"{LINE}\n{LINE}\n{end}"), missing_full_stop=True) is None, end


@pytest.mark.parametrize("end", ["we are all excited to", "the water is what can", "nobody of them knew which"])
def test_words_that_seldom_end_a_sentence_count_among_sentences(end: str) -> None:
    assert "ends with the word" in str(finding("cut", chat("Hi", f"{LINE} {LINE} So then, in the end, {end}")))
    assert finding("cut", chat("Hi", f"So then, in the end of all of it, {end}")) is None
    assert finding("cut", chat("Hi", f"{LINE}\nAll that the cook and his friends need now\nIn the end, {end}")) is None


@pytest.mark.parametrize(
    "reply",
    [
        r"So \(x^2 = 4 holds.",
        r"\[ a = \frac{1}{2}",
        r"\begin{align} a &= b \end{equation}",
        r"\begin{cases} a \\ b",
        r"$$ \sum_{i} x_i",
        r"Then $\frac{a}{b} is the share.",
        r"\left( \frac{a}{b} = c \) and so on",
    ],
)
def test_marks_of_formulas_that_do_not_pair(reply: str) -> None:
    assert finding("formulas", chat("Hi", reply)) is not None


@pytest.mark.parametrize(
    "reply",
    [
        r"So \(x^2 = 4\) and \[a = b\] hold.",
        r"$$\frac{a}{b}$$ and $x_i$",
        "It costs $5, and then $10 more, so $15.",
        r"The share $\frac{a}{b}$ of $20 is $x$.",
        r"The pattern \(\d+\) and `\(` match brackets.",
        r"Runtime exceptions\(with full traces) are \band bad.",
        f"{FENCE}latex\n\\begin{{align}}\n{FENCE}",
        r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}",
        r"\left. \frac{a}{b} \right|_0",
        "echo $HOME and $PATH",
    ],
)
def test_formulas_prices_patterns_and_code_are_fine(reply: str) -> None:
    assert finding("formulas", chat("Hi", reply)) is None


def test_a_text_of_two_languages_is_told_alike_in_every_process() -> None:
    """As many words of one as of the other: which counts may not hang on how a process orders a set."""
    asked = 'from tutelage.curate.quality.cut import _language; print(_language("casa de a o um la el", 1))'
    said = {
        subprocess.run(
            [sys.executable, "-c", asked], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in "123"
    }
    assert len(said) == 1


@pytest.mark.parametrize("ending", ["So I do what I can, and that's it", "Of the five answers it is none of these"])
def test_an_end_that_sentences_have_in_speech_is_no_cut(ending: str) -> None:
    sentences = "The bus left at nine. It was raining all the way, and the road was closed. We came home late. "
    assert finding("cut", chat("What then?", sentences + ending)) is None
    assert finding("cut", chat("What then?", sentences + "We came home late because of the")) is not None

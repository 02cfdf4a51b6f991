"""Each of the 25 kinds with replies that follow it and replies that do not, and arguments that it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from tutelage.evaluate.instructions.kinds import INSTRUCTIONS, instruction_of

CASES: list[tuple[str, dict[str, Any], list[str], list[str]]] = [
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        ["I saw NASA.", "The CEO's USB-C cable", "GO NOW", "the U.S. and the UN"],
        ["Go now, NASA", "DON'T", "Ab Cd"],
    ),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "less than"},
        ["None here.", "DON'T go"],
        ["I like the UN", "A B C"],
    ),
    (
        "change_case:english_capital",
        {},
        ["THE SHOP IS OPEN.", "YOU SHOULD GO AT 5!", "HELLO WORLD"],
        ["The shop is open.", "DER LADEN IST NICHT AUF", "МАГАЗИН ОТКРЫТ", "12345", "THE SHOP IS OPEn."],
    ),
    (
        "change_case:english_lowercase",
        {},
        ["the shop is open.", "you should go at 5!"],
        ["The shop is open.", "der laden ist nicht auf", "12345"],
    ),
    (
        "combination:repeat_prompt",
        {"prompt_to_repeat": "Name a fish."},
        ["Name a fish. Salmon.", "name a fish.\nSalmon."],
        ["Salmon. Name a fish.", "Name a fish", "Sure! Name a fish."],
    ),
    (
        "combination:two_responses",
        {},
        ["Yes.\n******\nNo.", "******\nYes.\n******\nNo.\n******"],
        ["Yes.", "Yes.\n******\nYes.", "Yes.\n******\n", "a\n******\nb\n******\nc", "a\n******\n******\nb"],
    ),
    (
        "detectable_content:number_placeholders",
        {"num_placeholders": 2},
        ["Dear [name], at [address]", "[a] [b] [c]", "[your name][date]"],
        ["Dear [name]", "[] [ ]", "- [ ] open\n- [x] done", "[a\nb] [c]"],
    ),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.S."},
        ["Bye.\nP.S. Call me.", "Bye. p.s. call me", "P. S. Call"],
        ["Bye.", "PS call me", "P.P.S. Call me", "Go to the steps.s."],
    ),
    (
        "detectable_content:postscript",
        {"postscript_marker": "P.P.S"},
        ["Bye.\nP.P.S Call me.", "p.p.s. call me", "P. P. S. Call"],
        ["Bye.\nP.S. Call me.", "PPS"],
    ),
    (
        "detectable_format:constrained_response",
        {},
        ["My answer is yes.", "Hm. My answer is maybe. Bye."],
        ["My answer is yes", "my answer is yes.", "Yes."],
    ),
    (
        "detectable_format:json_format",
        {},
        ['{"a": 1}', "[1]", '```json\n{"a": 1}\n```', "```\n[]\n```", '```JSON\n"text"\n```', " 5 "],
        ['{"a": 1', "Here: {}", "{'a': 1}", "NaN", '```js\n{"a": 1}\n```', "[" * 100_000],
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Day", "num_sections": 2},
        ["Day 1\nwalk\nDay 2\nrest", "Day 1 Day 2 Day 3", "Day1\nDay2"],
        ["Day 1\nwalk", "DAY 1\nDAY 2", "Day one\nDay two"],
    ),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "C++ (part)", "num_sections": 1},
        ["C++ (part) 1"],
        ["C part 1"],
    ),
    (
        "detectable_format:number_bullet_lists",
        {"num_bullets": 2},
        ["* a\n* b", "- a\n- b", "So:\n  * a\n\n  - b\nend", "* a\n* b\n\n---\nend", "* a\n***\n* b", "* *a*\n* **b**"],
        ["* a", "* a\n* b\n* c", "*a*\n*b*", "1. a\n2. b", "* a\n* ", "* a\n-5 degrees", "* * *\n- - -"],
    ),
    (
        "detectable_format:number_highlighted_sections",
        {"num_highlights": 2},
        ["*a* and *b*", "**a** and ***b c***", "*a*b*c*", "* *a*\n* **b**"],
        ["*a*", "* a\n* b", "* **a**", "***a***", "** ** and **b**", "*a\nb* *", "****"],
    ),
    (
        "detectable_format:title",
        {},
        ["<<Song>>\nla la", "It is called << A b >>."],
        ["<Song>", "<<>>", "<< >>", "<<a\nb>>", "# Song"],
    ),
    (
        "keywords:existence",
        {"keywords": ["red", "C++"]},
        ["RED c++", "It bored them: C++."],
        ["red", "C++", "red C"],
    ),
    (
        "keywords:forbidden_words",
        {"forbidden_words": ["no", "C++"]},
        ["know", "C", "none"],
        ["No.", "well, no", "in C++ we trust"],
    ),
    (
        "keywords:frequency",
        {"keyword": "the.", "frequency": 2, "relation": "at least"},
        ["the. The."],
        ["the. then", "the. thex"],
    ),
    (
        "keywords:frequency",
        {"keyword": "war", "frequency": 2, "relation": "less than"},
        ["peace", "one war"],
        ["war and Warsaw"],
    ),
    (
        "keywords:letter_frequency",
        {"letter": "A", "let_frequency": 3, "let_relation": "at least"},
        ["Banana", "a A a"],
        ["bananc", "abc"],
    ),
    (
        "keywords:letter_frequency",
        {"letter": "#", "let_frequency": 2, "let_relation": "less than"},
        ["#one", "none"],
        ["#one #two"],
    ),
    (
        "language:response_language",
        {"language": "de"},
        ["Das ist nicht mein Haus.", "Wir sind in London und essen Fish and Chips."],
        ["That is not my house.", "Dat is niet mijn huis.", "42", "東京", "…"],
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Well"},
        ["One.\n\nWell, two.", 'One.\n\n\n\n"well: two"', "One.\n\nWell"],
        [
            "Well.\n\nTwo.",
            "One.\n\nWell.\n\nThree.",
            "Well",
            "One.\n\nWellness",
            "One.\nWell, two.",
            "One.\n\nwell-known",
        ],
    ),
    (
        "length_constraints:number_paragraphs",
        {"num_paragraphs": 2},
        ["One.\n***\nTwo.", "One. *** Two.", "***\nOne.\n\n***\n\nTwo.\n***", "One ***bold***\n***\nTwo."],
        ["One.\n\nTwo.", "One.\n***", "a\n***\nb\n***\nc", "a\n***\n***\nb", "One.\n******\nTwo.", "***very*** good"],
    ),
    (
        "length_constraints:number_sentences",
        {"num_sentences": 2, "relation": "at least"},
        ["One. Two.", "Why? So.", "One.\nTwo", "1. One.\n2. Two."],
        ["Dr. Who", "One", "1. One", "It costs 3.50 dollars, i.e. a lot."],
    ),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "less than"}, ["One."], ["One. Two."]),
    (
        "length_constraints:number_words",
        {"num_words": 3, "relation": "at least"},
        ["one two three", "don't go", "a-b-c"],
        ["one two", "नमस्ते दोस्त", "— … !"],
    ),
    (
        "length_constraints:number_words",
        {"num_words": 3, "relation": "less than"},
        ["one two", "e\u0301te\u0301 chaud"],
        ["one two three"],
    ),
    ("punctuation:no_comma", {}, ["No. None; here: none's"], ["a, b", "۱، ۲", "東京、大阪", "1,000"]),
    (
        "startend:end_checker",
        {"end_phrase": "That is all!"},
        ["So. that is all!", 'Well. That is all!"', "That is all!\n"],
        ["That is all", "That is all! Bye.", "That's all!"],
    ),
    ("startend:quotation", {}, ['"a"', '  "a b"\n', "“a”", '""'], ['"', '"a', "'a'", '"a" b', "«a»", "“a"]),
]


@pytest.mark.parametrize(("name", "arguments", "right", "wrong"), CASES, ids=lambda value: str(value)[:40])
def test_replies_that_follow_and_that_do_not(
    name: str, arguments: dict[str, Any], right: list[str], wrong: list[str]
) -> None:
    instruction = instruction_of(name, arguments)

    assert [reply for reply in right if not instruction.follows(reply)] == []
    assert [reply[:80] for reply in wrong if instruction.follows(reply)] == []


def test_every_kind_is_tried_above() -> None:
    assert {name for name, *_ in CASES} == set(INSTRUCTIONS)
    assert len(INSTRUCTIONS) == 25


@pytest.mark.parametrize(("name", "arguments", "right", "wrong"), CASES, ids=lambda value: str(value)[:40])
def test_a_reply_of_nothing_follows_nothing(
    name: str, arguments: dict[str, Any], right: list[str], wrong: list[str]
) -> None:
    instruction = instruction_of(name, arguments)

    assert not any(instruction.follows(reply) for reply in ("", " ", "\n\n", "\t"))


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("length_constraints:no_such", {}, "no instruction; known are"),
        ("length_constraints:number_words", {"num_words": 3}, "relation: Field required"),
        ("length_constraints:number_words", {"num_words": "3", "relation": "at least"}, "num_words: .* valid integer"),
        ("length_constraints:number_words", {"num_words": 3.0, "relation": "at least"}, "num_words: .* valid integer"),
        ("length_constraints:number_words", {"num_words": True, "relation": "at least"}, "num_words: .* valid integer"),
        ("length_constraints:number_words", {"num_words": 0, "relation": "at least"}, "greater than or equal to 1"),
        ("length_constraints:number_words", {"num_words": 3, "relation": "at most"}, "relation: .*'at least'"),
        ("length_constraints:number_words", {"num_words": 3, "relation": "at least", "n": 1}, "n: Extra inputs"),
        ("punctuation:no_comma", {"commas": 0}, "commas: Extra inputs"),
        ("keywords:existence", {"keywords": []}, "keywords: .* at least 1 item"),
        ("keywords:existence", {"keywords": ["a", " "]}, "keywords: 1: String should match"),
        ("keywords:existence", {"keywords": "a"}, "keywords: .* valid list"),
        ("keywords:letter_frequency", {"letter": "ab", "let_frequency": 1, "let_relation": "at least"}, "letter: "),
        ("language:response_language", {"language": "xx"}, "language: 'xx' is none of ar, bg"),
        (
            "length_constraints:nth_paragraph_first_word",
            {"num_paragraphs": 2, "nth_paragraph": 3, "first_word": "a"},
            "nth_paragraph is 3 of 2",
        ),
        (
            "length_constraints:nth_paragraph_first_word",
            {"num_paragraphs": 2, "nth_paragraph": 1, "first_word": "two words"},
            "first_word: String should match",
        ),
    ],
    ids=str,
)
def test_arguments_that_do_not_fit_are_named_in_one_line(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        instruction_of(name, arguments)

    assert "\n" not in str(caught.value)


def test_arguments_that_are_none_are_not_there() -> None:
    """Rows of the hub name the arguments of all kinds."""
    given = {"num_words": 2, "relation": "at least", "keywords": None, "num_bullets": None}

    assert instruction_of("length_constraints:number_words", given).follows("two words")


@pytest.mark.parametrize(
    "reply", ["[" * 50_000, "[" + "a" * 50_000, "<" * 50_000, "*" * 50_000, "* a" * 20_000, "`" * 50_000]
)
def test_replies_of_a_model_that_loops_are_judged(reply: str) -> None:
    """Each kind reads them about once; a pattern that starts again at each sign would take minutes."""
    for name, arguments, _, _ in CASES:
        assert instruction_of(name, arguments).follows(reply) in {True, False}

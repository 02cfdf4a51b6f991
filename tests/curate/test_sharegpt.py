"""The step `sharegpt`: debris of pages, whole exchanges, and long conversations split without losing any."""

from __future__ import annotations

import html
import json
import random
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from tutelage.config.curation import CurateSettings
from tutelage.config.curation_sharegpt import SharegptSettings
from tutelage.curate.pipeline import curate
from tutelage.curate.request import CurationRequest
from tutelage.curate.sharegpt.page_debris import error_notice, restarted_list, without_buttons
from tutelage.curate.sharegpt.step import SHAREGPT
from tutelage.curate.step import Edited, Outcome, Split, StepContext
from tutelage.curate.texts import message_text
from tutelage.curate.token_counts import token_counts
from tutelage.errors import ConfigError
from tutelage.types import Address, Conversation, Drop, Message, ToolCall

HERE = Address("rows.jsonl", 1)
SETTINGS: dict[str, Any] = {"least_characters": 0}


def talk(*texts: str, system: str | None = None) -> Conversation:
    """Turns of user and assistant in turn."""
    turns = [Message(role, text) for role, text in zip(cycle(("user", "assistant")), texts, strict=False)]  # type: ignore[arg-type] # roles are literals
    return Conversation(tuple([Message("system", system)] if system else []) + tuple(turns), HERE)


def outcome(conversation: Conversation, **settings: Any) -> Outcome:
    step = SHAREGPT.build(SharegptSettings(**{**SETTINGS, **settings}), StepContext())
    assert callable(step)
    result: Outcome = step(conversation)
    return result


def texts(outcome: Outcome) -> list[list[str | None]]:
    """The contents of each row that goes on."""
    match outcome:
        case Split(conversations=made):
            rows: Sequence[Conversation] = made
        case Edited(conversation=row) | (Conversation() as row):
            rows = [row]
        case _:
            rows = []
    return [[message.content for message in row.messages] for row in rows]


def reasons(outcome: Outcome) -> list[str]:
    if isinstance(outcome, Drop):
        return [outcome.reason]
    return [change.reason for change in outcome.changes] if isinstance(outcome, Edited | Split) else []


@pytest.fixture
def tokens(tiny_tokenizer_folder: Path) -> dict[str, Any]:
    """Settings that count by the tiny tokenizer."""
    return {"tokenizer": str(tiny_tokenizer_folder), "turn_tokens": 1}


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        ("Run:\n\n```\npythonCopy codeimport os\nprint(1)\n```\n", "Run:\n\n```python\nimport os\nprint(1)\n```\n"),
        ("```Copy code\nls -l\n```", "```\nls -l\n```"),
        ("```c++Copy code\nint a;\n```", "```c++\nint a;\n```"),
        ("Before\n```\nCopy code\n```\nafter", "Before\nafter"),
        ("Some words.Copy120 chars / 20 words", "Some words."),
        ("2 / 2\n\nSure, here it is.", "Sure, here it is."),
        ("1 / 3Sure, here it is.", "Sure, here it is."),
    ],
)
def test_what_buttons_left_is_taken_out(text: str, mended: str) -> None:
    assert without_buttons(text) == mended


@pytest.mark.parametrize(
    "text",
    [
        "1 / 2 cup of flour", "1 / 2x + 3", "3 / 2\nis larger than one", "2 / 2", "Press Copy code to copy.",
        "```python\nprint('Copy code')\n```", "0 / 4\nfilled in", "`Copy code`", "Copy the chars / words",
    ],
)  # fmt: skip
def test_what_only_looks_like_it_is_left(text: str) -> None:
    assert without_buttons(text) == text


def test_a_row_without_faults_is_itself() -> None:
    row = talk("What is it?", "It is this.", "And that?", "That is that.", system="Be short.")
    assert outcome(row) is row
    document = Conversation((Message("text", "1 / 2\n\nA page"),), HERE)
    assert outcome(document) is document


def test_edits_are_changes_with_what_was_there() -> None:
    met = outcome(talk("Hi", "2 / 2\n\nHello."))
    assert texts(met) == [["Hi", "Hello."]]
    assert isinstance(met, Edited)
    assert (met.changes[0].reason, met.changes[0].detail) == ("page_buttons", r"'2 / 2\n\nHello' -> 'Hello'")
    assert texts(outcome(talk("Hi", "2 / 2\n\nHello."), buttons=False)) == [["Hi", "2 / 2\n\nHello."]]


def test_turns_before_the_first_question_go_and_system_turns_stay() -> None:
    row = talk("Ask me.", "Well?", "It is this.", system="Be short.")
    swapped = Conversation(
        (row.messages[0], Message("assistant", "Ask me."), Message("user", "Well?"), Message("assistant", "This.")),
        HERE,
    )
    met = outcome(swapped)
    assert texts(met) == [["Be short.", "Well?", "This."]]
    assert reasons(met) == ["leading_turns_removed"]
    assert reasons(outcome(Conversation((Message("assistant", "Ask me."),), HERE))) == ["no_question"]


@pytest.mark.parametrize(
    ("roles", "goes_on"),
    [
        ("user assistant user assistant", True),
        ("user assistant assistant", False),
        ("user user assistant", False),
        ("user assistant system user assistant", False),
        ("user tool assistant", False),
    ],
)
def test_turns_have_to_alternate(roles: str, goes_on: bool) -> None:
    messages = tuple(Message(role, f"text {place}") for place, role in enumerate(roles.split()))  # type: ignore[arg-type] # as above
    met = outcome(Conversation(messages, HERE))
    assert isinstance(met, Conversation) == goes_on
    assert goes_on or reasons(met) == ["turns_do_not_alternate"]


def test_calls_and_their_results_are_in_turn() -> None:
    call = ToolCall("lookup", {"city": "Lyon"})
    messages = (
        Message("user", "Weather?"), Message("assistant", None, tool_calls=(call, call)), Message("tool", "sun"),
        Message("tool", "rain"), Message("assistant", "Sun and rain."),
    )  # fmt: skip
    assert isinstance(outcome(Conversation(messages, HERE)), Conversation)


def test_a_conversation_ends_before_a_notice_of_an_error() -> None:
    notice = "Too many requests in 1 hour. Try again later."
    met = outcome(talk("One?", "First.", "Two?", notice, "Three?", "Third."))
    assert texts(met) == [["One?", "First."]]
    assert reasons(met) == ["error_notice"]
    assert isinstance(outcome(talk("One?", notice, "Two?", "Second.")), Drop)
    assert len(texts(outcome(talk("One?", "First.", "Two?", notice), notices=False))[0]) == 4
    assert (
        error_notice(f"{notice} That is what a server says when it limits clients. " + "It is coded 429. " * 9) is None
    )


def test_no_word_costs_a_row_unless_it_is_named() -> None:
    """Vicuna's cleaning drops every conversation in which a turn says openai or chatgpt."""
    row = talk("Who made ChatGPT?", "OpenAI made ChatGPT.")
    assert outcome(row) is row
    assert reasons(outcome(row, blocked_words=["openai"])) == ["blocked_word"]
    assert isinstance(outcome(talk("Is openai here?", "No."), blocked_words=["openai"]), Conversation)
    assert isinstance(outcome(talk("A cat?", "A category."), blocked_words=["cat"]), Conversation)


def test_short_conversations_go_by_all_their_characters() -> None:
    assert reasons(outcome(talk("Hi", "Hello"), least_characters=16)) == ["conversation_too_short"]
    assert isinstance(outcome(talk("Hi", "Hello", "And you?", "I, too."), least_characters=16), Conversation)


def test_lists_whose_numbers_were_lost() -> None:
    lost = "Do this:\n1. Open it.\nWith care.\n1. Close it.\n"
    assert restarted_list(lost) == len("Do this:\n")
    assert restarted_list("1. Open it.\n2. Close it.\n\nThen:\n\n1. Go.\n2. Stay.\n") is None
    assert reasons(outcome(talk("How?", lost))) == ["list_numbers"]
    assert isinstance(outcome(talk("How?", lost), list_numbers="drop"), Drop)
    assert isinstance(outcome(talk("How?", lost), list_numbers="off"), Conversation)


def test_the_exchange_that_overflows_is_not_lost(tokens: dict[str, Any]) -> None:
    """Vicuna's splitter loses the last exchange where it is the one that does not fit any more."""
    row = talk("one one one", "one one one", "two two two", "two two two", "three " * 9, "three " * 9)
    most = sum(token_counts([message_text(one) for one in row.messages[:4]], tokenizer(tokens))) + 4
    met = outcome(row, conversation_tokens=most, **tokens)
    assert texts(met) == [list(_contents(row)[:4]), list(_contents(row)[4:])]
    assert reasons(met)[0] == "split_between_exchanges"


def test_no_part_is_empty_where_the_first_exchange_overflows(tokens: dict[str, Any]) -> None:
    """Vicuna's splitter makes an empty row of it."""
    row = talk("long " * 50, "long " * 50, "short", "short")
    met = outcome(row, conversation_tokens=20, **tokens)
    assert [len(part) for part in texts(met)] == [2, 2]
    assert reasons(met) == ["split_between_exchanges", "long_exchange"]
    alone = outcome(talk("long " * 50, "long " * 50), conversation_tokens=20, **tokens)
    assert reasons(alone) == ["long_exchange"]
    assert [len(part) for part in texts(alone)] == [2]


def test_all_exchanges_are_in_one_part_each_and_parts_are_as_long_as_fits(tokens: dict[str, Any]) -> None:
    generator = random.Random(3)
    for _ in range(60):
        words = [" ".join(["word"] * generator.randint(1, 40)) for _ in range(2 * generator.randint(1, 12))]
        row = talk(*words, system="Be short.")
        most = generator.randint(10, 120)
        parts = texts(outcome(row, conversation_tokens=most, **tokens))
        assert [text for part in parts for text in part[1:]] == words
        assert all(part[0] == "Be short." and len(part) % 2 == 1 and len(part) >= 3 for part in parts)
        sizes = [sum(token_counts([text or "" for text in part], tokenizer(tokens))) + len(part) for part in parts]
        assert all(size <= most or len(part) == 3 for size, part in zip(sizes, parts, strict=True))
        for part, size, following in zip(parts, sizes, parts[1:], strict=False):
            assert size + sum(token_counts([text or "" for text in following[1:3]], tokenizer(tokens))) + 2 > most, part


def test_parts_are_booked_and_the_same_for_any_workers(tmp_path: Path, tokens: dict[str, Any]) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [
        {
            "conversations": [
                {"from": ("human", "gpt")[turn % 2], "value": f"turn {turn} of {number}"} for turn in range(8)
            ]
        }
        for number in range(12)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings = CurateSettings(steps=["sharegpt"], sharegpt=SharegptSettings(conversation_tokens=40, **tokens))
    contents = []
    for workers in (1, 2):
        out = tmp_path / str(workers)
        funnel = curate(CurationRequest((str(path),), out, settings, workers=workers, chunk_rows=5)).funnel
        assert funnel.rows_kept == 12 + funnel.total("added") > 12
        assert set(funnel.steps[1].added) == {"split_between_exchanges"}
        contents.append((out / "data.jsonl").read_bytes())
    assert contents[0] == contents[1]


def test_a_split_without_a_tokenizer_is_refused_before_any_row_is_read(tmp_path: Path) -> None:
    settings = CurateSettings(steps=["sharegpt"], sharegpt=SharegptSettings(conversation_tokens=40))
    with pytest.raises(ConfigError, match=r"curate\.sharegpt\.conversation_tokens needs a tokenizer"):
        curate(CurationRequest((str(tmp_path / "none.jsonl"),), tmp_path / "out", settings))
    assert not (tmp_path / "out").exists()


def tokenizer(tokens: dict[str, Any]) -> str:
    return (Path(tokens["tokenizer"]) / "tokenizer.json").read_text(encoding="utf-8")


def _contents(row: Conversation) -> list[str]:
    return [message.content or "" for message in row.messages]


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        ("Go on.\n \n \n \n 지금 번역하기\n CopyCopy HTMLRead Aloud7 chars | 2 words", "Go on."),
        ("Which is the last of these words?3 / 3", "Which is the last of these words?"),
        ("Which is the last of these?\n4 / 9", "Which is the last of these?"),
        ("Write it in PythonShare Prompt", "Write it in Python"),
        ("next stepSave & SubmitCancel", "next step"),
        ("How?This content may violate our content policy. If you believe this to be in error, please submit your "
         "feedback — your input will aid our research in this area.", "How?"),
    ],
)  # fmt: skip
def test_what_stands_behind_questions_is_taken_out(text: str, mended: str) -> None:
    assert texts(outcome(talk(text, "Here it is."))) == [[mended, "Here it is."]]


@pytest.mark.parametrize(
    "text",
    [
        "Write x divided by 1 / 2",
        "One die shows a 32 / 2",
        "2 / 2",
        "Here is a poem. Translate now",
        "Add Copy to Clipboard",
    ],
)
def test_what_people_ask_is_no_button(text: str) -> None:
    assert texts(outcome(talk(text, "2 / 2 is a sum."))) == [[text, "2 / 2 is a sum."]]


@pytest.mark.parametrize("nothing", ["\u200b", " \n", "\ufeff"])
def test_a_conversation_ends_where_no_reply_came(nothing: str) -> None:
    met = outcome(talk("What?", "This.", "And then?", nothing))
    assert (texts(met), reasons(met)) == ([["What?", "This."]], ["error_notice"])


def test_exchanges_before_one_out_of_turn_go_on() -> None:
    met = outcome(Conversation(talk("a", "b").messages + talk("c").messages + talk("d", "e").messages, HERE))
    assert (texts(met), reasons(met)) == ([["a", "b"]], ["turns_do_not_alternate"])


CODE = "if a < b && c:\n    print('```', \"__init__\")\n\n\n    x = a | b"
PAGE_CODE = (
    '<pre><div class="bg-black"><div><span>python</span><button><svg><path d="M1"></path></svg>Copy code</button></div>'
    '<div class="p-4"><code class="!whitespace-pre hljs language-python">{}\n</code></div></div></pre>'
)
FORMULA = (
    '<span class="math math-inline"><span class="katex"><span class="katex-mathml"><math><semantics><mrow><mi>E</mi>'
    '</mrow><annotation encoding="application/x-tex">E_k = a^*</annotation></semantics></math></span>'
    '<span class="katex-html">Ek</span></span></span>'
)


def shown(inner: str) -> str:
    """What the extension that shared conversations kept of a reply: the element of ChatGPT's page."""
    return f'<div class="markdown prose w-full break-words dark:prose-invert light">{inner}</div>'


def test_html_of_the_page_becomes_markdown_and_code_is_as_it_was() -> None:
    inner = f"<p>Use <code>a*b</code>, <strong>not</strong> snake_case:</p>{PAGE_CODE.format(html.escape(CODE))}"
    table = "<table><thead><tr><th>a|b</th></tr></thead><tbody><tr><td>c</td></tr></tbody></table>"
    steps = '<ol start="3"><li>three</li><li><p>four * 5</p></li></ol>'
    met = outcome(talk("How?", shown(inner + steps + table + f"<p>Then {FORMULA}.</p>")))
    [[_, reply]] = texts(met)
    assert reply is not None
    assert reply.startswith("Use `a*b`, **not** snake_case:\n\n````python\n" + CODE + "\n````\n\n3. three\n4. four * 5")
    assert reply.endswith("| a\\|b |\n| --- |\n| c |\n\nThen $E_k = a^*$.")
    assert reasons(met) == ["html_to_markdown"]


@pytest.mark.parametrize(
    "reply",
    [
        "Put the text into `<p>`, as in <p>this</p>",
        "Sure:\n\n<h1>Stables</h1>\n<p>We care.</p>",
        "<p>Plain paragraphs, as in an e-mail.</p>",
        f"```html\n{shown('<p>x</p>')}\n```",
        f"{shown('<p>x</p>')}\nis what the page has.",
        "<!DOCTYPE html>\n<html><body><div class='markdown'>x</div></body></html>",
    ],
)
def test_talk_of_html_is_left_alone(reply: str) -> None:
    met = outcome(talk("How does a page look?", reply))
    assert isinstance(met, Conversation)


def test_any_page_is_converted_where_all_replies_are_html() -> None:
    page = talk("Who?", "<p>I <em>am</em>.</p>", "What?", "<ul><li>this</li></ul>")
    assert texts(outcome(page, html="any")) == [["Who?", "I *am*.", "What?", "- this"]]
    mixed = talk("Who?", "I am.", "A list in HTML?", "<ul><li>this</li></ul>")
    assert isinstance(outcome(mixed, html="any"), Conversation)
    form = talk("A form?", "<div><form><input name='a'></form></div>")
    assert isinstance(outcome(form, html="any"), Conversation)


def test_users_words_are_no_html() -> None:
    assert texts(outcome(talk("Why <div class='markdown'>#include <stdio.h></div>", shown("<p>So.</p>")))) == [
        ["Why <div class='markdown'>#include <stdio.h></div>", "So."]
    ]

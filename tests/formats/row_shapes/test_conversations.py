"""Numbers 61 to 76."""

from __future__ import annotations

import pytest

from tests.formats.row_shapes.spoken import TIN, context, reply, system, user
from tutelage.errors import DataError
from tutelage.types import Message

ZINC = (*TIN, user("And zinc?"), reply("Another."))

BASE = {
    "vicuna_sharegpt": [(reply("Welcome!"), *TIN)],
    "ultrachat_200k": [TIN],
    "swift_sharegpt": [(system("Be brief."), *TIN)],
    "swift_history": [(system("Be brief."), *ZINC)],
    "daring_anteater": [
        (system("Be brief."), user("What is tin?", weight=0.0), reply("A metal.")),
        (user("What is tin?", weight=0.0), reply("A metal.")),
    ],
    "lmsys_chat": [TIN],
    "wild_chat": [TIN],
    "no_robots": [(system("Be brief."), *TIN)],
    "magpie": [TIN],
    "magpie_ultra": [TIN],
}

READ = {
    "ultrachat_raw": ([TIN], {}),
    "capybara": ([ZINC], {}),
    "lmsys_chat_text": ([(user('Is "}\n {" code?'), reply("It's brackets."))], {"bad_json": 1}),
    "chatbot_arena": ([TIN], {"no_preference": 2}),
    "oasst_trees": ([ZINC], {"unwanted_reply": 1}),
    "oasst_nested_messages": ([ZINC], {}),
    "oasst_messages": ([TIN], {"not_best_path": 3}),
    "guanaco_text": ([ZINC], {"unclear_turns": 1}),
    "chatml_text": ([(system("Be brief."), *TIN)], {"unclear_turns": 1}),
    "llama2_text": ([(system("Be brief."), *ZINC)], {"unclear_turns": 1}),
    "alpaca_text": ([(user("Shorten it.\n\nThe old, old ship."), reply("The old ship."))], {"unclear_turns": 1}),
    "smoltalk2": (
        [
            (system("Be brief."), user("Weather in Oslo?"), reply("Cold.")),
            (system("Be kind."), user("Weather in Oslo?"), reply("Cold.")),
        ],
        {"bad_tools": 1, "two_system_texts": 1},
    ),
    "multilingual_thinking": (
        [
            (
                system("reasoning language: German\n\nBe brief."),
                user("What is tin?"),
                reply("A metal.", reasoning="Zinn ist ein Metall."),
            )
        ],
        {"two_replies": 1},
    ),
}


@pytest.mark.parametrize("name", BASE)
def test_shapes_that_are_a_base_shape(is_base_shape, name):
    is_base_shape(name, BASE[name])


@pytest.mark.parametrize("name", READ)
def test_shapes_with_a_reader(becomes, name):
    becomes(name, *READ[name])


def test_what_stands_beside_a_chat_is_metadata_and_never_text(base_rows, shape_rows):
    [conversation] = base_rows("wild_chat").conversations
    assert conversation.metadata == {
        "id": "h1",
        "model": "gpt-4",
        "timestamp": "2023-05-01T00:00:00",
        "language": "English",
    }
    assert shape_rows("chatbot_arena").conversations[0].metadata["model"] == "m-b"
    assert base_rows("magpie").conversations[0].metadata["category"] == "Information seeking"


def test_all_paths_of_a_tree_train_each_reply_once(shape_rows):
    outcome = shape_rows("oasst_nested_messages", tree_paths="all")
    assert [conversation.messages for conversation in outcome.conversations] == [
        ZINC,
        (user("What is tin?"), reply("A food.")),
    ]


def tree(*rows):
    return [
        {"message_id": name, "parent_id": parent, "message_tree_id": "t", "role": role, "text": text}
        for name, parent, role, text in rows
    ]


FORK = tree(
    ("1", None, "prompter", "What is tin?"),
    ("2", "1", "assistant", "A metal."),
    ("3", "2", "prompter", "And zinc?"),
    ("4", "3", "assistant", "Another."),
    ("5", "2", "prompter", "And lead?"),
    ("6", "5", "assistant", "A heavy one."),
)


def test_all_paths_of_messages_account_for_every_row(shape_rows):
    outcome = shape_rows("oasst_messages", *FORK, tree_paths="all")
    assert [conversation.messages for conversation in outcome.conversations] == [
        ZINC,
        (user("What is tin?"), context("A metal."), user("And lead?"), reply("A heavy one.")),
    ]
    assert dict(outcome.ledger.changed) == {"merged": 5}
    assert not outcome.ledger.dropped


def test_rows_of_a_tree_are_joined_wherever_they_stand(shape_rows):
    outcome = shape_rows("oasst_messages", *reversed(FORK))
    [conversation] = outcome.conversations
    assert conversation.messages[:2] == TIN
    assert conversation.address.number == 6
    assert dict(outcome.ledger.changed) == {"merged": 3}
    assert dict(outcome.ledger.dropped) == {"not_best_path": 2}


@pytest.mark.parametrize(
    ("rows", "reasons"),
    [
        (tree(("1", None, "prompter", "a"), ("2", None, "assistant", "b")), {"broken_tree": 2}),
        (tree(("1", "2", "prompter", "a"), ("2", "1", "assistant", "b")), {"broken_tree": 2}),
        (tree(("1", None, "prompter", "a"), ("1", "1", "assistant", "b")), {"duplicate_id": 1, "no_reply": 1}),
        (tree(("1", None, "prompter", "a"), ("2", "1", "robot", "b")), {"unknown_role": 2}),
        (tree(("1", None, "prompter", " "), ("2", "1", "assistant", "b")), {"unwanted_reply": 2}),
    ],
)
def test_trees_that_cannot_be_walked_are_dropped(shape_rows, rows, reasons):
    outcome = shape_rows("oasst_messages", *rows)
    assert not outcome.conversations
    assert dict(outcome.ledger.dropped) == reasons


def test_arguments_of_one_template_become_what_every_template_writes(shape_rows):
    first, second = shape_rows("smoltalk2").conversations
    assert first.template_arguments == {"enable_thinking": False}
    assert not first.tools
    [tool] = second.tools
    assert tool["function"]["name"] == "weather"
    assert second.template_arguments == {"enable_thinking": False}


@pytest.mark.parametrize("name", ["llava", "inline_pictures"])
def test_words_that_stand_for_pictures_are_refused(rows_path, load, name):
    with pytest.raises(DataError, match="take out the rows with pictures"):
        load(rows_path(name))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("guanaco_text", "### Human: a### Assistant: b### Assistant: c"),
        ("guanaco_text", "### Human: a### Human: b### Assistant: c"),
        ("chatml_text", "<|im_start|>assistant\na<|im_end|>\n<|im_start|>user\nb<|im_end|>"),
        ("chatml_text", "<|im_start|>user\na<|im_end|>\nwords<|im_start|>assistant\nb<|im_end|>"),
        ("llama2_text", "[INST] a [/INST] b </s> words"),
    ],
)
def test_texts_whose_marks_do_not_make_turns_are_dropped(shape_rows, name, text):
    assert dict(shape_rows(name, {"text": text}).ledger.dropped) == {"unclear_turns": 1}


def test_documents_that_mention_a_mark_stay_documents(put, load):
    text = "A template writes [INST] before a question, and <|im_start|> elsewhere."
    [conversation] = load(put("a.jsonl", f'{{"text": "{text}"}}\n')).conversations
    assert conversation.messages == (Message("text", text),)

"""Numbers 36 to 60."""

from __future__ import annotations

import pytest

from tests.formats.row_shapes.spoken import reply, result, system, user
from tutelage.errors import DataError
from tutelage.types import ToolCall

BASE = {
    "stanford_alpaca": [
        (user("Name a bird that swims."), reply("A penguin.")),
        (user("Shorten the sentence.\n\nThe ship, which was old, sank."), reply("The old ship sank.")),
        (user("Tell a riddle."), reply("What has keys and opens nothing? A piano.")),
        (user("Name a metal."), reply("Zinc.")),
    ],
    "gpteacher": [(user("Sort the numbers.\n\n3, 1, 2"), reply("1, 2, 3"))],
    "dolly": [
        (user("When was the bridge built?\n\nThe bridge[1] opened in 1911.[2]"), reply("It opened in 1911.")),
    ],
    "open_orca": [
        (user("Is ice lighter than water?"), reply("Yes.")),
        (system("Answer in one word."), user("Is lead a metal?"), reply("Yes.")),
    ],
    "slim_orca": [
        (
            system("Be brief."),
            user("Two plus two?", weight=0.0),
            reply("Five.", weight=0.0),
            user("Really?", weight=0.0),
            reply("Four.", weight=1.0),
        ),
    ],
    "open_hermes": [(user("What melts at zero degrees?"), reply("Ice."))],
    "platypus": [(user("What is two times three?"), reply("Six."))],
    "firefly": [(user("Say hello in French."), reply("Bonjour."))],
    "meta_math": [(user("Lea has 3 pens and buys 2. How many pens has she?"), reply("The answer is: 5"))],
    "code_feedback": [(user("Print hello in Python."), reply("print('hello')"))],
    "table_gpt": [(user("| a | b |\n| 1 | 2 |\n\nWhat is b?\nAnswer:"), reply(" 2"))],
    "web_qa": [(user("Who wrote the song?"), reply("Nobody knows."))],
    "jeopardy": [(user("It is the largest planet."), reply("Jupiter"))],
}

READ = {
    "two_replies": (
        [
            (user("Name a color."), reply("Red.")),
            (user("Name a tree.\n\nof the north"), reply("A birch.")),
        ],
        {"two_replies": 1},
    ),
    "lima": (
        [(user("How do I dry herbs?"), reply("Hang them in the shade."), user("How long?"), reply("Two weeks."))],
        {"no_reply": 1},
    ),
    "belle_multiturn": (
        [(user("Name a fruit."), reply("A pear."), user("And a nut."), reply("A hazelnut."))],
        {"unclear_turns": 1},
    ),
    "guanaco_dialog": (
        [
            (user("What floats?"), reply("Wood.")),
            (user("What floats?"), reply("Wood."), user("And what sinks?"), reply("Stone.")),
        ],
        {"unclear_turns": 1},
    ),
    "camel_ai": ([(user("What does a lens do?"), reply("It bends light."))], {}),
    "prompt_text": ([(user("Write a lesson about tides."), reply("The moon pulls the sea."))], {"prompt_in_text": 1}),
    "p3": (
        [
            (user("The _ fell into the soup. Is it mug or spoon?"), reply("spoon")),
            (user("Is it Ann or Ben?"), reply("Ann")),
        ],
        {"unwanted_reply": 1},
    ),
    "flan": ([(user("Q: Is 4 even?\nA: yes\n\nQ: Is 5 even?\nA:"), reply("no"))], {}),
    "aya": ([(user("Wie heißt der Fluss in Köln?"), reply("Der Rhein."))], {}),
    "natural_instructions": (
        [
            (user("Say whether the word is an animal.\n\nowl"), reply("yes")),
            (user("Say whether the word is an animal.\n\nspoon"), reply("no")),
        ],
        {"missing_field": 1},
    ),
    "natural_instructions_table": ([(user("Say whether the word is an animal.\n\nowl"), reply("yes"))], {}),
    "self_instruct": (
        [(user("Give the opposite.\n\nhot"), reply("cold")), (user("Give the opposite."), reply("Which word?"))],
        {},
    ),
    "synthetic_text_to_sql": (
        [
            (
                user("How many boats are there?\n\nCREATE TABLE boats (id INT);"),
                reply("SELECT COUNT(*) FROM boats;"),
            )
        ],
        {},
    ),
    "question_in_context": (
        [(user("How many boats are there?\n\nCREATE TABLE boats (id INT)"), reply("SELECT COUNT(*) FROM boats"))],
        {},
    ),
    "multiple_choice_key": (
        [
            (user("Which floats?\n\nA. iron\nB. cork"), reply("B. cork")),
            (user("Which sinks?\n\n1. 2\n2. 1"), reply("1. 2")),
        ],
        {"unclear_answer": 1},
    ),
    "multiple_choice_stem": ([(user("Cork is\n\nA. heavy\nB. light"), reply("B. light"))], {}),
    "multiple_choice_answer": (
        [
            (user("Which floats?\n\nA. iron\nB. cork"), reply("B. cork")),
            (user("Which sinks?\n\nA. iron\nB. cork"), reply("A. iron")),
            (user("Which rusts?\n\nA. iron\nB. cork"), reply("A. iron")),
        ],
        {"unclear_answer": 1},
    ),
    "multiple_choice_solution": (
        [(user("Which floats?\n\nA. iron\nB. cork"), reply("Cork is lighter than water.\n\nB. cork"))],
        {},
    ),
    "advertise_gen": ([(user("coat#red#warm"), reply("A warm red coat for cold days."))], {}),
    "capital_columns": ([(user("Name a sea."), reply("The Baltic."))], {}),
    "metharme": ([(user("Name a lake."), reply("Lake Garda."))], {}),
}


@pytest.mark.parametrize("name", BASE)
def test_shapes_that_are_a_base_shape(is_base_shape, name):
    is_base_shape(name, BASE[name])


@pytest.mark.parametrize("name", READ)
def test_shapes_with_a_reader(becomes, name):
    becomes(name, *READ[name])


def test_inputs_that_say_there_is_none_are_named_once(base_rows):
    notes = base_rows("stanford_alpaca").ledger.notes
    assert sum("says that there is none, such as N/A" in note for note in notes) == 1


def test_turns_of_moss_go_by_their_number_and_its_commands_are_calls(shape_rows):
    outcome = shape_rows("moss")
    counted, calculated = outcome.conversations
    assert counted.messages[0].content.startswith("You are an assistant whose name is MOSS.\nCapabilities")
    assert counted.messages[1:] == tuple(
        message for number in range(1, 11) for message in (user(f"Count to {number}."), reply(str(number)))
    )
    assert not counted.tools
    assert calculated.messages == (
        system("You are an assistant whose name is MOSS.\n"),
        user("What is 17 times 3?"),
        reply(
            None,
            ToolCall("Calculate", {"expression": "17*3"}),
            ToolCall("Calculate", {"expression": "51/3"}),
            reasoning="I calculate it.",
        ),
        result("51"),
        result("17"),
        reply("It is 51."),
    )
    [tool] = calculated.tools
    assert tool["function"]["name"] == "Calculate"
    assert tool["function"]["parameters"]["required"] == ["expression"]
    assert calculated.metadata == {"id": 2, "category": "tool"}
    assert dict(outcome.ledger.dropped) == {"calls_in_text": 1}


@pytest.mark.parametrize(
    ("chat", "reason"),
    [
        ({"turn_1": {"Human": "a", "MOSS": "b"}, "turn_3": {"Human": "a", "MOSS": "b"}}, "unclear_turns"),
        ({"turn_1": {"Human": "a", "MOSS": "b"}, "last": {}}, "unclear_turns"),
        ({"turn_1": {"Human": "a", "MOSS": "b", "Commands": "draw a cat"}}, "calls_in_text"),
    ],
)
def test_turns_of_moss_that_cannot_be_told_are_dropped(shape_rows, chat, reason):
    assert dict(shape_rows("moss", {"chat": chat}).ledger.dropped) == {reason: 1}


def test_a_result_of_moss_that_is_not_there_drops_the_row(shape_rows):
    turn_1 = {"Human": "a", "Commands": 'Solve("x")', "Tool Responses": "None", "MOSS": "b"}
    row = {"meta_instruction": "- Solver: enabled. API: Solve(equation)", "chat": {"turn_1": turn_1, "turn_2": None}}
    outcome = shape_rows("moss", row)
    assert "no result of Solve" in outcome.ledger.drop_samples["calls_in_text"][0].detail


def test_which_side_of_hc3_is_learned_must_be_said(rows_path, load):
    path = rows_path("hc3_human")
    with pytest.raises(DataError, match="fit several shapes equally well") as caught:
        load(path)
    assert "hc3_human" in str(caught.value)
    assert "hc3_chatgpt" in str(caught.value)
    question = user("Why is the sky blue?")
    human = load(path, shape="hc3_human").conversations
    assert [conversation.messages for conversation in human] == [
        (question, reply("Air scatters blue.")),
        (question, reply("Blue scatters most.")),
    ]
    [model] = load(rows_path("hc3_chatgpt"), shape="hc3_chatgpt").conversations
    assert model.messages == (question, reply("The sky is blue because of scattering."))


def test_ids_without_texts_are_refused(rows_path, load):
    with pytest.raises(DataError, match="Tasks of ids without their texts"):
        load(rows_path("pretokenized_tasks"))


def test_labels_of_tasks_are_metadata(shape_rows):
    assert shape_rows("flan").conversations[0].metadata == {"source": "CoT", "category": "parity"}
    assert shape_rows("aya").conversations[0].metadata == {
        "language": "German",
        "category": "original-annotations",
    }
    assert shape_rows("natural_instructions").conversations[0].metadata == {"id": "t1-a"}


def test_a_task_in_one_object_is_one_row(put, load, rows_path):
    path = put("task.json", rows_path("natural_instructions").read_bytes())
    assert len(load(path).conversations) == 2


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"question": "q", "choices": ["a", "a"], "answer": "a"}, "unclear_answer"),
        ({"question": "q", "choices": ["a", "b"], "answer": "C"}, "unclear_answer"),
        ({"question": "q", "choices": [1, 2], "answer": 0}, "wrong_type"),
        ({"question": "q", "choices": {"label": ["A"], "text": ["a", "b"]}, "answer": 0}, "wrong_type"),
    ],
)
def test_answers_that_are_no_choice_drop_the_row(shape_rows, row, reason):
    assert dict(shape_rows("multiple_choice_answer", row).ledger.dropped) == {reason: 1}


def test_choices_may_be_a_list_of_objects(shape_rows):
    choices = [{"label": "A", "text": "iron"}, {"label": "B", "text": "cork"}]
    [conversation] = shape_rows("multiple_choice_key", {"question": "q", "choices": choices, "answerKey": "B"}).texts
    assert conversation == [("user", "q\n\nA. iron\nB. cork"), ("assistant", "B. cork")]

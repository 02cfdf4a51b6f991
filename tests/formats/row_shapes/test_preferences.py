"""Numbers 97 to 105."""

from __future__ import annotations

import pytest

from tests.formats.row_shapes.spoken import DOUBT, TIN, context, reply, system, user
from tutelage.errors import DataError
from tutelage.formats import row_shapes

READ = {
    "hh_rlhf": ([DOUBT], {"differing_prompts": 1, "unclear_turns": 1, "empty_reply": 1}),
    "ultrafeedback": ([TIN], {"no_preference": 1}),
    "trl_preference": (
        [TIN, (user("What is tin?"), context("A food."), user("Really?"), reply("A metal."))],
        {"differing_prompts": 1},
    ),
    "orca_dpo": ([(system("Be brief."), *TIN)], {"no_preference": 1}),
    "prompt_chosen": ([TIN, DOUBT], {}),
    "instruction_chosen": ([(user("Sort it.\n\n2, 1"), reply("1, 2"))], {}),
    "distilabel_input": ([(system("Be brief."), *TIN)], {}),
    "chosen_response": ([TIN], {}),
    "llamafactory_ranking": ([(system("Be brief."), *DOUBT)], {}),
    "llamafactory_v1_ranking": ([(user("What is tin?", weight=0.0), reply("A metal.", weight=1.0))], {}),
    "nectar": ([TIN], {}),
    "hh_rlhf_cn": ([DOUBT], {}),
    "help_steer": ([TIN, DOUBT], {"lower_rated": 2}),
}


@pytest.mark.parametrize("name", READ)
def test_the_better_side_alone_is_read(shape_rows, name):
    expected, dropped = READ[name]
    outcome = shape_rows(name)
    assert [conversation.messages for conversation in outcome.conversations] == expected
    assert dict(outcome.ledger.dropped) == dropped


def test_a_rating_that_is_no_number_counts_nowhere(shape_rows):
    [conversation] = shape_rows("ultrafeedback").conversations
    assert conversation.metadata == {"source": "own", "model": "m-b", "score": 14 / 3}


def test_without_ratings_the_mean_that_the_row_has_is_taken_and_the_overall_score_never(shape_rows):
    completions = [
        {"response": "a", "overall_score": 10, "fine-grained_score": 1.25},
        {"response": "b", "overall_score": 3, "fine-grained_score": "4.5"},
        {"response": "c", "overall_score": 9},
    ]
    row = {"instruction": "q", "completions": completions}
    assert shape_rows("ultrafeedback", row).texts == [[("user", "q"), ("assistant", "b")]]


def test_scores_and_models_are_metadata(shape_rows):
    assert shape_rows("trl_preference").conversations[0].metadata == {"id": "p1", "score": 8.5}
    assert shape_rows("nectar").conversations[0].metadata == {"model": "m-b"}
    assert [conversation.metadata["score"] for conversation in shape_rows("help_steer").conversations] == [4, 3]


def test_of_rows_that_were_rated_alike_the_first_is_read(shape_rows):
    row = {"prompt": "q", "helpfulness": 4, "correctness": 4}
    outcome = shape_rows("help_steer", row | {"response": "a"}, row | {"response": "b"})
    assert outcome.texts == [[("user", "q"), ("assistant", "a")]]


@pytest.mark.parametrize(
    ("name", "row", "reason"),
    [
        ("trl_preference", {"chosen": [{"role": "assistant", "content": "a"}], "rejected": []}, "missing_field"),
        ("nectar", {"prompt": "q", "answers": [{"answer": " ", "rank": 1}]}, "no_preference"),
        ("help_steer", {"prompt": " ", "response": "a", "helpfulness": 1, "correctness": 1}, "missing_field"),
        (
            "hh_rlhf",
            {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nHuman: b\n\nAssistant: c"},
            "unclear_turns",
        ),
    ],
)
def test_rows_without_a_better_side_are_dropped(shape_rows, name, row, reason):
    assert dict(shape_rows(name, row).ledger.dropped) == {reason: 1}


@pytest.mark.parametrize("name", [shape.name for shape in row_shapes().values() if shape.family == "evaluation_sets"])
def test_evaluation_sets_are_refused_with_what_to_do(rows_path, load, name):
    with pytest.raises(DataError) as caught:
        load(rows_path(name))
    assert row_shapes()[name].title in str(caught.value)
    assert row_shapes()[name].fix in str(caught.value)


def test_answers_of_an_evaluation_set_are_read_where_the_user_says_so(rows_path, load):
    [conversation] = load(rows_path("alpaca_eval"), shape="alpaca").conversations
    assert conversation.messages == TIN

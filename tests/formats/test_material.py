from __future__ import annotations

from pathlib import Path

import pytest

from tutelage.errors import DataError

MATERIAL = Path(__file__).resolve().parents[2].parent / "shared/material/data"
pytestmark = pytest.mark.skipif(not MATERIAL.is_dir(), reason="the collection of published files is not here")


FILES = [
    ("fastchat_dummy_conversation.json", 500, {}),
    ("llamafactory_glaive_toolcall_en_demo.json", 300, {}),
    ("gsm8k_train.jsonl", 7473, {}),
    ("flan_cot_gsm8k.tsv", 7473, {"columns": {"prompt": "0", "response": "2"}}),
    ("flan_cot_aqua.tsv", 2728, {"columns": {"prompt": "0", "response": "2"}}),
    ("flan_cot_qasc.tsv", 1084, {"columns": {"prompt": "0", "response": "2"}}),
    ("flan_cot_sensemaking.tsv", 6070, {"columns": {"prompt": "0", "response": "2"}}),
    ("llamafactory_v1_sft_demo.jsonl", 500, {}),
    ("llamafactory_reason_tool_use_demo_50.jsonl", 50, {}),
    ("llamafactory_identity.json", 91, {}),
    ("llamafactory_c4_demo.jsonl", 300, {}),
    ("axolotl_alpaca_alpaca.json", 2, {}),
    ("axolotl_conversation.json", 1, {}),
    ("torchtune_chat_tiny.json", 1, {}),
    ("torchtitan_sft_test.json", 10, {}),
    ("tinker_conversations.jsonl", 128, {}),
    ("gpteacher_toolformer06.json", 2396, {}),
    ("bbh_date_understanding.json", 250, {}),
    ("bbh_penguins_in_a_table.json", 146, {}),
    ("humaneval.jsonl.gz", 164, {"columns": {"prompt": "prompt", "response": "canonical_solution"}}),
    ("msswift_alpaca.csv", 3, {}),
    ("msswift_alpaca2.csv", 3, {}),
    ("msswift_alpaca.jsonl", 3, {}),
    ("msswift_chatml.jsonl", 3, {}),
    ("msswift_conversations.jsonl", 3, {}),
    ("msswift_sharegpt.jsonl", 3, {}),
    ("msswift_swift_multi.json", 3, {}),
    ("msswift_swift_multi.jsonl", 3, {}),
    ("msswift_swift_single.csv", 3, {}),
    ("msswift_swift_single.jsonl", 3, {}),
]
READ_WHOLE = {name for name, _, _ in FILES}


@pytest.mark.parametrize(("name", "rows", "options"), FILES)
def test_published_files_are_read_whole(load, name, rows, options):
    result = load(MATERIAL / name, **options)
    assert len(result.conversations) == rows
    assert not result.ledger.dropped
    assert not result.ledger.changed


def test_the_row_with_a_line_separator_in_it(load):
    result = load(MATERIAL / "gsm8k_train.jsonl")
    holding = [
        conversation
        for conversation in result.conversations
        if any("\u2028" in (said.content or "") for said in conversation.messages)
    ]
    assert [one.address.number for one in holding] == [2382]


def test_reasoning_calls_and_tools(load):
    result = load(MATERIAL / "llamafactory_reason_tool_use_demo_50.jsonl")
    turns = [
        message
        for conversation in result.conversations
        for message in conversation.messages
        if message.role == "assistant"
    ]
    assert len(turns) == 112
    assert all(turn.reasoning for turn in turns)
    assert sum(len(turn.tool_calls) for turn in turns) == 41 + 9 * 2 + 3 * 3
    assert sum(bool(conversation.tools) for conversation in result.conversations) == 48
    glaive = load(MATERIAL / "llamafactory_glaive_toolcall_en_demo.json").conversations
    assert sum(bool(message.tool_calls) for one in glaive for message in one.messages) == 211
    assert sum(message.role == "tool" for one in glaive for message in one.messages) == 211


def test_weights_of_turns(load):
    result = load(MATERIAL / "llamafactory_v1_sft_demo.jsonl")
    assert {
        (message.role, message.weight) for conversation in result.conversations for message in conversation.messages
    } == {
        ("user", 0.0),
        ("assistant", 1.0),
    }


def test_rows_that_cannot_be_learned_from(load):
    assert dict(load(MATERIAL / "openinstruct_rlvr_test.jsonl").ledger.dropped) == {"no_reply": 100}
    assert dict(load(MATERIAL / "msswift_multi_modal_2.jsonl").ledger.dropped) == {"unsupported_content": 3}


def test_of_pairs_the_chosen_turn_is_the_reply(load):
    result = load(MATERIAL / "llamafactory_dpo_en_demo.json")
    assert len(result.conversations) == 300
    assert not result.ledger.dropped
    assert not result.ledger.changed
    replies = [message for one in result.conversations for message in one.messages if message.role == "assistant"]
    assert sum(message.weight == 0 for message in replies) == 263
    assert sum(message.weight is None for message in replies) == 300


READ = {
    "llamafactory_dpo_en_demo.json": (300, "llamafactory_ranking"),
    "llamafactory_v1_dpo_demo.jsonl": (10, "llamafactory_v1_ranking"),
    "oasst_en_100_message.jsonl": (100, "oasst_nested_messages"),
    "selfinstruct_seed_tasks.jsonl": (175, "self_instruct"),
    "torchtune_hh_rlhf_tiny.json": (1, "trl_preference"),
}
REFUSED = {
    "anthropic_evals_corrigible.jsonl": "model-written evaluations",
    "arenahard_question.jsonl": "Arena-Hard",
    "bfcl_irrelevance.jsonl": "Berkeley function calling leaderboard",
    "bfcl_live_simple.jsonl": "Berkeley function calling leaderboard",
    "bfcl_live_simple_answers.jsonl": "Berkeley function calling leaderboard",
    "bfcl_multiple.jsonl": "Berkeley function calling leaderboard",
    "bfcl_parallel_multiple.jsonl": "Berkeley function calling leaderboard",
    "bfcl_simple_java.jsonl": "Berkeley function calling leaderboard",
    "fastchat_judge_prompts.jsonl": "Prompts of a judge",
    "fastchat_mt_bench_question.jsonl": "MT-bench",
    "fastchat_vicuna_bench_question.jsonl": "Vicuna bench",
    "gorilla_openfunctions_v1_test.json": "OpenFunctions",
    "humaneval.jsonl.gz": "HumanEval",
    "humanevalpack_python.jsonl": "HumanEvalPack",
    "ifeval_input_data.jsonl": "IFEval",
    "msswift_multi_modal_1.jsonl": "pictures",
    "selfinstruct_user_oriented.jsonl": "user-oriented",
}
NO_SHAPE = {
    "flan_cot_aqua.tsv": "keys 0",
    "flan_cot_gsm8k.tsv": "keys 0",
    "flan_cot_qasc.tsv": "keys 0",
    "flan_cot_sensemaking.tsv": "keys 0",
    "hermes_few_shot.json": "keys example",
    "llamafactory_dataset_info.json": "keys identity",
    "msswift_swift_pre.csv": "keys response",
    "msswift_swift_pre.jsonl": "keys response",
    "oasst_prompt_lottery_en_250.jsonl": "not_an_object",
    "oasst_realistic_seed_data.json": "keys task_message_id",
    "octopack_oasst_rawin.jsonl": "keys instruction",
    "taubench_retail_fewshot.jsonl": "keys messages_display",
}
BASE = {
    "gsm8k_test.jsonl": 1319,
    "msswift_new_special_tokens.txt": 1,
    "octopack_oasstcommitpackft.jsonl": 151,
    "t0_adversarial_qa_dbert_answer_the_following_q.jsonl": 200,
    "t0_ag_news_classify.jsonl": 200,
    "t0_common_gen_Given_concepts_type_1.jsonl": 200,
    "t0_commonsense_qa_answer_given_question_without_options.jsonl": 200,
}
WITHOUT_A_CONVERSATION = {
    "msswift_multi_modal_2.jsonl": {"unsupported_content": 3},
    "msswift_multi_modal_3.jsonl": {"unsupported_content": 3},
    "openinstruct_rlvr_test.jsonl": {"no_reply": 100},
}


@pytest.mark.parametrize("name", READ)
def test_files_of_a_recognized_shape_are_read_whole(load, name):
    rows, shape = READ[name]
    result = load(MATERIAL / name)
    assert any(f"is read as {shape} (" in note for note in result.ledger.notes)
    assert len(result.conversations) == rows
    assert not result.ledger.dropped


@pytest.mark.parametrize("name", REFUSED)
def test_files_that_are_never_trained_on_are_refused_by_name(load, name):
    with pytest.raises(DataError, match="Rows of this shape are not trained on") as caught:
        load(MATERIAL / name)
    assert REFUSED[name] in str(caught.value)
    assert caught.value.fix


@pytest.mark.parametrize("name", NO_SHAPE)
def test_files_of_no_known_shape_are_refused_with_what_was_seen(load, name):
    with pytest.raises(DataError, match="No row") as caught:
        load(MATERIAL / name)
    assert NO_SHAPE[name] in str(caught.value)


@pytest.mark.parametrize("name", BASE)
def test_files_of_a_base_shape_are_read_whole(load, name):
    result = load(MATERIAL / name)
    assert not any("is read as" in note for note in result.ledger.notes)
    assert len(result.conversations) == BASE[name]
    assert not result.ledger.dropped


@pytest.mark.parametrize("name", WITHOUT_A_CONVERSATION)
def test_files_without_a_conversation_say_why(load, name):
    result = load(MATERIAL / name)
    assert not result.conversations
    assert dict(result.ledger.dropped) == WITHOUT_A_CONVERSATION[name]


def test_every_file_of_the_collection_is_in_a_test():
    tested = {*READ, *REFUSED, *NO_SHAPE, *BASE, *WITHOUT_A_CONVERSATION, *READ_WHOLE}
    assert {path.name for path in MATERIAL.iterdir()} - {"INDEX.tsv"} == tested


def test_a_wrapper_with_a_canary_is_named_as_a_benchmark(load):
    for name in ("bbh_date_understanding.json", "bbh_penguins_in_a_table.json"):
        assert any("canary" in note for note in load(MATERIAL / name).ledger.notes)

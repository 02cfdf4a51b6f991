from __future__ import annotations

from pathlib import Path

import pytest

MATERIAL = Path(__file__).resolve().parents[2].parent / "shared/material/data"
pytestmark = pytest.mark.skipif(not MATERIAL.is_dir(), reason="the collection of published files is not here")


@pytest.mark.parametrize(
    ("name", "rows", "options"),
    [
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
    ],
)
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

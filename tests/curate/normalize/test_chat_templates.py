"""Conversations that were rendered into one text: split where that can be done in one way, else said."""

from __future__ import annotations

import pytest

from tutelage.curate.normalize.chat_templates import chat_formats, rendered
from tutelage.types import Address, Conversation, Message

TURNS = {
    "chatml": "<|im_start|>system\nBe kind.<|im_end|>\n"
    "<|im_start|>user\nHi there<|im_end|>\n<|im_start|>assistant\nHello!<|im_end|>\n",
    "llama3": "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi there<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nHello!<|eot_id|>",
    "llama2": "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHi there [/INST] Hello! </s><s>[INST] More [/INST] Yes. </s>",
    "gemma": "<bos><start_of_turn>user\nHi there<end_of_turn>\n<start_of_turn>model\nHello!<end_of_turn>\n",
    "phi": "<|system|>\nBe kind.<|end|>\n<|user|>\nHi there<|end|>\n<|assistant|>\nHello!<|end|>\n",
    "oasst": "<|prompter|>Hi there<|endoftext|><|assistant|>Hello!<|endoftext|>",
    "deepseek": "<｜begin▁of▁sentence｜><｜User｜>Hi there<｜Assistant｜>Hello!<｜end▁of▁sentence｜>",
    "openchat": "GPT4 Correct User: Hi there<|end_of_turn|>GPT4 Correct Assistant: Hello!<|end_of_turn|>",
    "guanaco": "### Human: Hi there\n### Assistant: Hello!",
    "alpaca": "Below is an instruction that describes a task. Write a response that completes the request.\n\n"
    "### Instruction:\nHi\n\n### Input:\nthere\n\n### Response:\nHello!",
    "orca": "### System:\nBe kind.\n\n### User:\nHi there\n\n### Response:\nHello!",
    "vicuna": "A chat between a curious user and an artificial intelligence assistant. The assistant is kind. "
    "USER: Hi there ASSISTANT: Hello!</s>",
    "hh_rlhf": "\n\nHuman: Hi there\n\nAssistant: Hello!",
}


def document(text: str) -> Conversation:
    return Conversation((Message("text", text),), Address("a.jsonl", 1))


def chat(*texts: str) -> Conversation:
    roles = ("user", "assistant") * len(texts)
    return Conversation(tuple(map(Message, roles, texts)), Address("a.jsonl", 1))


def test_every_format_has_a_text_here() -> None:
    assert set(TURNS) == {chat_format.name for chat_format in chat_formats()}


@pytest.mark.parametrize("name", TURNS)
def test_a_document_that_is_a_conversation_is_split(name: str) -> None:
    met = rendered(document(TURNS[name]))
    assert met is not None
    assert met.conversation is not None
    assert met.name == name
    dialog = [message for message in met.conversation.messages if message.role != "system"]
    assert [message.role for message in dialog[:2]] == ["user", "assistant"]
    assert dialog[0].content in ("Hi there", "Hi\n\nthere")
    assert dialog[1].content == "Hello!"
    assert not any(
        sign in (message.content or "") for message in met.conversation.messages for sign in ("<|", "###", "[INST")
    )


def test_system_prompts_are_kept_but_for_what_the_format_always_says() -> None:
    for name, system in {"chatml": "Be kind.", "llama2": "Be kind.", "alpaca": None}.items():
        met = rendered(document(TURNS[name]))
        assert met is not None
        assert met.conversation is not None
        found = [message.content for message in met.conversation.messages if message.role == "system"]
        assert found == ([] if system is None else [system])


@pytest.mark.parametrize(
    ("prompt", "reply"),
    [
        ("<|im_start|>user\nHi there<|im_end|>\n<|im_start|>assistant\n", "Hello!"),
        ("[INST] Hi there [/INST]", "Hello!"),
        ("### Instruction:\nHi there\n\n### Response:", "Hello!"),
        ("### Human: Hi there\n### Assistant:", " Hello!"),
    ],
)
def test_a_prompt_that_ends_in_the_header_of_its_reply(prompt: str, reply: str) -> None:
    met = rendered(chat(prompt, reply))
    assert met is not None
    assert met.conversation is not None
    assert [message.content for message in met.conversation.messages] == ["Hi there", "Hello!"]


@pytest.mark.parametrize(
    "row",
    [
        chat("Hi", "Hello!<|im_end|>\n<|im_start|>user\nAnd now?"),
        chat("Hi", "<|start_header_id|>assistant<|end_header_id|>\n\nHello!"),
        document("<|im_start|>user\nHi<|im_end|>\n<|im_start|>user\nHi again<|im_end|>"),
        document("Once upon a time.\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>"),
        document("[INST] only a question [/INST]"),
    ],
)
def test_marks_that_cannot_be_split_in_one_way_are_evidence(row: Conversation) -> None:
    met = rendered(row)
    if met is None:
        assert "[INST]" not in (row.messages[0].content or "")
        return
    assert met.conversation is None
    assert any(sign in met.evidence for sign in ("im_start", "start_header_id", "INST"))


@pytest.mark.parametrize(
    "row",
    [
        chat(
            "What is ChatML?",
            "A turn begins like this:\n```\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n```",
        ),
        chat("What is ChatML?", "It writes `<|im_start|>user` and `<|im_end|>`."),
        chat("Write a prompt.", "# Prompt\n\n### Instruction:\nSummarize the text.\n\n### Response:\nThe summary."),
        chat("Write a dialog.", "Human: Who are you?\nAssistant: A friend.\nHuman: Good."),
        chat("Explain.", "The USER: field holds the name."),
        document("Human: the word has a long history.\nIt is Latin."),
        document("A README.\n\n### Instruction:\nRun it.\n"),
        chat("Hi", "Hello!"),
    ],
)
def test_talk_of_formats_headings_and_dialogs_are_left_alone(row: Conversation) -> None:
    assert rendered(row) is None


def test_the_other_fields_of_a_row_stay() -> None:
    row = Conversation(
        (Message("user", "[INST] Hi there [/INST]"), Message("assistant", "Hello!", weight=0.5)),
        Address("a.jsonl", 7),
        template_arguments={"enable_thinking": False},
    )
    met = rendered(row)
    assert met is not None
    assert met.conversation is not None
    assert met.conversation.messages[-1].weight == 0.5
    assert met.conversation.template_arguments == {"enable_thinking": False}
    assert met.conversation.address == row.address

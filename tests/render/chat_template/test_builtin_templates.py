"""Formats chosen by name: the strings of each, the tokens it needs, and names that are none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tutelage.audit.template_findings import checkpoint_findings
from tutelage.errors import TemplateError
from tutelage.render import ChatTemplate, Renderer, Tokenizer
from tutelage.render.chat_template.builtin_templates import builtin_templates, find_builtin, is_path
from tutelage.types import Address, Conversation, Drop, Message

NAMES = ("chatml", "llama2", "llama3", "alpaca", "vicuna", "zephyr", "plain", "lima")
SYSTEM, ASKED, REPLY = (
    "You are a helpful assistant.",
    "What is the capital of France?",
    "The capital of France is Paris.",
)
CHAT = [
    {"role": "system", "content": SYSTEM},
    {"role": "user", "content": ASKED},
    {"role": "assistant", "content": REPLY},
]
AGAIN = [*CHAT, {"role": "user", "content": "And of Spain?"}]


def rendered(name: str, messages: list[dict[str, str]], *, prompt: bool = False) -> str:
    template = ChatTemplate(find_builtin(name).source, named_tokens={"eos_token": "</e>"})
    return template.render(messages, generation_prompt=prompt)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "llama2",
            f"<s>[INST] <<SYS>>\n{SYSTEM}\n<</SYS>>\n\n{ASKED} [/INST] {REPLY}</s>",
        ),
        (
            "llama3",
            f"<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n{SYSTEM}<|eot_id|>"
            f"<|start_header_id|>user<|end_header_id|>\n\n{ASKED}<|eot_id|>"
            f"<|start_header_id|>assistant<|end_header_id|>\n\n{REPLY}<|eot_id|>",
        ),
        (
            "chatml",
            f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n{ASKED}<|im_end|>\n"
            f"<|im_start|>assistant\n{REPLY}<|im_end|>\n",
        ),
        ("alpaca", f"{SYSTEM}\n\n### Instruction:\n{ASKED}\n\n### Response:\n{REPLY}</e>\n\n"),
        ("vicuna", f"{SYSTEM} USER: {ASKED} ASSISTANT: {REPLY}</e>"),
        ("zephyr", f"<|system|>\n{SYSTEM}</e>\n<|user|>\n{ASKED}</e>\n<|assistant|>\n{REPLY}</e>\n"),
        ("plain", f"{SYSTEM}\n{ASKED}\n{REPLY}</e>\n"),
        ("lima", f"{SYSTEM}<|end_of_turn|>{ASKED}<|end_of_turn|>{REPLY}<|end_of_turn|>"),
    ],
)
def test_a_conversation_in_each_format(name: str, expected: str) -> None:
    assert rendered(name, CHAT) == expected


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("llama2", "</s><s>[INST] And of Spain? [/INST]"),
        ("llama3", "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nAnd of Spain?<|eot_id|>"
                   "<|start_header_id|>assistant<|end_header_id|>\n\n"),
        ("chatml", "<|im_end|>\n<|im_start|>user\nAnd of Spain?<|im_end|>\n<|im_start|>assistant\n"),
        ("alpaca", "</e>\n\n### Instruction:\nAnd of Spain?\n\n### Response:\n"),
        ("vicuna", "</e>USER: And of Spain? ASSISTANT:"),
        ("zephyr", "</e>\n<|user|>\nAnd of Spain?</e>\n<|assistant|>\n"),
        ("plain", "</e>\nAnd of Spain?\n"),
        ("lima", "<|end_of_turn|>And of Spain?<|end_of_turn|>"),
    ],
)  # fmt: skip
def test_the_prompt_of_a_second_turn_goes_on_from_the_first(name: str, end: str) -> None:
    first = rendered(name, CHAT).rstrip()
    prompt = rendered(name, AGAIN, prompt=True)
    assert prompt.startswith(first)
    assert prompt.endswith(end)


def test_without_a_system_turn_two_formats_open_with_their_own_sentences() -> None:
    opened = {name: rendered(name, CHAT[1:]) for name in NAMES}
    assert opened["alpaca"].startswith("Below is an instruction")
    assert opened["vicuna"].startswith("A chat between a curious user")
    for name in ("chatml", "llama2", "llama3", "zephyr", "plain"):
        assert "system" not in opened[name].lower()
        assert "SYS" not in opened[name]


def test_every_format_has_its_file_and_its_facts() -> None:
    known = builtin_templates()
    assert tuple(known) == NAMES
    for one in known.values():
        assert one.description.endswith(".")
        assert all(token in one.source or "eos_token" in one.source for token in one.control_tokens)


@pytest.mark.parametrize("name", NAMES)
def test_every_format_is_proven_on_a_tokenizer_that_has_its_tokens(
    name: str, tmp_path: Path, write_model_folder: Callable[..., Path]
) -> None:
    named = find_builtin(name)
    tokens = named.control_tokens or ("<e>",)
    folder = write_model_folder(tmp_path / name, template=None, control_tokens=tokens, stop=named.stop or "<e>")
    tokenizer = Tokenizer.load(folder)
    named.check(tokenizer)
    template = ChatTemplate(named.source, named_tokens=tokenizer.named_tokens)
    messages = tuple(
        Message(one["role"], one["content"]) for one in [*AGAIN, {"role": "assistant", "content": "Madrid."}]
    )
    (outcome,) = Renderer(tokenizer, template).prove([Conversation(messages, Address("rows.jsonl", 1))])
    assert not isinstance(outcome, Drop), outcome
    examples = outcome.examples
    assert sorted(turn.message for example in examples for turn in example.turns) == [2, 4]
    # This tokenizer reads a blank line at a prompt's end otherwise than before a reply, so llama3 needs two sequences.
    assert len(examples) == (2 if name == "llama3" else 1)
    trained = "".join(tokenizer.decode(example.ids[example.weights != 0].tolist()) for example in examples)
    assert trained.count(named.stop or "<e>") == 2
    assert ASKED not in trained
    findings = checkpoint_findings(template, tokenizer, text_markers=named.text_markers)
    assert [finding.key for finding in findings if finding.severity != "info"] == []


@pytest.mark.parametrize("name", ["chatml", "llama2", "llama3"])
def test_control_tokens_are_never_added_silently(
    name: str, tmp_path: Path, write_model_folder: Callable[..., Path]
) -> None:
    folder = write_model_folder(tmp_path / "base", template=None, control_tokens=("<e>",), stop="<e>")
    with pytest.raises(TemplateError, match="needs control tokens") as caught:
        find_builtin(name).check(Tokenizer.load(folder))
    assert find_builtin(name).control_tokens[0] in str(caught.value.found)
    assert "plain" in str(caught.value.fix)


def test_roles_that_a_format_does_not_know_are_refused() -> None:
    for name in NAMES:
        with pytest.raises(ValueError, match=r"tool|turns by turns"):
            rendered(name, [*CHAT[1:], {"role": "tool", "content": "42"}])


@pytest.mark.parametrize(("wrong", "near"), [("chatmll", "chatml"), ("Llama-3", "llama3"), ("ALPACA", "alpaca")])
def test_the_nearest_name_is_given(wrong: str, near: str) -> None:
    with pytest.raises(TemplateError, match="no chat format named") as caught:
        find_builtin(wrong)
    assert f"did you mean '{near}'" in str(caught.value.fix)
    assert "vicuna" in str(caught.value.expected)


def test_what_is_a_path_and_what_a_name() -> None:
    assert all(is_path(one) for one in ("./chatml", "chatml.jinja", "x.j2", "a/b", "notes.TXT", "a\\b"))
    assert not any(is_path(one) for one in ("chatml", "my.template", "llama3"))


@pytest.mark.parametrize(
    ("name", "one_line"),
    [
        (
            "llama2",
            "<s>[INST] <<SYS>> You are a helpful assistant. <</SYS>> What is the capital of France? [/INST] "
            "The capital of France is Paris.</s>",
        ),
        (
            "llama3",
            "<|begin_of_text|><|start_header_id|>system<|end_header_id|> You are a helpful assistant.<|eot_id|> "
            "<|start_header_id|>user<|end_header_id|> What is the capital of France?<|eot_id|> "
            "<|start_header_id|>assistant<|end_header_id|> The capital of France is Paris.<|eot_id|>",
        ),
        (
            "chatml",
            "<|im_start|>system You are a helpful assistant.<|im_end|> <|im_start|>user What is the capital of France?"
            "<|im_end|> <|im_start|>assistant The capital of France is Paris.<|im_end|>",
        ),
    ],
)
def test_formats_are_those_that_guides_print_on_one_line(name: str, one_line: str) -> None:
    """Line breaks become spaces there. Llama 3 has none between turns, though such a line shows one."""
    said = " ".join(rendered(name, CHAT).split())
    assert said == (one_line.replace("<|eot_id|> <", "<|eot_id|><") if name == "llama3" else one_line)

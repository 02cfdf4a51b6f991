"""The Modelfile: stops and sampling spelled out, and a Go template that writes what the Jinja template writes."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.conftest import CHATML
from tutelage.errors import TemplateError
from tutelage.export.gguf.ollama import chat_texts, go_template, modelfile
from tutelage.render import ChatTemplate, Renderer, Tokenizer
from tutelage.types import Message

LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|im_start|>' + m.role + '<|h|>\n\n' + m.content | trim + '<|im_end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant<|h|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{% set first = messages[0].content + '\n\n' %}"
    "{% set rest = messages[1:] %}{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}"
    "{% for m in rest %}{% set role = 'model' if m.role == 'assistant' else m.role %}"
    "{{ '<start>' + role + '\n' + (first if loop.first else '') + m.content | trim + '<end>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start>model\n' }}{% endif %}"
)
OPENING = "{{ '<|im_start|>system\nYou are \"é😀\".<|im_end|>\n' }}"
DEFAULT = "{%- if messages[0].role != 'system' %}" + OPENING + "{% endif %}" + CHATML
TALK = [Message("user", "Is it 7?"), Message("assistant", "It\n\nis."), Message("user", "Why {{ so }}?")]


def by_go(template: str, messages: Sequence[Message], system: str = "") -> str:
    """A reading of the few actions that are written: constants, range, if, and what they hold."""
    if system and messages[0].role != "system":
        messages = [Message("system", system), *messages]  # as Ollama does with SYSTEM
    head, _, body = template.partition("{{ range $i, $m := .Messages }}")
    text = _constants(head)
    given = next((str(message.content) for message in messages if message.role == "system"), "")
    for index, message in enumerate(messages):
        stack = [True]
        for action in _actions(body):
            if action.startswith("if "):
                stack.append(stack[-1] and _holds(action[3:], message, index, len(messages), given))
            elif action == "end":
                if len(stack) > 1:
                    stack.pop()
            elif stack[-1]:
                text += {"$m.Content": str(message.content), "$.System": given}.get(action) or json.loads(action)
    return text


def _actions(body: str) -> list[str]:
    found, place = [], 0
    while place < len(body):
        assert body.startswith("{{ ", place), body[place : place + 20]
        constant = re.compile(r'\{\{ ("(?:[^"\\]|\\.)*") \}\}').match(body, place)
        match = constant or re.compile(r"\{\{ ([^{}]*?) \}\}").match(body, place)
        assert match is not None
        found.append(match[1])
        place = match.end()
    return found


def _constants(head: str) -> str:
    return "".join(json.loads(action) for action in _actions(head))


def _holds(condition: str, message: Message, index: int, count: int, system: str) -> bool:
    last = index == count - 1
    role = re.fullmatch(r'eq \$m\.Role "(\w+)"', condition)
    if role:
        return message.role == role[1]
    known = {
        "not (eq (len (slice $.Messages $i)) 1)": not last,
        'and (eq (len (slice $.Messages $i)) 1) (ne $m.Role "assistant")': last and message.role != "assistant",
        "and $.System (eq $i 1)": bool(system) and index == 1,
    }
    return known[condition]


@pytest.fixture
def renderer(tiny_tokenizer_folder: Path) -> Callable[[str], Renderer]:
    tokenizer = Tokenizer.load(tiny_tokenizer_folder)
    return lambda source: Renderer(tokenizer, ChatTemplate(source, named_tokens={"bos_token": "<s>"}))


@pytest.mark.parametrize("source", [CHATML, LLAMA3, GEMMA, DEFAULT])
@pytest.mark.parametrize("system", [None, "Be brief."])
def test_the_go_template_writes_what_the_chat_template_writes(
    renderer: Callable[[str], Renderer], source: str, system: str | None
) -> None:
    made = renderer(source)
    texts = chat_texts(made, add_bos=False)
    messages = TALK if system is None else [Message("system", system), *TALK]
    expected = made.template.render(
        [{"role": message.role, "content": message.content} for message in messages], generation_prompt=True
    )
    assert by_go(go_template(texts), messages, texts.default_system) == expected


def test_stops_sampling_and_the_default_system_prompt_are_spelled_out(
    renderer: Callable[[str], Renderer], tmp_path: Path, tiny_tokenizer_folder: Path
) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(tiny_tokenizer_folder, folder)
    (folder / "generation_config.json").write_text(json.dumps({"temperature": 0.6, "top_k": 20}))
    lines = modelfile(renderer(DEFAULT), folder, "model.gguf", add_bos=False).splitlines()
    assert lines[0] == "FROM ./model.gguf"
    assert lines[2:] == ['SYSTEM """You are "é😀"."""', 'PARAMETER stop "<|im_end|>"', "PARAMETER temperature 0.6",
                         "PARAMETER top_k 20"]  # fmt: skip


def test_bos_is_left_to_a_server_that_adds_it(renderer: Callable[[str], Renderer]) -> None:
    made = Renderer(renderer(LLAMA3).tokenizer, renderer(LLAMA3).template)
    made.tokenizer.named_tokens["bos_token"] = "<s>"
    assert chat_texts(made, add_bos=True).start == ""
    assert chat_texts(made, add_bos=False).start == "<s>"


def test_a_template_with_other_words_around_some_turns_is_refused(renderer: Callable[[str], Renderer]) -> None:
    """As those that put something before the last user's turn."""
    source = CHATML.replace(
        "{%- for message in messages -%}", "{%- for message in messages -%}{% if loop.last %}!{% endif %}"
    )
    with pytest.raises(TemplateError, match="cannot be written in Ollama's language") as caught:
        chat_texts(renderer(source), add_bos=False)
    assert "--to gguf" in str(caught.value.fix)

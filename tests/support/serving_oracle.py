"""The oracle: what a server makes of a conversation, by the transformers library and none of our own code.

Also the templates that the tests are served with, written here in the manner of well-known ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tutelage.render import ChatTemplate, Renderer, Tokenizer
from tutelage.types import Address, Conversation, Drop, Example, Message

transformers = pytest.importorskip("transformers", reason="the oracle is the transformers library, which is not here")

CHATML = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
HEADERS = """\
{{- bos_token -}}
{%- for message in messages -%}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}{%- endif -%}
"""
BRACKETS = """\
{%- set first = messages[0] -%}
{%- set system = '<<SYS>>\\n' + first['content'] + '\\n<</SYS>>\\n\\n' if first['role'] == 'system' else '' -%}
{%- for message in (messages[1:] if system else messages) -%}
{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
{{- raise_exception('turns must alternate') -}}
{%- endif -%}
{%- if message['role'] == 'user' -%}
{{- bos_token + '[INST] ' + (system if loop.first else '') + message['content'].strip() + ' [/INST]' -}}
{%- else -%}
{{- ' ' + message['content'].strip() + ' ' + eos_token -}}
{%- endif -%}
{%- endfor -%}
"""
PIPES = """\
{%- for message in messages -%}
{{- '<|' + message['role'] + '|>\\n' + message['content'] + eos_token + '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>\\n' -}}{%- endif -%}
"""
NAMES = """\
{%- for message in messages -%}
{%- if message['role'] == 'assistant' -%}{{- 'ASSISTANT: ' + message['content'] + eos_token -}}
{%- elif message['role'] == 'user' -%}{{- 'USER: ' + message['content'] + ' ' -}}
{%- else -%}{{- message['content'] + ' ' -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'ASSISTANT:' -}}{%- endif -%}
"""
LATEST_REASONING = """\
{%- set asked = namespace(last=-1) -%}
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}{%- set asked.last = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['reasoning_content'] and loop.index0 > asked.last -%}
{{- '<think>\\n' + message['reasoning_content'] + '\\n</think>\\n\\n' -}}
{%- endif -%}
{{- message['content'] + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
EARLIER_MARKED = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] -}}
{{- '\\n' + message['content'] -}}
{{- '<|im_end|>\\n' if loop.last or message['role'] != 'assistant' else ' (earlier)\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
LATEST_QUESTION_ONLY = """\
{%- set asked = namespace(last=-1) -%}
{%- for message in messages -%}
{%- if message['role'] == 'user' -%}{%- set asked.last = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{%- for message in messages[asked.last:] -%}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
TOOLS = """\
{%- if tools -%}{{- '<|im_start|>system\\n' + tools | tojson + '<|im_end|>\\n' -}}{%- endif -%}
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] -}}
{%- for call in message['tool_calls'] or [] -%}
{%- set made = {'name': call.function.name, 'arguments': call.function.arguments} -%}
{{- '<tool_call>\\n' + made | tojson + '\\n</tool_call>' -}}
{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""


def _plain(message: Message) -> str:
    return message.content or ""


def _stripped(message: Message) -> str:
    return _plain(message).strip()


def _thought(message: Message) -> str:
    return (f"<think>\n{message.reasoning}\n</think>\n\n" if message.reasoning else "") + _plain(message)


@dataclass(frozen=True)
class Family:
    """A template, its control tokens, and how it writes the words of a reply (without the stop token)."""

    template: str
    control_tokens: tuple[str, ...]
    stop: str
    written: Callable[[Message], str] = _plain
    bos: str | None = None


CHATML_TOKENS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>")
HEADER_TOKENS = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
PREFIX_KEEPING = {
    "chatml": Family(CHATML, CHATML_TOKENS, "<|im_end|>"),
    "headers": Family(HEADERS, HEADER_TOKENS, "<|eot_id|>", _stripped, "<|begin_of_text|>"),
    "brackets": Family(BRACKETS, ("<s>", "</s>"), "</s>", lambda one: f" {_stripped(one)} ", "<s>"),
    "pipes": Family(PIPES, ("<s>", "</s>"), "</s>"),
    "names": Family(NAMES, ("</s>",), "</s>", lambda one: f" {_plain(one)}"),
}
HISTORY_REWRITING = {
    "latest_reasoning": Family(LATEST_REASONING, CHATML_TOKENS, "<|im_end|>", _thought),
    "earlier_marked": Family(EARLIER_MARKED, CHATML_TOKENS, "<|im_end|>"),
    "latest_question_only": Family(LATEST_QUESTION_ONLY, CHATML_TOKENS, "<|im_end|>"),
}
FAMILIES = PREFIX_KEEPING | HISTORY_REWRITING

ADDRESS = Address("rows.jsonl", 1)


def talk(*messages: Message, **rest: Any) -> Conversation:
    return Conversation(messages, ADDRESS, **rest)


def pair(question: str, answer: str) -> tuple[Message, Message]:
    return Message("user", question), Message("assistant", answer)


def renderer_of(folder: Path, **options: Any) -> Renderer:
    """The folder's own tokenizer and template."""
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.template is not None
    template = ChatTemplate(
        tokenizer.template, tools_source=tokenizer.templates.get("tool_use"), named_tokens=tokenizer.named_tokens
    )
    return Renderer(tokenizer, template, **options)


def proven(renderer: Renderer, conversation: Conversation) -> tuple[Example, ...]:
    (outcome,) = renderer.prove([conversation])
    assert not isinstance(outcome, Drop), outcome
    return outcome.examples


def remarks(renderer: Renderer, conversation: Conversation) -> dict[str, str]:
    """What the ledger hears about a row that goes on: reason -> detail."""
    (outcome,) = renderer.prove([conversation])
    assert not isinstance(outcome, Drop), outcome
    return {change.reason: change.detail for change in outcome.changes}


def dropped(renderer: Renderer, conversation: Conversation) -> Drop:
    (outcome,) = renderer.prove([conversation])
    assert isinstance(outcome, Drop), outcome
    assert outcome.address == conversation.address
    return outcome


@cache
def server(folder: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(folder)


def as_sent(message: Message) -> dict[str, Any]:
    """One message as a client of a chat server sends it."""
    sent: dict[str, Any] = {"role": message.role, "content": message.content or ""}
    if message.reasoning is not None:
        sent["reasoning_content"] = message.reasoning
    if message.tool_calls:
        sent["tool_calls"] = [
            {"type": "function", "function": {"name": tool_call.name, "arguments": dict(tool_call.arguments)}}
            for tool_call in message.tool_calls
        ]
    return sent


def served_prompt(folder: Path, conversation: Conversation, before: int, template: str | None = None) -> list[int]:
    """Ids of the prompt for the reply at message `before`; `template` None takes the folder's own."""
    encoded = server(folder).apply_chat_template(
        [as_sent(message) for message in conversation.messages[:before]],
        tools=[dict(tool) for tool in conversation.tools] or None,
        chat_template=template,
        add_generation_prompt=True,
        tokenize=True,
        **conversation.template_arguments,
    )
    return list(encoded["input_ids"])


def assert_served(
    folder: Path,
    conversation: Conversation,
    examples: Sequence[Example],
    *,
    stop: str,
    written: Callable[[Message], str] | None = _plain,
    template: str | None = None,
) -> None:
    """The whole promise about one conversation; `written` None leaves the words of the replies uncompared."""
    decode = server(folder).decode
    expected = [index for index, one in enumerate(conversation.messages) if one.role == "assistant" and one.weight != 0]
    assert sorted(turn.message for example in examples for turn in example.turns) == expected
    assert [example.part for example in examples] == list(range(len(examples)))
    for example in examples:
        ids = example.ids.tolist()
        weights = np.zeros(len(ids), dtype=np.float32)
        for turn in example.turns:
            message = conversation.messages[turn.message]
            assert served_prompt(folder, conversation, turn.message, template) == ids[: turn.prompt_end]
            reply = decode(ids[turn.prompt_end : turn.reply_end], skip_special_tokens=False)
            if written is not None:
                assert reply == written(message) + stop
            assert reply.endswith(stop)
            assert reply.count(stop) == 1
            weights[turn.prompt_end : turn.reply_end] = 1.0 if message.weight is None else message.weight
        assert example.turns[-1].reply_end == len(ids)
        np.testing.assert_array_equal(example.weights, weights)


EMPTY_BLOCK = "<think>\n\n</think>\n\n"
Build = Callable[..., Renderer]


def thinking(content: str | None = "5", thought: str | None = "add them", **rest: Any) -> Message:
    """A turn with reasoning in its field."""
    return Message("assistant", content, reasoning=thought, **rest)


def replies(renderer: Renderer, conversation: Conversation) -> list[str]:
    """The trained replies, in the order of the messages."""
    made = {
        turn.message: renderer.tokenizer.decode(one.ids[turn.prompt_end : turn.reply_end].tolist())
        for one in proven(renderer, conversation)
        for turn in one.turns
    }
    return [made[index] for index in sorted(made)]

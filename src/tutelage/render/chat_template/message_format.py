"""How one template wants its messages written: found by asking the template, never assumed.

Servers hand templates the same conversation in several spellings: tool arguments as an object or as JSON text, content
as text or as a list of parts, null or empty content beside tool calls, reasoning under one of three names. A template
writes some of them wrongly (twice-encoded JSON, Python's notation, nothing at all) without a word. The first spelling
that it writes rightly is the one that is used, for prompts and replies alike.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from tutelage.render.chat_template.template import ChatTemplate, TemplateRefusal
from tutelage.render.value_notation import prints_parts
from tutelage.types import Conversation, Message

REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
"""Source: the fields that chat servers (vLLM, SGLang) and published templates use for a turn's reasoning."""

QUESTION, ANSWER, THOUGHT = "qqaskedqq", "qqansweredqq", "qqthoughtqq"
PROBE_TURNS = ({"user": QUESTION, "assistant": ANSWER}, {"system": "qqtoldqq", "user": QUESTION, "assistant": ANSWER})
FUNCTION, ARGUMENT, VALUE = "qqfunctionqq", "qqargumentqq", "qqvalueqq"
CALL_ID = "qqcallqq1"  # nine letters and digits: some templates refuse any other length

TemplateMessage = dict[str, Any]
ReasoningField = Literal["auto", "reasoning_content", "reasoning", "thinking", "content"]


@dataclass(frozen=True, slots=True)
class MessageFormat:
    """The spelling of messages that a template writes rightly.

    Attributes:
        parts: content is a list of `{"type": "text", "text": ...}`.
        arguments: a call's arguments are an object, or the JSON text of one.
        null_content: a turn of calls alone has content null; otherwise it has empty text.
        reasoning: the field that holds a turn's reasoning; "content" makes it a part `{"type": "thinking", ...}` there,
            as Mistral's templates have it.
        writes_calls: whether any spelling of a tool call is written rightly.
        writes_reasoning: whether the last turn's reasoning is written at all.
    """

    parts: bool = False
    arguments: Literal["object", "text"] = "object"
    null_content: bool = False
    reasoning: str = "reasoning_content"
    writes_calls: bool = False
    writes_reasoning: bool = False

    @property
    def hands_lists(self) -> bool:
        """Whether content may be handed over as a list of parts."""
        return self.parts or self.reasoning == "content"

    def messages(self, conversation: Conversation) -> list[TemplateMessage]:
        """The messages of a conversation as the template is handed them."""
        return [self.message(message) for message in conversation.messages]

    def message(self, message: Message) -> TemplateMessage:
        """One message as the template is handed it."""
        content: Any = message.content or (None if self.null_content and message.tool_calls else "")
        if self.parts and content is not None:
            content = [{"type": "text", "text": content}]
        if message.reasoning is not None and self.reasoning == "content":
            text_parts = [{"type": "text", "text": message.content}] if message.content else []
            content = [{"type": "thinking", "thinking": message.reasoning}, *text_parts]
        formatted: TemplateMessage = {"role": message.role, "content": content}
        if message.reasoning is not None and self.reasoning != "content":
            formatted[self.reasoning] = message.reasoning
        if message.tool_calls:
            formatted["tool_calls"] = [
                ({"id": call.id} if call.id is not None else {})
                | {"type": "function", "function": {"name": call.name, "arguments": self._arguments(call.arguments)}}
                for call in message.tool_calls
            ]
        if message.name is not None:
            formatted["name"] = message.name
        if message.tool_call_id is not None:
            formatted["tool_call_id"] = message.tool_call_id
        return formatted

    def _arguments(self, arguments: Mapping[str, Any]) -> Any:
        return dict(arguments) if self.arguments == "object" else json.dumps(arguments, ensure_ascii=False)


def message_format_of(template: ChatTemplate, reasoning: ReasoningField = "auto") -> MessageFormat:
    """Ask a template, by rendering conversations of made-up words, which spelling it writes rightly.

    Args:
        template: the template.
        reasoning: the field for reasoning; "auto" tries those that the template names.
    """
    form = MessageFormat()
    in_parts = replace(form, parts=True)
    if any(not _writes(template, form, roles) and _writes(template, in_parts, roles) for roles in PROBE_TURNS):
        form = in_parts
    form = _with_calls(template, form)
    return _with_reasoning(template, form, reasoning)


def _writes(template: ChatTemplate, form: MessageFormat, turns: Mapping[str, str]) -> bool:
    text = _render(template, [_probe_message(form, role, content) for role, content in turns.items()])
    return text is not None and all(content in text for content in turns.values()) and not prints_parts(text)


def _with_calls(template: ChatTemplate, form: MessageFormat) -> MessageFormat:
    for null_content in (False, True):
        for arguments in ("object", "text"):
            candidate = replace(form, null_content=null_content, arguments=arguments, writes_calls=True)
            if _writes_call(template, candidate):
                return candidate
    return form


def _writes_call(template: ChatTemplate, form: MessageFormat) -> bool:
    arguments = {ARGUMENT: VALUE}
    call = {
        "id": CALL_ID,
        "type": "function",
        "function": {"name": FUNCTION, "arguments": arguments if form.arguments == "object" else json.dumps(arguments)},
    }
    turn: TemplateMessage = {"role": "assistant", "content": None if form.null_content else "", "tool_calls": [call]}
    if form.parts and not form.null_content:
        turn["content"] = [{"type": "text", "text": ""}]
    result = _probe_message(form, "tool", "qqresultqq") | {"tool_call_id": CALL_ID, "name": FUNCTION}
    question, answer = _probe_message(form, "user", QUESTION), _probe_message(form, "assistant", ANSWER)
    tool = {"name": FUNCTION, "description": FUNCTION, "parameters": {"type": "object", "properties": {}}}
    for messages in ([question, turn], [question, turn, result, answer]):
        text = _render(template, messages, tools=[{"type": "function", "function": tool}])
        # A content of null that is printed is the word that Python has for it.
        if text is not None and _holds_call(text) and not (form.null_content and "None" in text.split(QUESTION)[-1]):
            return True
    return False


def _holds_call(text: str) -> bool:
    """Name, argument and value are there, neither encoded twice nor in Python's notation."""
    twice, python = f'\\"{ARGUMENT}\\"', f"'{ARGUMENT}': "
    return FUNCTION in text and ARGUMENT in text and VALUE in text and twice not in text and python not in text


def _with_reasoning(template: ChatTemplate, form: MessageFormat, requested_field: ReasoningField) -> MessageFormat:
    source = template.source + (template.tools_source or "")
    reasoning_fields = (
        [key for key in REASONING_KEYS if re.search(rf"\b{key}\b", source)]
        if requested_field == "auto"
        else [requested_field]
    )
    for key in reasoning_fields:
        candidate = replace(form, reasoning=key, writes_reasoning=True)
        turn = candidate.message(Message("assistant", ANSWER, reasoning=THOUGHT))
        text = _render(template, [_probe_message(form, "user", QUESTION), turn])
        if text is not None and THOUGHT in text and not prints_parts(text):
            return candidate
    return replace(form, reasoning=reasoning_fields[0]) if reasoning_fields else form


def _probe_message(form: MessageFormat, role: str, text: str) -> TemplateMessage:
    return {"role": role, "content": [{"type": "text", "text": text}] if form.parts else text}


def _render(
    template: ChatTemplate, messages: Sequence[TemplateMessage], tools: Sequence[TemplateMessage] = ()
) -> str | None:
    for offered in (tools, ()):  # some templates refuse a list of tools, a few refuse its absence
        try:
            return template.render(messages, generation_prompt=False, tools=offered or None)
        except TemplateRefusal:
            continue
    return None

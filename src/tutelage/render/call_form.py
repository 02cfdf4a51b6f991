"""The form in which a template writes calls of tools, found by rendering made-up ones; and calls read back by it.

No list of models: a call is rendered and proven as a trained turn, its name and arguments are sought in the text that
the model is to emit, and what stands around them is the form. It counts only where it reads all probes back.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from tutelage.render.chat_template.reasoning import without_empty_block
from tutelage.render.renderer import Renderer
from tutelage.types import Address, Conversation, Drop, Message, ToolCall

Arguments: TypeAlias = Mapping[str, Any]
Calls: TypeAlias = tuple[ToolCall, ...]

FIRST, SECOND = "qqfirstqq", "qqsecondqq"
KEYS, VALUES = ("qqkeyaqq", "qqkeybqq"), ("qqvalueaqq", "qqvaluebqq")
WORDS = "qqwordsqq come before."
CALL_IDS = ("qqcallqq1", "qqcallqq2")  # nine letters and digits: some templates refuse any other length
MIXED: Arguments = {"qqkeyaqq": 'a "b" é', "qqkeybqq": 3, "qqkeycqq": [1, "x"], "qqkeydqq": {"y": True}}
MOST_CALLS = 64


@dataclass(frozen=True, slots=True)
class CallForm:
    """What stands around the parts of a call.

    Attributes:
        kind: "object": a JSON object holds name and arguments under `name_key` and `arguments_key`; "named": the name
            stands as it is, the arguments are a JSON object; "parts": each argument stands as it is.
        opening: in front of the first call; empty where a call is the whole reply.
        before_name: in front of each name, for the last two kinds.
        after_name: behind each name.
        name_key: of "object".
        arguments_key: of "object".
        before_key: in front of the name of an argument, for "parts".
        before_value: between it and its value.
        after_value: behind that.
        example: a whole reply that is the call of `FIRST` with `KEYS` and `VALUES`, without its stop token.
    """

    kind: Literal["object", "named", "parts"]
    opening: str
    before_name: str = ""
    after_name: str = ""
    name_key: str = ""
    arguments_key: str = ""
    before_key: str = ""
    before_value: str = ""
    after_value: str = ""
    example: str = ""

    def parse(self, text: str, tools: Sequence[Mapping[str, Any]] = ()) -> tuple[str, Calls]:
        """The words of a reply, and the calls behind them; all of it are words where a call is not whole.

        Args:
            text: of the reply, without its stop token.
            tools: on offer: their schemas say which values of "parts" are texts.
        """
        start = text.find(self.opening) if self.opening else len(text) - len(text.lstrip())
        if start < 0:
            return text, ()
        try:
            read = {"object": self._objects, "named": self._named, "parts": self._parts}[self.kind]
            calls = tuple(read(text[start:], tools))
        except (ValueError, RecursionError):
            return text, ()
        return (without_empty_block(text[:start]).strip(), calls) if calls else (text, ())

    def _objects(self, text: str, _tools: Sequence[Mapping[str, Any]]) -> Iterator[ToolCall]:
        place = len(self.opening)
        if not self.opening and not text.startswith(("{", "[")):
            return
        for _ in range(MOST_CALLS):
            starts = [at for at in (text.find("{", place), text.find("[{", place)) if at >= 0]
            if not starts:
                return
            value, place = json.JSONDecoder().raw_decode(text, min(starts))
            for entry in value if isinstance(value, list) else [value]:
                yield self._call(entry)

    def _call(self, entry: Any) -> ToolCall:
        if not isinstance(entry, dict) or not isinstance(entry.get(self.name_key), str):
            raise ValueError("no call")
        arguments = entry.get(self.arguments_key, {})
        if isinstance(arguments, str):
            arguments = json.loads(arguments)
        if not isinstance(arguments, dict):
            raise ValueError("arguments are an object")
        call_id = entry.get("id")
        return ToolCall(entry[self.name_key], arguments, call_id if isinstance(call_id, str) else None)

    def _named(self, text: str, _tools: Sequence[Mapping[str, Any]]) -> Iterator[ToolCall]:
        place = 0
        for _ in range(MOST_CALLS):
            place = text.find(self.before_name, place)
            if place < 0:
                return
            name, place = _until(text, place + len(self.before_name), self.after_name)
            arguments, place = json.JSONDecoder().raw_decode(text, text.index("{", place))
            yield ToolCall(name.strip(), arguments)

    def _parts(self, text: str, tools: Sequence[Mapping[str, Any]]) -> Iterator[ToolCall]:
        place = 0
        for _ in range(MOST_CALLS):
            place = text.find(self.before_name, place)
            if place < 0:
                return
            name, place = _until(text, place + len(self.before_name), self.after_name or self.before_key)
            place -= 0 if self.after_name else len(self.before_key)
            texts, arguments = _texts_of(tools, name.strip()), {}
            while text.startswith(self.before_key, place):
                key, place = _until(text, place + len(self.before_key), self.before_value)
                value, place = _until(text, place, self.after_value)
                arguments[key] = value if key in texts else _value(value)
            yield ToolCall(name.strip(), arguments)


def call_form_of(renderer: Renderer) -> CallForm | None:
    """The form of a template's calls; None where none reads back what it writes."""
    one, two = {KEYS[0]: VALUES[0]}, dict(zip(KEYS, VALUES, strict=True))
    probes: list[tuple[str, list[tuple[str, Arguments]]]] = [
        ("", [(FIRST, two)]),
        ("", [(FIRST, one)]),
        (WORDS, [(FIRST, two)]),
        ("", [(FIRST, one), (SECOND, two)]),
        ("", [(FIRST, MIXED)]),
    ]
    texts = [_emitted(renderer, content, calls) for content, calls in probes]
    if texts[0] is None:
        return None
    for form in _candidates(texts[0], (texts[2], texts[3]), two):
        read_back = [form.parse(text) for text in texts if text is not None]
        expected = [(content, calls) for text, (content, calls) in zip(texts, probes, strict=True) if text is not None]
        if all(_is_same(found, *wanted) for found, wanted in zip(read_back, expected, strict=True)):
            return replace(form, example=texts[0])
    return None


def _is_same(found: tuple[str, Calls], content: str, calls: Sequence[tuple[str, Arguments]]) -> bool:
    return found[0] == content and [(call.name, dict(call.arguments)) for call in found[1]] == [
        (name, dict(arguments)) for name, arguments in calls
    ]


def _emitted(renderer: Renderer, content: str, calls: Sequence[tuple[str, Arguments]]) -> str | None:
    """What the model is to emit for a turn of these calls, without its stop token; None where it is not proven."""
    turn = Message(
        "assistant",
        content,
        tool_calls=tuple(
            ToolCall(name, arguments, call_id) for (name, arguments), call_id in zip(calls, CALL_IDS, strict=False)
        ),
    )
    tools = tuple(
        {"type": "function", "function": {"name": name, "description": name, "parameters": _schema(arguments)}}
        for name, arguments in calls
    )
    (outcome,) = renderer.prove([Conversation((Message("user", "Hello"), turn), Address("", 0), tools)])
    if isinstance(outcome, Drop):
        return None
    example = outcome.examples[-1]
    proven = example.turns[-1]
    return renderer.tokenizer.decode(example.ids[proven.prompt_end : proven.reply_end - 1].tolist())


def _schema(arguments: Arguments) -> dict[str, Any]:
    return {"type": "object", "properties": {key: {"description": key} for key in arguments}}


def _candidates(text: str, others: tuple[str | None, str | None], arguments: Arguments) -> Iterator[CallForm]:
    """Forms that fit a text with one call, and others with words before it and with two calls, where there are such."""
    name_at, (worded, both) = text.find(FIRST), others
    if name_at < 0:
        return

    def opening_of(end: int) -> str:
        """What stands in front of a call whatever is said before."""
        after = text[end : name_at + len(FIRST)]
        return text[:end].strip() if worded is None else _common_end(text[:end], worded[: worded.find(after)]).strip()

    for start, value, _ in json_values(text):
        entry = value[0] if isinstance(value, list) and value else value
        if start < name_at and isinstance(entry, dict) and FIRST in entry.values():
            name_key = next(key for key, inner in entry.items() if inner == FIRST)
            fitting = (key for key, inner in entry.items() if inner == arguments or _is_json_of(inner, arguments))
            if (arguments_key := next(fitting, None)) is not None:
                yield CallForm("object", opening_of(start), name_key=name_key, arguments_key=arguments_key)
    before = text[:name_at]
    before_name = before if both is None else _common_end(before, both[: both.find(SECOND)])
    for start, value, _ in json_values(text):
        if start > name_at and value == arguments:
            after_name = text[name_at + len(FIRST) : start]
            yield CallForm("named", opening_of(name_at), before_name.lstrip() or before_name, after_name)
    places = [text.find(word, name_at) for word in (KEYS[0], VALUES[0], KEYS[1], VALUES[1])]
    if -1 not in places and places == sorted(places):
        to_key = text[name_at + len(FIRST) : places[0]]
        between = text[places[1] + len(VALUES[0]) : places[2]]
        before_key = _common_end(to_key, between)
        yield CallForm(
            "parts",
            opening_of(name_at),
            before_name.lstrip() or before_name,
            to_key[: len(to_key) - len(before_key)],
            before_key=before_key,
            before_value=text[places[0] + len(KEYS[0]) : places[1]],
            after_value=between[: len(between) - len(before_key)],
        )


def json_values(text: str) -> Iterator[tuple[int, Any, int]]:
    """JSON objects and lists in a text, with where they begin and how long they are; inner ones, too."""
    for start, character in enumerate(text):
        if character in "{[":
            try:
                value, end = json.JSONDecoder().raw_decode(text, start)
            except (ValueError, RecursionError):
                continue
            yield start, value, end - start


def _is_json_of(text: Any, value: Any) -> bool:
    try:
        return isinstance(text, str) and bool(json.loads(text) == value)
    except (ValueError, RecursionError):
        return False


def _common_end(first: str, second: str) -> str:
    length = 0
    while length < min(len(first), len(second)) and first[-length - 1] == second[-length - 1]:
        length += 1
    return first[len(first) - length :]


def _until(text: str, start: int, mark: str) -> tuple[str, int]:
    """The text up to a mark, and where it goes on behind that.

    Raises:
        ValueError: the mark does not come.
    """
    end = text.index(mark, start)
    return text[start:end], end + len(mark)


def _texts_of(tools: Sequence[Mapping[str, Any]], name: str) -> set[str]:
    """The arguments of a tool that its schema says are texts."""
    for tool in tools:
        function = tool.get("function", tool)
        if isinstance(function, dict) and function.get("name") == name:
            parameters = function.get("parameters")
            properties = parameters.get("properties") if isinstance(parameters, dict) else None
            if isinstance(properties, dict):
                return {
                    key
                    for key, schema in properties.items()
                    if isinstance(schema, dict) and schema.get("type") == "string"
                }
    return set()


def _value(text: str) -> Any:
    """A value that stands as it is: as JSON where it is that, else a text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text

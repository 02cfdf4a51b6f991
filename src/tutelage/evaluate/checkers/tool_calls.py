"""The tool calls in a reply beside those of the row's own turn.

A call is read wherever a reply holds a JSON object with a `name` and an object of arguments, whatever a template writes
around it; where a name stands in marks of the template before a JSON object of arguments (`NAMED`); and as a function
with parameters in tags (`TAGGED`). Other forms are not read; `builders.task` tries each row's own.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from tutelage.evaluate.checkers.checker import Checker
from tutelage.types import Prompt

NAME_KEYS: Final = ("name", "tool_name")
ARGUMENT_KEYS: Final = ("arguments", "parameters")
"""Source: the published chat templates: Hermes, Qwen, Mistral write `arguments`, Llama and Command `parameters`, the
last beside `tool_name`."""


_NAME = r"(?P<name>[\w.-]+?)"
NAMED: Final = re.compile(
    "|".join(
        form.replace("NAME", _NAME.replace("name", f"name{number}"))
        for number, form in enumerate(
            (
                r"\[TOOL_CALLS\]NAME(?:\[CALL_ID\]\w+)?\[ARGS\]",
                r"<｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME\s+```json\s+",
                r"<｜tool▁call▁begin｜>NAME<｜tool▁sep｜>",
                r"<\|tool_call_begin\|>\s*(?:functions\.)?NAME(?::\d+)?\s*<\|tool_call_argument_begin\|>",
                r"to=functions\.NAME(?:<\|channel\|>\w+)? ?(?:<\|constrain\|>)?(?:json)?<\|message\|>",
            )
        )
    )
)
"""Source: the published chat templates of Mistral's models since 2025, DeepSeek R1 and V3, DeepSeek V3.1, Kimi K2 and
gpt-oss, in this order."""
TAGGED: Final = re.compile(r"<function=(?P<name>[^>\n]+)>(?P<parameters>(?:(?!<function=).)*?)</function>", re.DOTALL)
PARAMETER: Final = re.compile(r"<parameter=(?P<key>[^>\n]+)>\n?(?P<value>.*?)\n?</parameter>", re.DOTALL)
"""Source: the published chat templates of Qwen3-Coder and Nemotron 3. They write a text without quotes: what is JSON is
read as JSON, so that a text of digits is a number."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call as a reply spells it; `arguments` is whatever stands there."""

    name: str
    arguments: Any


def calls_in(text: str) -> tuple[Call, ...]:
    """The calls that `text` spells, in their order; what is cut off or is no JSON is none."""
    found = [*_named_calls(text), *_tagged_calls(text)]
    read = [span for span, _ in found]
    start = text.find("{")
    while start >= 0:
        span = next((span for span in read if start in span), None)
        value, end = (None, span.stop) if span is not None else _decoded(text, start)
        found += [(range(start, end), call) for call in _calls_of(value)]
        start = text.find("{", end)
    return tuple(call for _, call in sorted(found, key=lambda pair: pair[0].start))


def _decoded(text: str, start: int) -> tuple[Any, int]:
    """The JSON that begins there, and where it ends; None where there is none."""
    try:
        return json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):  # a model that loops can open brackets without end
        return None, start + 1


def _named_calls(text: str) -> Iterator[tuple[range, Call]]:
    for match in NAMED.finditer(text):
        value, end = _decoded(text, match.end())
        if value is not None:
            name = next(group for group in match.groups() if group is not None)
            yield range(match.start(), end), Call(name, value)


def _tagged_calls(text: str) -> Iterator[tuple[range, Call]]:
    for match in TAGGED.finditer(text):
        arguments = {}
        for parameter in PARAMETER.finditer(match["parameters"]):
            try:
                value = json.loads(parameter["value"])
            except (ValueError, RecursionError):
                value = parameter["value"]
            arguments[parameter["key"]] = value
        yield range(*match.span()), Call(match["name"], arguments)


def same_calls(found: Iterable[Call], wanted: Iterable[Call]) -> bool:
    """Whether both hold the same calls, in any order, each as often.

    Arguments are equal as JSON is: in any order, of the same type; 1 is 1.0, as JSON has one kind of number, and is
    neither "1" nor true. An argument that is left out differs from one that is null.
    """
    return Counter(map(_key, found)) == Counter(map(_key, wanted))


def tool_calls(prompt: Prompt, reply: str) -> float:
    """1 where the reply makes the calls of the row's turn, names and arguments; where that makes none, none."""
    return float(same_calls(calls_in(reply), reference_calls(prompt)))


def tool_names(prompt: Prompt, reply: str) -> float:
    """1 where the reply calls the same tools as often, whatever the arguments."""
    return float(Counter(call.name for call in calls_in(reply)) == Counter(call.name for call in prompt.tool_calls))


def reference_calls(prompt: Prompt) -> tuple[Call, ...]:
    """The calls of the row's own turn."""
    return tuple(Call(call.name, dict(call.arguments)) for call in prompt.tool_calls)


def _calls_of(value: Any) -> Iterator[Call]:
    """The call that an object is, or those it wraps as a server's message does."""
    if not isinstance(value, dict):
        return
    body = value["function"] if isinstance(value.get("function"), dict) else value
    name = next((body[key] for key in NAME_KEYS if isinstance(body.get(key), str)), None)
    key = next((key for key in ARGUMENT_KEYS if key in body), None)
    if name is not None and key is not None:
        yield Call(name, _arguments(body[key]))
    elif isinstance(value.get("tool_calls"), list):
        for item in value["tool_calls"]:
            yield from _calls_of(item)


def _arguments(value: Any) -> Any:
    """Arguments may be written as a text of JSON, as servers send them."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _key(call: Call) -> str:
    return json.dumps([call.name, _with_one_kind_of_number(call.arguments)], sort_keys=True)


def _with_one_kind_of_number(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_one_kind_of_number(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_with_one_kind_of_number(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


CALL_CHECKERS = (
    Checker("tool_calls", tool_calls, unusable=lambda _: None),
    Checker("tool_names", tool_names, unusable=lambda _: None),
)

"""`tool_choice` -> the grammar of a reply that is one call of an offered tool, as the model's template writes calls.

The text of a made-up call, from which the form was found, is the pattern: what stands in it for the name is a tool's
name, and what stands for the arguments is held to the tool's JSON schema. All else is as the template wrote it, its
added tokens as tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tutelage.render import Tokenizer
from tutelage.render.call_form import CALL_IDS, FIRST, KEYS, VALUES, CallForm, json_values
from tutelage.serve.problems import Problem, bad_field
from tutelage.serve.request_fields import NamedTool

NOT_FORCED = (
    "The chat template of '{model}' writes arguments in a form to which no reply can be held, so no call is forced. "
    "With 'tool_choice': 'auto' calls are read out of its replies."
)
CALL_ID = "/[a-zA-Z0-9]{9}/"
"""Nine letters and digits: some templates refuse any other length."""
PROSE = {"title", "description", "default", "examples", "$comment", "deprecated", "readOnly", "writeOnly"}
"""Words of JSON Schema that bound no value. Source: JSON Schema 2020-12, Validation, section 9."""


def chosen_tools(tools: Sequence[Mapping[str, Any]], choice: str | NamedTool) -> list[Mapping[str, Any]]:
    """The functions one of which is to be called.

    Args:
        tools: on offer, as the request has them.
        choice: "required", or one by its name.

    Raises:
        Problem: there is none, or one that has no name.
    """
    if not tools:
        raise bad_field("tool_choice", "'tool_choice' is only allowed when 'tools' are specified.")
    functions = [tool.get("function", tool) for tool in tools]
    for number, function in enumerate(functions):
        if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
            raise bad_field(
                f"tools.{number}.function.name", f"Missing required parameter: 'tools[{number}].function.name'."
            )
    if not isinstance(choice, NamedTool):
        return functions
    named = [function for function in functions if function["name"] == choice.function.name]
    if not named:
        names = ", ".join(function["name"] for function in functions)
        message = f"Tool choice '{choice.function.name[:100]}' is not among 'tools', which are: {names[:300]}."
        raise bad_field("tool_choice", message)
    return named[:1]


def call_grammar(form: CallForm, functions: Sequence[Mapping[str, Any]], tokenizer: Tokenizer, model: str) -> str:
    """The grammar of one call of one of the functions, in llguidance's Lark.

    Args:
        form: of the template's calls.
        functions: that may be called, with their schemas.
        tokenizer: of the model.
        model: its name, for what cannot be.

    Raises:
        Problem: the form, or a schema in that form, cannot be held to.
    """
    span = _arguments_span(form)
    if span is None:
        raise bad_field("tool_choice", NOT_FORCED.format(model=model))
    start, end = span
    literals, rules = _Literals(tokenizer), [f"start: {' | '.join(f'call_{n}' for n in range(len(functions)))}"]
    for number, function in enumerate(functions):
        name, parameters = function["name"], _parameters(function)
        before, after = (
            " ".join(_around(part, name, form, literals)) for part in (form.example[:start], form.example[end:])
        )
        rules.append(f"call_{number}: {before} arguments_{number} {after}")
        if form.kind == "parts":
            rules += _parts(number, parameters, form, literals)
        else:
            spacing = _spacing(form.example[start:end])
            rules.append(f"arguments_{number}: %json {json.dumps(parameters | spacing)}")
    return "\n".join(rules) + "\n"


def _arguments_span(form: CallForm) -> tuple[int, int] | None:
    """Where the arguments stand in the example; None where they are JSON inside of a JSON text, or written twice."""
    text = form.example
    if form.kind == "parts":
        place = text.find(form.before_key, text.find(FIRST) + len(FIRST))
        end = text.find(VALUES[1]) + len(VALUES[1])
        return (place, end + len(form.after_value)) if text.startswith(form.after_value, end) else None
    wanted = dict(zip(KEYS, VALUES, strict=True))
    spans = [(start, start + length) for start, value, length in json_values(text) if value == wanted]
    return spans[0] if len(spans) == 1 else None


def _around(text: str, name: str, form: CallForm, literals: _Literals) -> Iterator[str]:
    """A part of the example with a tool's name in it; an id of a call may be any."""
    written = json.dumps(name, ensure_ascii=False)[1:-1] if form.kind == "object" else name
    for number, piece in enumerate(text.split(CALL_IDS[0])):
        if number:
            yield CALL_ID
        yield from literals.of(piece.replace(FIRST, written))


def _parameters(function: Mapping[str, Any]) -> dict[str, Any]:
    """The schema of the arguments: an object with none but the parameters that it names, unless it says otherwise."""
    parameters = function.get("parameters") or {}
    if not isinstance(parameters, dict) or parameters.get("type", "object") != "object":
        raise bad_field("tools", f"The parameters of '{function['name'][:100]}' are the schema of an object.")
    return {"properties": {}, "additionalProperties": False} | parameters | {"type": "object"}


def _spacing(example: str) -> dict[str, Any]:
    """JSON as the template spaces it, where it stands on one line."""
    place = example.find(f'"{KEYS[0]}"') + len(KEYS[0]) + 2
    value, second = (example.find(f'"{word}"') for word in (VALUES[0], KEYS[1]))
    key_separator, item_separator = example[place:value], example[value + len(VALUES[0]) + 2 : second]
    if "\n" in example or not example.startswith('{"') or key_separator.strip() != ":" or item_separator.strip() != ",":
        return {}
    return {
        "x-guidance": {
            "whitespace_flexible": False, "key_separator": key_separator, "item_separator": item_separator,
        }
    }  # fmt: skip


def _parts(number: int, parameters: Mapping[str, Any], form: CallForm, literals: _Literals) -> list[str]:
    """Rules of arguments that stand each as it is: a text is all up to the mark behind it, any other value is JSON."""
    if bounds := sorted(
        set(parameters) - PROSE - {"type", "properties", "required", "additionalProperties", "$defs", "strict"}
    ):
        raise _bad_parameters(f"'{bounds[0]}' of an object")
    properties, required = parameters["properties"], set(parameters.get("required", ()))
    entries, rules = [], []
    for place, (key, given) in enumerate(properties.items()):
        rule, schema = f"argument_{number}_{place}", given if isinstance(given, dict) else {}
        entries.append(rule if key in required else f"{rule}?")
        before = " ".join(literals.of(form.before_key + key + form.before_value))
        if schema.get("type") == "string" and not {"enum", "const"} & set(schema):
            if bounds := sorted(set(schema) - PROSE - {"type"}):
                raise _bad_parameters(f"'{bounds[0]}' of a text")
            rules.append(f"{rule}: {before} text_{number}_{place}")
            rules.append(f"text_{number}_{place}[suffix={_quoted(form.after_value)}]: /(?s:.*)/")
            continue
        after = " ".join(literals.of(form.after_value))
        if schema.get("type") == "string":
            texts = schema.get("enum", [schema.get("const")])
            value = " | ".join(_quoted(text) for text in texts if isinstance(text, str) and text)
            rules.append(f"{rule}: {before} ({value}) {after}")
        else:
            inner = schema | ({"$defs": parameters["$defs"]} if "$defs" in parameters else {})
            rules.append(f"{rule}: {before} %json {json.dumps(inner)} {after}")
    return [f"arguments_{number}: {' '.join(entries)}", *rules]


def _bad_parameters(what: str) -> Problem:
    return bad_field("tools", f"A call cannot be held to {what}, as the template writes arguments as plain text.")


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


class _Literals:
    """Texts as a grammar has them: added tokens by their ids, all else as characters."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        added = tokenizer.fast.get_added_tokens_decoder()
        self._ids = {token.content: token_id for token_id, token in added.items() if token.content.strip()}

    def of(self, text: str) -> Iterator[str]:
        """The parts of a text, in order."""
        while text:
            starts = [(place, -len(token), token) for token in self._ids if (place := text.find(token)) >= 0]
            place, _, token = min(starts, default=(len(text), 0, ""))
            if text[:place]:
                yield _quoted(text[:place])
            if token:
                yield f"<[{self._ids[token]}]>"
            text = text[place + len(token) :]

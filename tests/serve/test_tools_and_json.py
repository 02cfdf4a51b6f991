"""Calls of tools are read back from the form in which the template writes them, and JSON is JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import openai
import pytest

from tests.serve.conftest import NAME
from tests.support.served import Running, running
from tutelage.builders.renderer import renderer_for
from tutelage.builders.served_models import open_served_models
from tutelage.config import RenderSettings
from tutelage.render.call_form import CallForm, call_form_of
from tutelage.serve.grammars import GrammarMaker

HEAD = """\
{%- if tools %}{{ '<|im_start|>system\\nTools: ' + (tools | tojson) + '<|im_end|>\\n' }}{% endif -%}
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' + (message['content'] or '') -}}
"""
TAIL = """\
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif -%}
"""
OBJECTS = """\
{%- for call in message['tool_calls'] or [] %}
{%- set said = {'function': call['function']['name'], 'with': call['function']['arguments']} %}
{{- '\\n<call>' + (said | tojson) + '</call>' }}
{%- endfor -%}
"""
LIST = """\
{%- if message['tool_calls'] %}{{ '[CALLS] [' }}{% for call in message['tool_calls'] %}
{{- {'name': call['function']['name'], 'arguments': call['function']['arguments']} | tojson }}
{{- '' if loop.last else ', ' }}{% endfor %}{{ ']' }}{% endif -%}
"""
BARE = """\
{%- if message['tool_calls'] %}{% set call = message['tool_calls'][0]['function'] %}
{{- '{"name": "' + call['name'] + '", "parameters": ' + (call['arguments'] | tojson) + '}' }}{% endif -%}
"""
NAMED = """\
{%- for call in message['tool_calls'] or [] %}
{{- '<use>' + call['function']['name'] + '<with>' + (call['function']['arguments'] | tojson) + '<done>' }}
{%- endfor -%}
"""
PARTS = """\
{%- for call in message['tool_calls'] or [] %}{{ '<do=' + call['function']['name'] + '>' }}
{%- for key, value in call['function']['arguments'] | items %}
{{- '<the ' + key + '>' + (value if value is string else value | tojson) + '</the>' }}{% endfor %}
{{- '</do>' }}{% endfor -%}
"""
PYTHON = """\
{%- for call in message['tool_calls'] or [] %}{{ call['function']['name'] + '(' }}
{%- for key, value in call['function']['arguments'] | items %}{{ key + '=' + (value | string) + ',' }}{% endfor %}
{{- ')' }}{% endfor -%}
"""
FORMS = {"object": OBJECTS, "list": LIST, "bare": BARE, "named": NAMED, "parts": PARTS}
TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "find",
            "parameters": {"type": "object", "properties": {"what": {"type": "string"}, "most": {"type": "integer"}}},
        },
    }
]
ASKED = {"messages": [{"role": "user", "content": "Find the blue lamp."}], "tools": TOOLS, "max_tokens": 200}


TEMPLATES = Path(__file__).resolve().parents[2].parent / "shared/material/templates"
PUBLISHED = ("ikllama__Qwen-Qwen3-0.6B.jinja", "mistralrs__mistral-nemo-tool-call.jinja")
"""JSON between tags, and a list of JSON with ids behind a mark."""
needs_templates = pytest.mark.skipif(not TEMPLATES.is_dir(), reason="the collection of published templates is not here")


@pytest.fixture(scope="module")
def form_of(tiny_tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], CallForm | None]:
    def derive(body: str) -> CallForm | None:
        path = tmp_path_factory.mktemp("template") / "calls.jinja"
        head = HEAD.replace("(message['content'] or '')", "('' if message['tool_calls'] else message['content'])")
        path.write_text((head if body == BARE else HEAD) + body + TAIL, encoding="utf-8")
        return call_form_of(renderer_for(tiny_tokenizer_folder, RenderSettings(template=str(path))))

    return derive


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("object", 'Well.\n<call>{"with": {"what": "7", "most": 2}, "function": "find"}</call>'),
        ("list", 'Well. [CALLS] [{"name":"find","arguments":{"what":"7","most":2}}]'),
        ("named", 'Well.<use>find<with>{"what": "7", "most": 2}<done>'),
        ("parts", "Well.<do=find><the what>7</the><the most>2</the></do>"),
    ],
)
def test_calls_are_read_by_the_form_of_the_template(form_of: Any, name: str, text: str) -> None:
    form = form_of(FORMS[name])
    assert form is not None
    content, (call,) = form.parse(text, TOOLS)
    assert (content, call.name, dict(call.arguments)) == ("Well.", "find", {"what": "7", "most": 2})
    for words in ("No call at all.", text[:-12], text.replace("find", "")[:20]):
        assert form.parse(words, TOOLS) == (words, ())


def test_a_call_that_is_the_whole_reply_is_read_and_words_are_none(form_of: Any) -> None:
    form = form_of(BARE)
    assert form is not None
    assert form.parse('{"name": "find", "parameters": {}}')[1][0].name == "find"
    for words in ('I say {"name": "find", "parameters": {}}', '{"nome": "find"}', "[1, 2]", ""):
        assert form.parse(words) == (words, ())


def test_a_form_that_does_not_read_back_is_none(form_of: Any) -> None:
    assert form_of(PYTHON) is None
    assert form_of("") is None


@pytest.fixture(scope="module")
def tool_server(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    from dataclasses import replace

    served = open_served_models([f"{NAME}={tiny_model_folder}"], active_replies=8, log=lambda _line: None)
    for name, body in {**FORMS, "python": PYTHON}.items():
        path = tmp_path_factory.mktemp("template") / f"{name}.jinja"
        path.write_text(HEAD + body + TAIL, encoding="utf-8")
        renderer = renderer_for(tiny_model_folder, RenderSettings(template=str(path)))
        served.add(replace(served.models[NAME], name=name, renderer=renderer))
    for name in PUBLISHED if TEMPLATES.is_dir() else ():
        renderer = renderer_for(tiny_model_folder, RenderSettings(template=str(TEMPLATES / name)))
        served.add(replace(served.models[NAME], name=name, renderer=renderer))
    with running(served=served) as server:
        yield server


def saying(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every reply be this text: a grammar that allows no other."""
    import llguidance

    from tutelage.serve import grammars

    def only(self: GrammarMaker, _wanted: Any) -> Any:
        vocabulary = self._known_vocabulary(llguidance)
        grammar = llguidance.LLMatcher.grammar_from_lark(f"start: {json.dumps(text, ensure_ascii=False)}")
        return lambda: grammars._Held(llguidance.LLMatcher(vocabulary, grammar), self._tokenizer)

    monkeypatch.setattr(GrammarMaker, "of_format", only)


@pytest.mark.parametrize("stream", [False, True])
def test_the_client_gets_calls_as_calls(tool_server: Running, monkeypatch: pytest.MonkeyPatch, stream: bool) -> None:
    call = '<call>{"function": "find", "with": {"what": "lamp", "most": 2}}</call>'
    saying(f"Well.\n{call}\n{call}", monkeypatch)
    # The public method refuses both together; the grammar here is the test's own.
    monkeypatch.setattr(type(tool_server.service), "chat_asked", _without_that_refusal)
    client = tool_server.client()
    if stream:
        calls, content, finish = [], "", None
        for chunk in client.chat.completions.create(model="object", stream=True, **ASKED):
            delta = chunk.choices[0].delta
            calls, content = calls + (delta.tool_calls or []), content + (delta.content or "")
            finish = chunk.choices[0].finish_reason or finish
    else:
        choice = client.chat.completions.create(model="object", **ASKED).choices[0]
        calls, content, finish = choice.message.tool_calls, choice.message.content, choice.finish_reason
    assert (content, finish, len(calls)) == ("Well.", "tool_calls", 2)
    assert {call.function.name for call in calls} == {"find"}
    assert [json.loads(call.function.arguments) for call in calls] == [{"what": "lamp", "most": 2}] * 2
    assert len({call.id for call in calls}) == 2


CALL = '<call>{"function": "find", "with": {"what": "lamp", "most": 2}}</call>'
STREAMED = [
    ("object", f"Well, I shall look for it.\n\n{CALL}", "Well, I shall look for it.", 1),
    ("object", f"{CALL} and more", None, 1),
    ("object", f"<think>\n\n</think>\n\nI look. {CALL}", "I look.", 1),
    ("object", " No call, but a <b>word</b> \n", " No call, but a <b>word</b> \n", 0),
    ("object", "What <call> begins is no call.", "What <call> begins is no call.", 0),
    ("bare", "It costs {7}, I think.", "It costs {7}, I think.", 0),
    ("bare", '{"name": "find", "parameters": {"what": "lamp"}}', None, 1),
]


@pytest.mark.parametrize(("name", "text", "content", "calls"), STREAMED)
def test_words_are_streamed_while_tools_are_on_offer(
    tool_server: Running, monkeypatch: pytest.MonkeyPatch, name: str, text: str, content: str | None, calls: int
) -> None:
    saying(text, monkeypatch)
    monkeypatch.setattr(type(tool_server.service), "chat_asked", _without_that_refusal)
    client = tool_server.client()
    whole = client.chat.completions.create(model=name, **ASKED).choices[0].message
    assert (whole.content, len(whole.tool_calls or [])) == (content, calls)
    deltas = [chunk.choices[0].delta for chunk in client.chat.completions.create(model=name, stream=True, **ASKED)]
    words = [delta.content for delta in deltas if delta.content]
    assert ("".join(words) or None, sum(len(delta.tool_calls or []) for delta in deltas)) == (content, calls)
    begins_as_a_call = text.startswith(("<", "{"))
    assert len(words) <= 1 if begins_as_a_call else len(words) > 3


def _without_that_refusal(service: Any, fields: Any) -> Any:
    from tutelage.serve.asking import chat_asked

    model = service.model(fields.model)
    maker, form = GrammarMaker(model.renderer.tokenizer), service._call_form(model)
    return chat_asked(
        model, fields, service.limits, grammar=maker.of_format(None), of_lark=maker.of_lark, call_form=lambda: form
    )


def test_a_template_without_a_form_is_said(tool_server: Running) -> None:
    client = tool_server.client()
    with pytest.raises(openai.BadRequestError, match="in no form that could be read back") as met:
        client.chat.completions.create(model="python", **ASKED)
    assert met.value.param == "tools"
    with pytest.raises(openai.BadRequestError, match="in no form that could be read back"):
        client.chat.completions.create(model="python", tool_choice="required", **ASKED)
    assert client.chat.completions.create(model="python", tool_choice="none", **ASKED).choices[0].message.content


BOUND: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {
                    "what": {"type": "string", "enum": ["lamp", 'a "b"']},
                    "most": {"type": "integer", "minimum": 1, "maximum": 9},
                    **more,
                },
                "required": ["what", "most"],
            },
        },
    }
    for name, more in (("find", {}), ("look_up", {"where": {"type": "array", "items": {"enum": [2]}, "maxItems": 2}}))
]
FORCED = {"messages": ASKED["messages"], "tools": BOUND, "max_tokens": 250, "temperature": 1.8, "seed": 3}


@pytest.mark.parametrize(
    "name", ["object", "named", "parts", *(pytest.param(name, marks=needs_templates) for name in PUBLISHED)]
)
def test_a_call_is_made_of_a_tool_whatever_the_model_would_say(tool_server: Running, name: str) -> None:
    client = tool_server.client()
    required = client.chat.completions.create(model=name, tool_choice="required", n=2, **FORCED).choices
    named: Any = {"type": "function", "function": {"name": "look_up"}}
    chunks = list(client.chat.completions.create(model=name, tool_choice=named, stream=True, **FORCED))
    streamed = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]

    assert [(choice.message.content, choice.finish_reason) for choice in required] == [(None, "tool_calls")] * 2
    assert [call.function.name for call in streamed] == ["look_up"]
    assert chunks[-1].choices[0].finish_reason == "stop", "as OpenAI has it where the function was named"
    assert not any(chunk.choices[0].delta.content for chunk in chunks)
    for call in [*(call for choice in required for call in choice.message.tool_calls), *streamed]:
        schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in BOUND}
        jsonschema.validate(json.loads(call.function.arguments), schemas[call.function.name])


def test_an_added_token_of_the_form_is_that_token(tool_server: Running) -> None:
    """The template's mark is not to be spelled out of its letters, which training never showed."""
    from dataclasses import replace

    from tutelage.serve.forced_calls import call_grammar

    form = tool_server.service._call_form(tool_server.service.models["object"])
    tokenizer = tool_server.service.models["object"].renderer.tokenizer
    marked = replace(form, example=form.example.replace("<call>", "<|im_start|>"))
    assert f"<[{tokenizer.fast.token_to_id('<|im_start|>')}]>" in call_grammar(marked, [{"name": "f"}], tokenizer, NAME)


def test_a_call_that_cannot_be_made_is_said(tool_server: Running) -> None:
    client = tool_server.client()

    def refused(model: str, match: str, **asked: Any) -> None:
        with pytest.raises(openai.BadRequestError, match=match):
            client.chat.completions.create(model=model, **{**FORCED, "tool_choice": "required", **asked})

    refused("object", "only allowed when 'tools' are specified", tools=[])
    refused("object", "'fetch' is not among 'tools', which are: find, look_up", tool_choice={
        "type": "function", "function": {"name": "fetch"},
    })  # fmt: skip
    bounded = {"type": "object", "properties": {"what": {"type": "string", "maxLength": 3}}}
    tools = [{"type": "function", "function": {"name": "find", "parameters": bounded}}]
    refused("parts", "cannot be held to 'maxLength' of a text", tools=tools)
    bounded["properties"]["what"] = {"type": "lamp"}
    refused("object", "The schema cannot be held to", tools=tools)
    bounded["type"] = "array"
    refused("object", "are the schema of an object", tools=tools)


def test_arguments_that_are_each_a_text_end_at_their_mark(form_of: Any, tiny_tokenizer_folder: Path) -> None:
    from tutelage.render import Tokenizer
    from tutelage.serve.forced_calls import call_grammar

    tokenizer, form = Tokenizer.load(tiny_tokenizer_folder), form_of(PARTS)
    make = GrammarMaker(tokenizer).of_lark(
        call_grammar(form, [TOOLS[0]["function"]], tokenizer, NAME), "tool_choice"
    )  # fmt: skip

    def takes(text: str) -> bool:
        matcher = make()._matcher  # type: ignore[attr-defined]  # of our class
        return all(matcher.consume_token(token) for token in tokenizer.encode([text])[0]) and matcher.is_accepting()

    assert takes("<do=find><the what>any <b> at\nall</the><the most>2</the></do>")
    assert takes("<do=find><the most>2</the></do>"), "nothing is required"
    assert not takes("<do=find><the most>two</the></do>")
    assert not takes("<do=find><the else>2</the></do>")
    assert not takes("<do=lose></do>")


SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"item": {"enum": ["lamp", "ticket"]}, "count": {"type": "integer", "minimum": 1, "maximum": 99}},
    "required": ["item", "count"],
    "additionalProperties": False,
}


def test_a_reply_is_json_of_its_schema_whatever_the_model_would_say(client: Any) -> None:
    asked = {"model": NAME, "messages": ASKED["messages"], "temperature": 1.5, "max_tokens": 120, "n": 4, "seed": 5}
    schema = {"type": "json_schema", "json_schema": {"name": "order", "schema": SCHEMA, "strict": True}}
    for choice in client.chat.completions.create(response_format=schema, **asked).choices:
        value = json.loads(choice.message.content)
        assert value.keys() == {"item", "count"}
        assert value["item"] in ("lamp", "ticket")
        assert 1 <= value["count"] <= 99
        assert choice.finish_reason == "stop"
    bad = {"type": "json_schema", "json_schema": {"name": "order", "schema": {"type": "lamp"}}}
    with pytest.raises(openai.BadRequestError, match="cannot be held to"):
        client.chat.completions.create(response_format=bad, **asked)
    for choice in client.chat.completions.create(response_format={"type": "json_object"}, **asked).choices:
        assert choice.message.content.lstrip().startswith("{")
        if choice.finish_reason == "stop":
            assert isinstance(json.loads(choice.message.content), dict)

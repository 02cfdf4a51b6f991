"""JSON and JSON Schema: what is whole, which draft, and that nothing is fetched."""

from __future__ import annotations

import builtins
import urllib.request
from typing import Any

import pytest

from tutelage.errors import DependencyError
from tutelage.evaluate.checkers.json_schema import is_json, schema_check

pytest.importorskip("jsonschema", reason="the extra json-schema is not installed")

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("reply", ["1", " null\n", '"a"', "[1, 2]", '{"a": {"b": []}}', "1e3"])
def test_json_of_every_kind(reply: str) -> None:
    assert is_json(reply)


@pytest.mark.parametrize("reply", ["", "a", "{", "[1,]", "{'a': 1}", "NaN", "1 2", "```json\n1\n```", "[" * 100_000])
def test_what_is_no_json(reply: str) -> None:
    assert not is_json(reply)


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ('{"name": "Ada"}', True),
        ('{"name": "Ada", "age": 36}', True),
        ('{"name": "Ada", "age": 36.0}', True),  # an integer, as the standard has it
        ('{"name": "Ada", "age": "36"}', False),
        ('{"name": "Ada", "age": true}', False),
        ('{"name": "Ada", "age": -1}', False),
        ('{"name": "Ada", "x": 1}', False),
        ("{}", False),
        ("Ada", False),
    ],
)
def test_a_schema_holds_or_not(reply: str, right: bool) -> None:
    assert schema_check(PERSON)(reply) is right


def test_the_draft_that_the_schema_names_counts() -> None:
    tuples = {"items": [{"type": "string"}]}  # of drafts before 2020-12, where items may be a list

    assert not schema_check({"$schema": "http://json-schema.org/draft-07/schema#"} | tuples)("[1]")
    with pytest.raises(ValueError, match="not a JSON Schema"):
        schema_check(tuples)


def test_references_inside_the_schema_hold() -> None:
    schema = {"$defs": {"name": {"type": "string"}}, "items": {"$ref": "#/$defs/name"}}

    assert schema_check(schema)('["a"]')
    assert not schema_check(schema)("[1]")


def test_a_reference_to_elsewhere_is_not_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(urllib.request, "urlopen", lambda *given, **_: asked.append(given))

    with pytest.raises(ValueError, match="leads nowhere"):
        schema_check({"$ref": "http://example.org/schema.json"})("1")

    assert asked == []


def test_without_the_package_the_install_line_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def absent(name: str, *rest: Any) -> Any:
        if name.startswith("jsonschema"):
            raise ImportError("No module named 'jsonschema'")
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)

    with pytest.raises(DependencyError) as caught:
        schema_check({})

    assert caught.value.fix == "pip install 'tutelage[json-schema]'"

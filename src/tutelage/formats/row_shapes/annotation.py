"""Exports of annotation tools: what people wrote is the reply, what a model proposed is not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from tutelage.formats.names import DEFAULT_FIELDS
from tutelage.formats.rawrow import RowError
from tutelage.formats.remarks import RowContext
from tutelage.formats.row_shapes.building import list_at, object_at, text_at

_PROMPT_NAMES: Final = frozenset((*DEFAULT_FIELDS.prompt, *DEFAULT_FIELDS.text, *DEFAULT_FIELDS.messages))
_REPLY_NAMES: Final = frozenset((*DEFAULT_FIELDS.response, "reply", "corrected", "rewrite"))
_ARGILLA_KEYS: Final = frozenset({"id", "status", "_server_id"})


def label_studio(row: Mapping[str, Any], _context: RowContext) -> Iterator[Mapping[str, Any]]:
    """A conversation for each text that an annotator wrote; what was cancelled does not count.

    Raises:
        RowError: `unclear_prompt` where several fields could be prompt or reply, `no_reply`.
    """
    annotations = [object_at(item, "annotations[]") for item in row["annotations"]]
    valid = [item for item in annotations if item.get("was_cancelled") is not True]
    preferred = [item for item in valid if item.get("ground_truth") is True] or valid
    written = list(dict.fromkeys(text for item in preferred if (text := _written(item)) is not None))
    if not written:
        raise RowError("no_reply", f"no text in {len(valid)} annotations that count, of {len(annotations)}")
    prompt = _only_prompt({key: value for key, value in row["data"].items() if value}, "data")
    for text in written:
        yield {"prompt": prompt, "completion": text}


def _written(annotation: Mapping[str, Any]) -> str | None:
    """The text that an annotation holds; None where it holds none."""
    by_name: dict[str, str] = {}
    for item in list_at(annotation.get("result"), "annotations[].result"):
        result = object_at(item, "annotations[].result")
        if result.get("type") != "textarea":
            continue
        name = str(result.get("from_name"))
        text = object_at(result.get("value"), "result[].value").get("text")
        texts = [text] if isinstance(text, str) else list_at(text, "result[].value.text")
        if len(texts) != 1 or name in by_name:
            raise RowError("unclear_prompt", f"the field {name!r} holds several texts")
        by_name[name] = text_at(texts[0], "result[].value.text")
    return None if not by_name else by_name[_only_name(by_name, _REPLY_NAMES, "the texts of an annotation")]


def argilla_flat(row: Mapping[str, Any], _context: RowContext) -> Iterator[Mapping[str, Any]]:
    """A conversation for each text that was submitted.

    Raises:
        RowError: as `label_studio`.
    """
    endings = (".responses", ".responses.users", ".responses.status", ".suggestion")
    questions = {key.removesuffix(".responses") for key in row if key.endswith(".responses")}
    responses = {name: _flat_responses(row, name) for name in questions}
    fields = {
        key: value
        for key, value in row.items()
        if key not in _ARGILLA_KEYS and not any(ending in key for ending in endings) and value
    }
    yield from _argilla(fields, responses)


def argilla_nested(row: Mapping[str, Any], _context: RowContext) -> Iterator[Mapping[str, Any]]:
    """As `argilla_flat`, of records whose fields and responses stand in objects."""
    responses = {}
    for name, items in row["responses"].items():
        entries = [object_at(item, f"responses.{name}") for item in list_at(items or [], f"responses.{name}")]
        if len(entries) == 1 and "status" not in entries[0] and row.get("status") == "completed":
            responses[name] = [entries[0].get("value")]
        else:
            responses[name] = [entry.get("value") for entry in entries if entry.get("status") == "submitted"]
    yield from _argilla(row["fields"], responses)


def _flat_responses(row: Mapping[str, Any], name: str) -> list[Any]:
    values, states = row[f"{name}.responses"] or [], row.get(f"{name}.responses.status") or []
    if not isinstance(values, list) or not isinstance(states, list) or len(values) != len(states):
        raise RowError("wrong_type", f"`{name}.responses` and its status are not of one length")
    return [value for value, state in zip(values, states, strict=True) if state == "submitted"]


def _argilla(fields: Mapping[str, Any], responses: Mapping[str, list[Any]]) -> Iterator[Mapping[str, Any]]:
    texts = {name: [value for value in values if isinstance(value, str)] for name, values in responses.items()}
    texts = {name: values for name, values in texts.items() if values}
    if not texts:
        raise RowError("no_reply", "no text was submitted: drafts, discarded responses and suggestions do not count")
    question = _only_name(texts, _REPLY_NAMES, "the questions with a submitted text")
    prompt = _only_prompt(fields, "the fields")
    for text in dict.fromkeys(texts[question]):
        yield {"prompt": prompt, "completion": text}


def _only_prompt(fields: Mapping[str, Any], where: str) -> Any:
    said = {key: value for key, value in fields.items() if isinstance(value, str | list)}
    return said[_only_name(said, _PROMPT_NAMES, where)]


def _only_name(values: Mapping[str, Any], names: frozenset[str], where: str) -> str:
    """The only member, or the only one with a known name.

    Raises:
        RowError: `unclear_prompt`.
    """
    known = [key for key in values if key in names]
    chosen = list(values) if len(values) == 1 else known
    if len(chosen) != 1:
        listing = ", ".join(values) or "nothing"
        raise RowError("unclear_prompt", f"{where} hold {listing}: no one of them is known to be what was said")
    return chosen[0]

"""Logs of the APIs that models are asked by."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tutelage.formats.rawrow import RawRow, RowError
from tutelage.formats.remarks import RowContext
from tutelage.formats.row_shapes.building import Turn, is_word, json_at, list_at, object_at
from tutelage.formats.row_shapes.items import turns_of_items
from tutelage.formats.row_shapes.reading import GatheredRow, merged
from tutelage.types import Change, Drop

_MESSAGE_KEYS = ("content", "reasoning_content", "reasoning", "tool_calls", "function_call")


def responses(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """A log of the Responses API; as `responses_row`."""
    return responses_row(row)


def responses_row(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """What was asked, with what had been said before as context, and the items that came back.

    Raises:
        RowError: as `turns_of_items`; `unfinished_reply`.
    """
    if row.get("status") is not None and row["status"] != "completed":
        raise RowError("unfinished_reply", f"the status of the response is {row['status']!r}")
    asked = json_at(row["input"], "`input`")
    prompt = turns_of_items(asked, "input") if isinstance(asked, list) else asked
    reply = turns_of_items(row["output"], "output")
    return {
        "prompt": prompt,
        "completion": reply,
        "system": row.get("instructions") or "",
        "tools": [_wrapped_tool(tool) for tool in list_at(row.get("tools") or [], "tools")],
    }


def _wrapped_tool(tool: Any) -> Any:
    """A function whose members stand beside its type, in the form that templates are made for."""
    if isinstance(tool, dict) and tool.get("type") == "function" and "function" not in tool:
        return {"type": "function", "function": {key: value for key, value in tool.items() if key != "type"}}
    return tool


def proxy_log(row: Mapping[str, Any], _context: RowContext) -> Iterator[Mapping[str, Any] | RowError]:
    """What was asked, and each choice that came back.

    Raises:
        RowError: `failed_request`, `wrong_type`.
    """
    request = object_at(json_at(row.get("request") or row, "`request`"), "`request`")
    response = object_at(json_at(row["response"], "`response`"), "`response`")
    yield from answers(request, response)


def answers(request: Mapping[str, Any], response: Mapping[str, Any]) -> Iterator[Mapping[str, Any] | RowError]:
    """A row in a base form for each choice of a chat completion, or for the output of the Responses API."""
    if isinstance(response.get("output"), list):
        yield responses_row({**request, **response, "input": request.get("input")})
        return
    if response.get("error"):
        raise RowError("failed_request", f"the request failed: {str(response['error'])[:80]}")
    for choice in list_at(response.get("choices"), "the choices of the response"):
        try:
            reply = reply_of(object_at(choice, "a choice"))
        except RowError as error:
            yield error
            continue
        yield {
            "prompt": request.get("messages"),
            "completion": [reply],
            "tools": request.get("tools") or request.get("functions"),
        }


def reply_of(choice: Mapping[str, Any]) -> Turn:
    """The message of a choice.

    Raises:
        RowError: `unfinished_reply` for one that ran into a limit, `unsupported_content` for pieces of a stream.
    """
    if is_word(choice.get("finish_reason"), {"length", "content_filter"}):
        raise RowError("unfinished_reply", f"the reply was cut short: finish_reason is {choice['finish_reason']!r}")
    if choice.get("message") is None:
        raise RowError("unsupported_content", "a choice without `message`: pieces of a stream are not put together")
    message = object_at(choice["message"], "the message of a choice")
    turn = {key: message[key] for key in _MESSAGE_KEYS if message.get(key) is not None}
    return {"role": "assistant", "content": None} | turn


def batch(rows: Iterable[RawRow], _context: RowContext) -> Iterator[RawRow | Drop | Change]:
    """Requests and results of a batch, joined by `custom_id`; both stand in one file, in any order."""
    requests: dict[str, RawRow] = {}
    results: dict[str, RawRow] = {}
    for row in rows:
        side = requests if "body" in row.fields else results
        name = row.fields.get("custom_id")
        if not isinstance(name, str):
            yield Drop(row.address, "wrong_type", "`custom_id` must be a string")
        elif name in side:
            yield Drop(row.address, "duplicate_id", f"`custom_id` {name!r} stands in {side[name].address}, too")
        else:
            side[name] = row
    for name, request in requests.items():
        if name not in results:
            detail = f"no result has its `custom_id` {name!r}; requests and results must stand in one file"
            yield Drop(request.address, "unanswered", detail)
        else:
            yield from _batch_rows(request, results.pop(name))
    for name, result in results.items():
        detail = f"no request has its `custom_id` {name!r}; requests and results must stand in one file"
        yield Drop(result.address, "unanswered", detail)


def _batch_rows(request: RawRow, result: RawRow) -> Iterator[RawRow | Drop | Change]:
    yield merged(result, request)
    try:
        response = result.fields.get("response")
        if result.fields.get("error") or not isinstance(response, dict) or response.get("status_code") != 200:
            raise RowError("failed_request", f"the result in {result.address} is an error")
        body = object_at(response.get("body"), "response.body")
        for made in answers(object_at(request.fields["body"], "body"), body):
            if isinstance(made, RowError):
                raise made
            yield GatheredRow(request.address, {**made, "id": request.fields["custom_id"], "model": body.get("model")})
    except RowError as error:
        yield Drop(request.address, error.reason, error.detail)

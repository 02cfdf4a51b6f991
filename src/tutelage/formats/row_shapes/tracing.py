"""Traces and data sets of LangSmith, Langfuse and OpenTelemetry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tutelage.formats.rawrow import RowError
from tutelage.formats.remarks import RowContext
from tutelage.formats.row_shapes.building import Turn, call, json_at, list_at, object_at, result_content, text_at
from tutelage.formats.row_shapes.langchain import prompt_of, reply_of


def langsmith_example(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """Inputs and outputs of an example.

    Raises:
        RowError: `unclear_prompt`, `unknown_role`, `wrong_type`.
    """
    return _asked_and_answered(row["inputs"], row["outputs"], ("inputs", "outputs"))


def langsmith_run(row: Mapping[str, Any], context: RowContext) -> Mapping[str, Any]:
    """Inputs and outputs of a call of a model; the runs around it hold the same text again.

    Raises:
        RowError: `outer_run`, `failed_request`; as `langsmith_example`.
    """
    if row["run_type"] != "llm":
        raise RowError("outer_run", f"a run of the type {row['run_type']!r} repeats what the calls inside it say")
    if row.get("error"):
        raise RowError("failed_request", f"the run failed: {str(row['error'])[:80]}")
    if row.get("outputs") is None:
        raise RowError("no_reply", "the run has no outputs")
    return langsmith_example(row, context)


def langfuse_item(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """Input and expected output of an item of a data set.

    Raises:
        RowError: `held_out_row` for an archived item; as `langsmith_example`.
    """
    if str(row.get("status", "")).upper() == "ARCHIVED":
        raise RowError("held_out_row", "the item is archived")
    return _asked_and_answered(row["input"], row["expectedOutput"], ("input", "expectedOutput"))


def langfuse_observation(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """Input and output of a generation; the observations around it hold the same text again.

    Raises:
        RowError: `outer_run`, `failed_request`; as `langsmith_example`.
    """
    if row["type"] != "GENERATION":
        raise RowError("outer_run", f"an observation of the type {row['type']!r} is no call of a model")
    if row.get("level") == "ERROR":
        raise RowError("failed_request", "the level of the observation is ERROR")
    return _asked_and_answered(row.get("input"), row.get("output"), ("input", "output"))


def _asked_and_answered(asked: Any, answered: Any, names: tuple[str, str]) -> Mapping[str, Any]:
    asked = json_at(asked, f"`{names[0]}`")
    tools = asked.get("tools") if isinstance(asked, dict) else None
    return {"prompt": prompt_of(asked, names[0]), "completion": reply_of(answered, names[1]), "tools": tools}


def opentelemetry(row: Mapping[str, Any], _context: RowContext) -> Iterator[Mapping[str, Any] | RowError]:
    """The messages of a span, each reply a conversation.

    Raises:
        RowError: `unsupported_content`, `unfinished_reply`, `wrong_type`.
    """
    attributes = row["attributes"] if "gen_ai.input.messages" not in row else row
    turns = _otel_turns(attributes["gen_ai.input.messages"], "gen_ai.input.messages")
    system = json_at(attributes.get("gen_ai.system_instructions"), "gen_ai.system_instructions")
    if isinstance(system, list):
        system = "".join(
            text_at(object_at(part, "gen_ai.system_instructions").get("content"), "gen_ai.system_instructions")
            for part in system
        )
    answers = list_at(json_at(attributes["gen_ai.output.messages"], "gen_ai.output.messages"), "gen_ai.output.messages")
    tools = json_at(attributes.get("gen_ai.tool.definitions"), "gen_ai.tool.definitions")
    for answer in answers:
        if isinstance(answer, dict) and answer.get("finish_reason") in {"length", "content_filter", "error"}:
            yield RowError("unfinished_reply", f"finish_reason is {answer['finish_reason']!r}")
            continue
        reply = _otel_turns([answer], "gen_ai.output.messages")
        yield {
            "prompt": turns,
            "completion": reply,
            "system": system or "",
            "tools": tools,
            "metadata": {"model": attributes.get("gen_ai.response.model") or attributes.get("gen_ai.request.model")},
        }


def _otel_turns(value: Any, where: str) -> list[Turn]:
    turns: list[Turn] = []
    for index, item in enumerate(list_at(json_at(value, where), where)):
        message = object_at(item, f"{where}[{index}]")
        if message.get("parts") is None:  # messages as the API of the model has them
            turns += prompt_of([message], where)
            continue
        turns += _turns_of_parts(message, f"{where}[{index}]")
    return turns


def _turns_of_parts(message: Mapping[str, Any], where: str) -> list[Turn]:
    role = message.get("role")
    texts: list[str] = []
    turn: Turn = {"role": role, "content": None}
    results: list[Turn] = []
    for part_value in list_at(message["parts"], f"{where}.parts"):
        part = object_at(part_value, f"{where}.parts")
        kind = part.get("type")
        if kind == "text":
            texts.append(text_at(part.get("content"), f"{where}.parts[].content"))
        elif kind == "reasoning":
            turn["reasoning_content"] = turn.get("reasoning_content", "") + text_at(part.get("content"), where)
        elif kind == "tool_call":
            name = text_at(part.get("name"), f"{where}.parts[].name")
            turn.setdefault("tool_calls", []).append(call(name, part.get("arguments"), part.get("id")))
        elif kind == "tool_call_response":
            content = part.get("response", part.get("result"))
            results.append({"role": "tool", "tool_call_id": part.get("id"), "content": result_content(content)})
        else:
            raise RowError("unsupported_content", f"{where}: a part of the type {kind!r} is not read")
    if texts:
        turn["content"] = "".join(texts)
    return results + ([turn] if len(turn) > 2 or texts or not results else [])

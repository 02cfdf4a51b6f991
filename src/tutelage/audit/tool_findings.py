"""Probes what a chat template does with tools, tool calls and their results."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tutelage.audit.template_probe import REPLY, Probe, TurnOrder, assistant, user
from tutelage.types import Finding

TOOL, RESULT, PLACE = "xtoolx", "xresultx", "xplacex"
QUOTED = f'{PLACE} "a\\b" é'
"""An argument that cannot be written into JSON as it stands: it shows how often a template encodes it."""
ARGUMENTS = {"where": QUOTED, "count": 3}
CALL_ID = "xcallidx9"
"""Nine letters and digits: the only form some templates accept."""

Calls = Literal["kept", "twice_encoded", "python", "dropped", "refused"]


@dataclass(frozen=True, slots=True)
class ToolBehavior:
    """What a template does with tools.

    Attributes:
        offered: the tools on offer are in the served prompt.
        needs_tools: it refuses requests that offer no tools.
        object_arguments: what becomes of a call whose arguments are an object.
        text_arguments: what becomes of a call whose arguments are JSON text.
        null_content: what becomes of a call beside content null.
        result: what becomes of a tool's result.
        history: an earlier call is still there once the last turn has replied and the user asked again.
    """

    offered: TurnOrder
    needs_tools: bool
    object_arguments: Calls
    text_arguments: Calls
    null_content: Calls
    result: TurnOrder
    history: TurnOrder

    @property
    def writes_calls(self) -> bool:
        """Whether there is a spelling of a call that is written rightly."""
        return "kept" in (self.object_arguments, self.text_arguments)


def tool() -> dict[str, Any]:
    """One tool on offer."""
    where = {"type": "string", "description": "a place"}
    schema = {
        "type": "object",
        "properties": {"where": where, "count": {"type": "integer", "description": "how many"}},
        "required": ["where"],
    }
    return {"type": "function", "function": {"name": TOOL, "description": "looks around", "parameters": schema}}


def probe_tools(probe: Probe) -> ToolBehavior:
    """Everything that probes with tools show."""
    offered = probe.text([user()], prompt=True, tools=[tool()])
    refuses_none = probe.text([user()], prompt=True) is None and offered is not None
    objects = _call(probe, ARGUMENTS, content="")
    texts = _call(probe, json.dumps(ARGUMENTS, ensure_ascii=False), content="")
    best: Any = ARGUMENTS if objects == "kept" or texts != "kept" else json.dumps(ARGUMENTS, ensure_ascii=False)
    turn = _turn(best, content="")
    result = {"role": "tool", "content": RESULT, "name": TOOL, "tool_call_id": CALL_ID}
    answered = [user(), turn, result]
    return ToolBehavior(
        offered="refused" if offered is None else "kept" if TOOL in offered else "dropped",
        needs_tools=refuses_none,
        object_arguments=objects,
        text_arguments=texts,
        null_content=_call(probe, best, content=None),
        result=_outcome(probe, answered, RESULT),
        history=_outcome(probe, [*answered, assistant(REPLY), user("xlaterx")], PLACE),
    )


def _turn(arguments: Mapping[str, Any] | str, *, content: str | None) -> dict[str, Any]:
    call = {"id": CALL_ID, "type": "function", "function": {"name": TOOL, "arguments": arguments}}
    return {"role": "assistant", "content": content, "tool_calls": [call]}


def _call(probe: Probe, arguments: Mapping[str, Any] | str, *, content: str | None) -> Calls:
    """What a template writes of a call that is answered; alone, where it has no place for the answer."""
    turn = _turn(arguments, content=content)
    result = {"role": "tool", "content": RESULT, "name": TOOL, "tool_call_id": CALL_ID}
    full_text = _first_text(probe, [user(), turn, result, assistant(REPLY)], prompt=False)
    if full_text is not None:
        return _written(full_text)
    call_text = _first_text(probe, [user(), turn], prompt=False)
    written = "refused" if call_text is None else _written(call_text)
    return "refused" if written == "dropped" else written


def _first_text(probe: Probe, messages: list[dict[str, Any]], *, prompt: bool) -> str | None:
    """The rendering without tools on offer, or with one where that is refused."""
    bare = probe.text(messages, prompt=prompt)
    return bare if bare is not None else probe.text(messages, prompt=prompt, tools=[tool()])


def _written(text: str) -> Calls:
    if TOOL not in text or PLACE not in text:
        return "dropped"
    once = [json.dumps(QUOTED, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)]
    if '\\"where\\"' in text or any(json.dumps(encoded)[1:-1] in text for encoded in once):
        return "twice_encoded"
    if "'where':" in text:
        return "python"
    return "kept"


def _outcome(probe: Probe, messages: list[dict[str, Any]], word: str) -> TurnOrder:
    text = _first_text(probe, messages, prompt=True)
    return "refused" if text is None else "kept" if word in text else "dropped"


def tool_findings(behavior: ToolBehavior) -> Iterator[Finding]:
    """What that does to rows with tools."""
    if behavior.offered != "kept" and not behavior.writes_calls:
        yield Finding(
            "no_tools",
            "info",
            "The template has no place for tools: rows with tool calls will be dropped, and tools on offer are not "
            "shown to the model.",
            f"a tool on offer: {behavior.offered}; a call: {behavior.object_arguments}; "
            f"a tool's result: {behavior.result}",
        )
        return
    if behavior.offered != "kept":
        yield Finding(
            "tools_not_shown",
            "warning",
            "The template does not show the model the tools on offer, though it writes their calls.",
            f"a tool on offer is {behavior.offered}",
        )
    yield from _call_findings(behavior)
    if behavior.result != "kept":
        yield Finding(
            "tool_result_" + behavior.result,
            "warning",
            "Results of tools are refused: rows with them will be dropped."
            if behavior.result == "refused"
            else "Results of tools are left out without a word: replies are learned without what they rest on.",
            f"a tool turn after its call is {behavior.result}",
        )
    elif behavior.writes_calls and behavior.history == "dropped":
        yield Finding(
            "calls_dropped_from_history",
            "warning",
            "Earlier tool calls are left out once the user asks again: such rows need a sequence for each reply.",
            "the arguments of an earlier call do not come out",
        )


def _call_findings(behavior: ToolBehavior) -> Iterator[Finding]:
    evidence = f"arguments as an object: {behavior.object_arguments}; as JSON text: {behavior.text_arguments}"
    if not behavior.writes_calls:
        yield Finding(
            "calls_not_written",
            "warning",
            "No spelling of a tool call is written rightly: rows that train one will be dropped.",
            evidence,
        )
    elif behavior.object_arguments != "kept":
        yield Finding(
            "calls_as_text",
            "info",
            "The template writes a tool call rightly only when its arguments come as JSON text; they are handed over "
            "so. A server that hands over objects gets another text.",
            evidence,
        )
    elif behavior.text_arguments != "kept":
        yield Finding(
            "calls_as_object",
            "info",
            "The template writes a tool call rightly only when its arguments come as an object; they are handed over "
            "so. A server that hands over JSON text gets another text.",
            evidence,
        )
    if behavior.writes_calls and behavior.null_content != "kept":
        yield Finding(
            "null_content_" + behavior.null_content,
            "info",
            "A tool call beside content null does not come out; it is handed over with empty text.",
            f"content null: {behavior.null_content}",
        )

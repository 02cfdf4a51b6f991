"""Data sets of reasoning, and large mixes: which of several generations is right, and what of a row is the reply."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from tutelage.formats.nested import document
from tutelage.formats.rawrow import RowError
from tutelage.formats.remarks import RowContext
from tutelage.formats.row_shapes.building import Turn, object_at
from tutelage.formats.row_shapes.columns import column_list, column_text, exchange, optional_text, paragraphs, turn

_THOUGHT: Final = re.compile(r"\A\s*<\|begin_of_thought\|>(.*?)<\|end_of_thought\|>\s*(.*)\Z", re.DOTALL)
_SOLUTION_START: Final = "<|begin_of_solution|>"
_SOLUTION_END: Final = "<|end_of_solution|>"
_ANSWER: Final = re.compile(r"\A(\s*<think>(?>.*?</think>))\s*<answer>(?>(.*?)</answer>)\s*\Z", re.DOTALL)
_NO_GRADES: Final = frozenset({"no", "false", "incorrect"})


def openr1_math(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """The problem, and the first generation that is complete and whose answer was checked and is right.

    Raises:
        RowError: `unverified_reply`; a reason of `columns`.
    """
    generations = column_list(row, "generations")
    complete = row.get("is_reasoning_complete")
    verdicts = [row.get(name) for name in ("correctness_math_verify", "correctness_llama")]
    for index, generation in enumerate(generations):
        is_right = any(_flag(verdict, index) for verdict in verdicts)
        if _flag(complete, index) and is_right and isinstance(generation, str) and generation.strip():
            return exchange(column_text(row, "problem"), generation)
    raise RowError(
        "unverified_reply", f"none of the {len(generations)} generations is complete and was found to be right"
    )


def _flag(flags: Any, index: int) -> bool:
    return isinstance(flags, list) and index < len(flags) and flags[index] is True


def begin_of_thought(row: Mapping[str, Any], context: RowContext) -> Mapping[str, Any]:
    """Turns whose replies mark thought and solution; the system text that asks for these marks goes with them.

    Raises:
        RowError: `unclear_reasoning`; a reason of `columns`.
    """
    turns: list[Turn] = []
    for index, said in enumerate(column_list(row, "conversations")):
        where = f"conversations[{index}]"
        members = object_at(said, where)
        text = members.get("value")
        if (
            not isinstance(text, str)
            or "<|begin_of_" not in text
            or str(members.get("from")) not in {"assistant", "gpt"}
        ):
            turns.append(dict(members))
            continue
        match = _THOUGHT.match(text)
        if match is None or not match[2].startswith(_SOLUTION_START):
            raise RowError("unclear_reasoning", f"{where}: not a thought and then a solution between their marks")
        solution = match[2].rstrip().removeprefix(_SOLUTION_START).removesuffix(_SOLUTION_END)
        turns.append(turn("assistant", solution.strip(), reasoning_content=match[1].strip()))
    system = optional_text(row, "system")
    if "<|begin_of_thought|>" in system:
        context.remarks.note("a system text that asks for marks of thought and solution is left out with the marks")
        system = ""
    return {"messages": turns, "system": system or None}


def s1k(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """The question, a model's thoughts as reasoning, and its attempt; not one that the row's grade calls wrong.

    Raises:
        RowError: `unverified_reply`; a reason of `columns`.
    """
    for model in ("deepseek", "gemini"):
        thought = optional_text(row, f"{model}_thinking_trajectory")
        attempt = optional_text(row, f"{model}_attempt")
        grade = optional_text(row, f"{model}_grade").strip().lower()
        if thought and attempt and grade not in _NO_GRADES:
            reply = turn("assistant", attempt, reasoning_content=thought)
            return {"messages": [turn("user", column_text(row, "question")), reply], "metadata": {"model": model}}
    raise RowError("unverified_reply", "no attempt with its thoughts, or each is graded as wrong")


def s1k_first(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """The same of the first release: a list of thoughts, and the attempt that follows the first."""
    thought = column_list(row, "thinking_trajectories")[0]
    reply = turn("assistant", column_text(row, "attempt"), reasoning_content=thought)
    return {"messages": [turn("user", column_text(row, "question")), reply]}


def llama_nemotron(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """Turns of a prompt, the reply, and the system text that switches reasoning on or off.

    Raises:
        RowError: `two_system_texts`; a reason of `columns`.
    """
    turns = [object_at(said, f"input[{index}]") for index, said in enumerate(column_list(row, "input"))]
    system = optional_text(row, "system_prompt")
    if turns[0].get("role") == "system":
        if system and turns[0].get("content") != system:
            raise RowError("two_system_texts", "input[0] and `system_prompt` are two different system texts")
    elif system:
        turns = [turn("system", system), *turns]
    # The prompt's own replies lead up to what is learned.
    context_turns = [{**said, "weight": 0.0} if said.get("role") == "assistant" else said for said in turns]
    return {"messages": [*context_turns, turn("assistant", column_text(row, "output"))]}


def nemotron(row: Mapping[str, Any], context: RowContext) -> Mapping[str, Any]:
    """Turns with calls, whose tools stand in the row's metadata."""
    metadata = row.get("metadata")
    if isinstance(metadata, str):
        metadata = document(metadata, "bad_json", "`metadata`") if metadata.strip() else None
    tools = metadata.get("tools") if isinstance(metadata, Mapping) else None
    if not tools and any(isinstance(said, Mapping) and said.get("tool_calls") for said in column_list(row, "messages")):
        context.remarks.note("calls without a list of the tools that are called")
    return {"messages": row["messages"], "tools": row.get("tools") or tools}


def answer_turns(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """Turns whose replies put the answer behind their thoughts into tags of its own, which are taken off."""
    return _untagged_turns(row, "conversations")


def answer_messages(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """The same under `messages`."""
    return _untagged_turns(row, "messages")


def _untagged_turns(row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    turns = []
    for index, said in enumerate(column_list(row, name)):
        members = dict(object_at(said, f"{name}[{index}]"))
        key = "value" if "value" in members else "content"
        if isinstance(members.get(key), str):
            members[key] = _without_answer_tags(members[key])
        # Notes on a turn repeat its text, and name nothing that is said.
        turns.append({name: value for name, value in members.items() if name != "info"})
    side = {name: row[name] for name in ("system", "tools") if row.get(name)}
    return {"messages": turns, **side}


def answer_output(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """An instruction whose output does so."""
    prompt = paragraphs(column_text(row, "instruction"), optional_text(row, "input"))
    return exchange(prompt, _without_answer_tags(column_text(row, "output")), optional_text(row, "system"))


def _without_answer_tags(text: str) -> str:
    match = _ANSWER.match(text)
    return f"{match[1]}\n\n{match[2].strip()}" if match else text


def reasoning_beside_content(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """A question, the thoughts and the reply, a column each."""
    reply = turn(
        "assistant", column_text(row, "content"), reasoning_content=optional_text(row, "reasoning_content") or None
    )
    return {"messages": [turn("user", column_text(row, "input")), reply]}


def thinking_columns(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """Turns, and the last of them once more in columns of their own, which must say the same.

    Raises:
        RowError: `two_replies`; a reason of `columns`.
    """
    turns = column_list(row, "messages")
    last = object_at(turns[-1], f"messages[{len(turns) - 1}]")
    pairs = (("final", "content"), ("analysis", "thinking"))
    for column, key in pairs:
        if optional_text(row, column).strip() != optional_text(last, key, "messages[-1].").strip():
            raise RowError("two_replies", f"`{column}` and `{key}` of the last turn are two different texts")
    return {"messages": turns}

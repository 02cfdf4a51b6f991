"""Tables of instructions: data sets of one question and its reply, and some that hide more in their columns."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from tutelage.formats.rawrow import RowError, json_type
from tutelage.formats.remarks import RowContext
from tutelage.formats.row_shapes.building import object_at
from tutelage.formats.row_shapes.columns import (
    alternating,
    column_list,
    column_text,
    exchange,
    optional_text,
    paragraphs,
    turn,
)
from tutelage.formats.row_shapes.marked_text import marked_turns, require_alternating

_BELLE_MARK: Final = re.compile(r"(?:\A|\n)(Human|Assistant)[:\uff1a]")
_GUANACO_MARK: Final = re.compile(r"(?:\A|\n)[ \t]*(User|Ass?s?istent|Assistant|Assistenz)\s*[:\uff1a]")
_GUANACO_ROLES: Final = {
    "user": "user", "assistant": "assistant", "assistent": "assistant", "asssistent": "assistant",
    "assistenz": "assistant", "asistent": "assistant",
}  # fmt: skip


def two_replies(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """An instruction with both `output` and `response`, which must say the same.

    Raises:
        RowError: `two_replies`; a reason of `columns`.
    """
    output, response = optional_text(row, "output"), optional_text(row, "response")
    if output and response and output != response:
        raise RowError("two_replies", "`output` and `response` differ; say which is meant: --columns response=KEY")
    prompt = {name: row[name] for name in ("instruction", "input", "context", "system", "history") if name in row}
    return {**prompt, "output": output or response}


def lima(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """A list of texts, the user's and the assistant's by turns."""
    return {"messages": alternating(column_list(row, "conversations"), "conversations")}


def belle_dialog(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """Earlier turns inside the instruction, which ends where the assistant is to speak.

    Raises:
        RowError: `unclear_turns`; a reason of `columns`.
    """
    roles = {"human": "user", "assistant": "assistant"}
    turns = marked_turns(column_text(row, "instruction"), _BELLE_MARK, roles, "instruction")
    if optional_text(row, "input"):
        raise RowError("unclear_turns", "`input` holds words beside a dialog in `instruction`")
    if turns[-1] == turn("assistant", ""):
        turns.pop()
    if turns[-1]["role"] != "user":
        raise RowError("unclear_turns", "`instruction` ends in the assistant's words, which `output` follows")
    return {"messages": [*turns, turn("assistant", column_text(row, "output"))]}


def guanaco_dialog(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """Earlier turns in `instruction`, the last question in `input`; the assistant's mark has several spellings.

    Raises:
        RowError: `unclear_turns`; a reason of `columns`.
    """
    turns = []
    if history := optional_text(row, "instruction"):
        turns = marked_turns(history, _GUANACO_MARK, _GUANACO_ROLES, "instruction")
    question = optional_text(row, "input").strip()
    if question:
        turns.append(turn("user", re.sub(r"\AUser\s*[:\uff1a]\s*", "", question)))
    turns.append(turn("assistant", column_text(row, "output")))
    require_alternating(turns, "instruction, input and output")
    return {"messages": turns}


def camel_ai(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """Two messages, of the user and the assistant; the roles that they play are no system text."""
    return exchange(column_text(row, "message_1"), column_text(row, "message_2"))


def prompt_text(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """A prompt and, under `text`, its reply.

    Raises:
        RowError: `prompt_in_text` where the text holds the prompt, too, and so is the whole row; a reason of `columns`.
    """
    prompt, text = column_text(row, "prompt"), column_text(row, "text")
    if prompt.strip() in text:
        raise RowError(
            "prompt_in_text",
            "`text` holds the prompt as well, and so the whole row as some template wrote it; learn it as a document "
            "with --columns text=text, or take `text` out",
        )
    return exchange(prompt, text)


def p3(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """The texts of a prompted task; the line break that only parted target from prompt is no part of the reply.

    Raises:
        RowError: `unwanted_reply` for a wrong choice of a rank task; a reason of `columns`.
    """
    if row.get("is_correct") is False:
        raise RowError("unwanted_reply", "`is_correct` is false: the row shows a choice that is wrong")
    target = column_text(row, "targets_pretokenized").strip()
    return {**exchange(column_text(row, "inputs_pretokenized"), target), "metadata": _labels(row)}


def inputs_targets(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """A task's input and target as text, behind its definition where the row has one."""
    prompt = paragraphs(optional_text(row, "definition"), column_text(row, "inputs"))
    return {**exchange(prompt, column_text(row, "targets")), "metadata": _labels(row)}


def _labels(row: Mapping[str, Any]) -> dict[str, str]:
    columns = {
        "source": ("_task_source", "task_source"),
        "category": ("_task_name", "task_name", "task", "annotation_type"),
    }
    return {
        field: value
        for field, names in columns.items()
        if (value := next((row[name] for name in names if isinstance(row.get(name), str) and row[name]), ""))
    }


def natural_instructions(row: Mapping[str, Any], context: RowContext) -> Iterator[Mapping[str, Any] | RowError]:
    """A conversation for each instance of a task: its definition and the instance's input, and the first gold output.

    The examples are part of the task's description, not rows; the negative ones are wrong on purpose.
    """
    definition = row.get("Definition")
    texts = list(definition) if isinstance(definition, list) else [definition]
    if not all(isinstance(text, str) for text in texts):
        raise RowError("wrong_type", "`Definition` must be a string or a list of strings")
    task = "\n".join(map(str, texts))
    for index, instance in enumerate(column_list(row, "Instances")):
        where = f"Instances[{index}]"
        try:
            members = object_at(instance, where)
            outputs = members.get("output")
            outputs = outputs if isinstance(outputs, list) else [outputs]
            if not outputs or not isinstance(outputs[0], str):
                raise RowError("wrong_type", f"`{where}.output` must be a string or a list of strings")
            if len(outputs) > 1:
                context.remarks.note("several outputs of an instance are right; the first is learned")
            identifier = {"id": members["id"]} if isinstance(members.get("id"), str) else {}
            prompt = paragraphs(task, column_text(members, "input", f"{where}."))
            yield {**exchange(prompt, outputs[0]), "metadata": identifier}
        except RowError as error:
            yield error


def self_instruct(row: Mapping[str, Any], _context: RowContext) -> Iterator[Mapping[str, Any] | RowError]:
    """A conversation for each instance of an instruction."""
    instruction = column_text(row, "instruction")
    for index, instance in enumerate(column_list(row, "instances")):
        where = f"instances[{index}]"
        try:
            members = object_at(instance, where)
            prompt = paragraphs(instruction, optional_text(members, "input", f"{where}."))
            yield exchange(prompt, column_text(members, "output", f"{where}."))
        except RowError as error:
            yield error


def hc3_human(row: Mapping[str, Any], _context: RowContext) -> Iterator[Mapping[str, Any]]:
    """A conversation for each answer that people gave."""
    return _each_answer(row, "human_answers")


def hc3_chatgpt(row: Mapping[str, Any], _context: RowContext) -> Iterator[Mapping[str, Any]]:
    """A conversation for each answer of the model."""
    return _each_answer(row, "chatgpt_answers")


def _each_answer(row: Mapping[str, Any], name: str) -> Iterator[Mapping[str, Any]]:
    question = column_text(row, "question")
    for index, answer in enumerate(column_list(row, name)):
        if not isinstance(answer, str):
            raise RowError("wrong_type", f"{name}[{index}] must be a string, found {json_type(answer)}")
        yield exchange(question, answer)


def text_to_sql(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """A question about tables, the tables, and the query that answers it; its explanation is not part of the reply."""
    return exchange(
        paragraphs(column_text(row, "sql_prompt"), optional_text(row, "sql_context")), column_text(row, "sql")
    )


def question_in_context(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """A question, what it is about, such as a schema or a passage, and the answer."""
    return exchange(paragraphs(column_text(row, "question"), optional_text(row, "context")), column_text(row, "answer"))


def content_summary(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """What a text is about, or is to sell, and the text."""
    return exchange(column_text(row, "content"), column_text(row, "summary"))


def capital_columns(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """Columns that are named in capitals."""
    return exchange(column_text(row, "INSTRUCTION"), column_text(row, "RESPONSE"))


def metharme(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """A prompt and what was generated for it."""
    return exchange(column_text(row, "prompt"), column_text(row, "generation"))

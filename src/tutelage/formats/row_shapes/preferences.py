"""Preferences: two sides or several ratings of one prompt. The better side alone is a demonstration."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any, Final

from tutelage.formats.rawrow import RawRow, RowError, json_type
from tutelage.formats.remarks import RowContext
from tutelage.formats.row_shapes.building import Turn, object_at
from tutelage.formats.row_shapes.columns import (
    as_context,
    column_list,
    column_text,
    exchange,
    optional_text,
    paragraphs,
    turn,
)
from tutelage.formats.row_shapes.marked_text import marked_turns
from tutelage.formats.row_shapes.reading import GatheredRow
from tutelage.types import Drop

_HH_MARK: Final = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
_HH_ROLES: Final = {"human": "user", "assistant": "assistant"}
_EXTRA_ID_MARK: Final = re.compile(r"\n?<extra_id_1>(User|Assistant)\n")
_EXTRA_ID_ROLES: Final = {"user": "user", "assistant": "assistant"}
_PROMPT_NAMES: Final = ("prompt", "question", "instruction", "input", "query")
_ASPECTS: Final = ("instruction_following", "honesty", "truthfulness", "helpfulness")


def hh_rlhf(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """The last reply of the chosen dialog, where both dialogs lead up to it in the same words.

    Raises:
        RowError: `differing_prompts`, `unclear_turns`.
    """
    chosen, rejected = (
        marked_turns(column_text(row, name), _HH_MARK, _HH_ROLES, name) for name in ("chosen", "rejected")
    )
    if chosen[:-1] != rejected[:-1]:
        raise RowError("differing_prompts", "`chosen` and `rejected` differ before their last reply")
    return {"messages": [*as_context(chosen[:-1]), chosen[-1]]}


def chosen_turns(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """The chosen turns, behind those of the prompt where they do not begin with them.

    Raises:
        RowError: `differing_prompts`, `wrong_type`; a reason of `columns`.
    """
    chosen, rejected = (_turn_list(row, name) for name in ("chosen", "rejected"))
    if not any(str(said.get("role", said.get("from"))) in {"user", "human"} for said in chosen):
        return {"messages": [*as_context(_prompt_turns(row.get("prompt"))), *chosen], **_beside(row)}
    if chosen[:-1] != rejected[:-1]:
        raise RowError("differing_prompts", "`chosen` and `rejected` differ before their last turn")
    return {"messages": [*as_context(chosen[:-1]), chosen[-1]], **_beside(row)}


def _turn_list(row: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    return [object_at(said, f"{name}[{index}]") for index, said in enumerate(column_list(row, name))]


def _prompt_turns(prompt: Any) -> list[Mapping[str, Any]]:
    if isinstance(prompt, str) and prompt.strip():
        return [turn("user", prompt)]
    if isinstance(prompt, list) and prompt:
        return [object_at(said, f"prompt[{index}]") for index, said in enumerate(prompt)]
    raise RowError("missing_field", "`chosen` holds no turn of the user, and there is no `prompt`")


def _beside(row: Mapping[str, Any]) -> dict[str, Any]:
    columns = {name: row[name] for name in ("system", "tools", "chat_template_kwargs") if row.get(name)}
    return columns | {"metadata": {"score": row["score_chosen"]} if _is_number(row.get("score_chosen")) else {}}


def chosen_text(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """A prompt in any of its columns, and the text that was chosen.

    Raises:
        RowError: `no_preference` where the row says that both are as good; a reason of `columns`.
    """
    if row.get("status") == "tie":
        raise RowError("no_preference", "`status` is tie: neither reply was preferred")
    name = next(
        (name for name in ("chosen", "chosen_response", "response_chosen") if row.get(name) is not None), "chosen"
    )
    prompt_name = next((name for name in _PROMPT_NAMES if optional_text(row, name)), "prompt")
    prompt = column_text(row, prompt_name)
    if prompt_name == "instruction":
        prompt = paragraphs(prompt, optional_text(row, "input"))
    system = optional_text(row, "system") or optional_text(row, "system_prompt")
    score = next(
        (row[key] for key in ("chosen_score", "score_chosen", "chosen_avg_rating") if _is_number(row.get(key))), None
    )
    turns = _dialog(prompt, prompt_name)
    system_turns = [turn("system", system)] if system else []
    reply = turn("assistant", column_text(row, name))
    return {"messages": [*system_turns, *turns, reply], "metadata": {} if score is None else {"score": score}}


def _dialog(prompt: str, where: str) -> list[Turn]:
    """The turns of a prompt that spells them in the way of HH-RLHF; any other is the user's one turn."""
    if not prompt.startswith("\n\nHuman:"):
        return [turn("user", prompt)]
    turns = marked_turns(prompt, _HH_MARK, _HH_ROLES, where)
    if turns[-1] == turn("assistant", ""):
        turns.pop()
    return as_context(turns)


def chosen_message(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """Turns of `conversations` or `messages`, and the one turn that was chosen to follow them."""
    name = "conversations" if row.get("conversations") is not None else "messages"
    chosen = row.get("chosen")
    reply = turn("assistant", chosen) if isinstance(chosen, str) else object_at(chosen, "`chosen`")
    return {"messages": [*as_context(_turn_list(row, name)), reply], **_beside(row)}


def chosen_messages(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """The turns of `chosen_messages`, which say themselves what is trained."""
    return {"messages": _turn_list(row, "chosen_messages"), **_beside(row)}


def hh_rlhf_cn(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """Turns whose words stand under `text`, and the turn that was chosen."""
    turns = [_spoken(said, f"context[{index}]") for index, said in enumerate(column_list(row, "context"))]
    return {"messages": [*as_context(turns), _spoken(row.get("chosen"), "`chosen`")]}


def _spoken(said: Any, where: str) -> Turn:
    members = object_at(said, where)
    return turn(column_text(members, "role", f"{where}."), column_text(members, "text", f"{where}."))


def ultrafeedback(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """The completion with the best mean of its ratings; a rating that is no number, such as N/A, counts nowhere.

    `overall_score` is not asked: in the first release 10 stood for 1. The text that a completion was made with in
    place of the system's is left out, as the ratings are of the instruction alone.

    Raises:
        RowError: `no_preference`; a reason of `columns`.
    """
    rated: list[tuple[float, str, Any]] = []
    for index, completion in enumerate(column_list(row, "completions")):
        members = object_at(completion, f"completions[{index}]")
        score = _mean_rating(members)
        if score is not None and optional_text(members, "response"):
            rated.append((score, members["response"], members.get("model")))
    if not rated:
        raise RowError("no_preference", "no completion has a rating that is a number")
    score, reply, model = max(rated, key=lambda entry: entry[0])
    names = {"model": model} if isinstance(model, str) else {}
    return {**exchange(column_text(row, "instruction"), reply), "metadata": {**names, "score": score}}


def _mean_rating(completion: Mapping[str, Any]) -> float | None:
    annotations = completion.get("annotations")
    ratings = []
    for aspect in _ASPECTS:
        annotation = annotations.get(aspect) if isinstance(annotations, Mapping) else None
        number = _number(annotation.get("Rating")) if isinstance(annotation, Mapping) else None
        if number is not None:
            ratings.append(number)
    return sum(ratings) / len(ratings) if ratings else _number(completion.get("fine-grained_score"))


def _number(value: Any) -> float | None:
    if isinstance(value, str) and re.fullmatch(r"\s*\d{1,6}(?:\.\d{1,6})?\s*", value):
        return float(value)
    return float(value) if _is_number(value) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def nectar(row: Mapping[str, Any], _context: RowContext) -> Mapping[str, Any]:
    """The answer of the lowest rank, the first of several.

    Raises:
        RowError: `no_preference`; a reason of `columns`.
    """
    ranked = []
    for index, entry in enumerate(column_list(row, "answers")):
        answer = object_at(entry, f"answers[{index}]")
        if _is_number(answer.get("rank")) and optional_text(answer, "answer"):
            ranked.append(answer)
    if not ranked:
        raise RowError("no_preference", "no answer has a rank")
    best = min(ranked, key=lambda answer: float(answer["rank"]))
    names = {"model": best["model"]} if isinstance(best.get("model"), str) else {}
    turns = _dialog(column_text(row, "prompt"), "prompt")
    return {"messages": [*turns, turn("assistant", best["answer"])], "metadata": names}


def gather_helpsteer(rows: Iterable[RawRow], _context: RowContext) -> Iterator[GatheredRow | Drop]:
    """Of the rows in a row that answer one prompt the one that was found most helpful, and the first of several."""
    for _, group in groupby(rows, key=lambda row: row.fields.get("prompt")):
        answers = list(group)
        best = max(answers, key=_helpfulness)
        for row in answers:
            if row is not best:
                yield Drop(row.address, "lower_rated", f"{best.address} answers the same prompt and was rated no worse")
                continue
            try:
                yield GatheredRow(row.address, _helpsteer(row.fields), row.filled)
            except RowError as error:
                yield Drop(row.address, error.reason, error.detail)


def _helpfulness(row: RawRow) -> tuple[float, float]:
    ratings = [row.fields.get(name) for name in ("helpfulness", "correctness")]
    helpfulness, correctness = (float(rating) if _is_number(rating) else -math.inf for rating in ratings)  # type: ignore[arg-type]  # _is_number told
    return helpfulness, correctness


def _helpsteer(row: Mapping[str, Any]) -> Mapping[str, Any]:
    prompt = column_text(row, "prompt")
    turns = [turn("user", prompt)]
    if "<extra_id_1>" in prompt:
        turns = marked_turns(prompt, _EXTRA_ID_MARK, _EXTRA_ID_ROLES, "prompt", first_role="user")
        if turns[-1] == turn("assistant", ""):
            turns.pop()
    score = row.get("helpfulness")
    if not isinstance(row.get("response"), str):
        raise RowError("wrong_type", f"`response` must be a string, found {json_type(row.get('response'))}")
    return {
        "messages": [*as_context(turns), turn("assistant", row["response"])],
        "metadata": {"score": score} if _is_number(score) else {},
    }

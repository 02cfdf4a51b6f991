"""Rows of the task -> prompts with what their replies are held against; general items that can be checked here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from tutelage.errors import ConfigError, DataError
from tutelage.evaluate.answer_checks import Code
from tutelage.evaluate.checkers.registry import CHECKERS
from tutelage.evaluate.checkers.sandbox import why_not_isolated
from tutelage.evaluate.checkers.tool_calls import calls_in, reference_calls, same_calls
from tutelage.evaluate.general import GeneralItem
from tutelage.evaluate.grading import JSON_FIELDS
from tutelage.evaluate.json_task import parse_object
from tutelage.render import Renderer
from tutelage.types import Conversation, Drop, Example, Prompt

SHOWN_CHARACTERS = 80
OF_CALLS = ("tool_calls", "tool_names")
OF_TEXT = ("exact_match", "rouge_l")


@dataclass(frozen=True, slots=True)
class Task:
    """Prompts, what the users of their rows said last, and the checkers of their replies."""

    prompts: tuple[Prompt, ...] = ()
    questions: tuple[str, ...] = ()
    checkers: tuple[str, ...] = (JSON_FIELDS,)


def task_of(
    rows: Iterable[tuple[Conversation, Sequence[Example]]],
    renderer: Renderer,
    checkers: Sequence[str],
    *,
    log: Callable[[str], None],
) -> Task:
    """The prompts of proven rows.

    Args:
        rows: with their Examples.
        renderer: that proved them.
        checkers: by name; none: what fits all rows is chosen, and said where it is not JSON.
        log: told of it.

    Raises:
        DataError: a row that is no conversation, or has no reference that a checker can use, by its address.
    """
    prompts, questions, own_texts = [], [], []
    for conversation, examples in rows:
        if conversation.is_text:
            raise _refused("A task row has no reply", conversation, found="a plain document")
        prompt = renderer.prompt(conversation)
        assert not isinstance(prompt, Drop), f"{conversation.address} was proven, but has no served prompt"
        prompts.append(prompt)
        own_texts.append(_own_text(examples, renderer) if prompt.tool_calls else "")
        user_texts = [message.content or "" for message in conversation.messages if message.role == "user"]
        questions.append(user_texts[-1] if user_texts else "")
    names = tuple(dict.fromkeys(checkers)) or _fitting(prompts, log)
    for name in names:
        _require_references(name, prompts)
    if set(names) & set(OF_CALLS):
        _require_calls(prompts, own_texts)
    return Task(tuple(prompts), tuple(questions), names)


def runnable(items: Sequence[GeneralItem], *, unisolated: bool) -> tuple[GeneralItem, ...]:
    """The items; where code cannot be isolated here and need not be, with checks that run it with limits alone.

    Raises:
        ConfigError: it cannot be, and has to.
    """
    with_code = [item for item in items if any(isinstance(check, Code) for check in item.checks)]
    problem = why_not_isolated() if with_code else None
    if problem is None:
        return tuple(items)
    if not unisolated:
        raise ConfigError(
            "Code from replies cannot be run apart from this system here",
            where=f"{with_code[0].address}, a check of the kind code",
            found=problem,
            expected="Linux 5.12 or newer that lets this user make namespaces; containers often do not",
            fix="set evaluate.unisolated_code = true where this machine has nothing to lose, or leave these rows out",
        )
    return tuple(
        replace(
            item,
            checks=tuple(check.with_limits_only() if isinstance(check, Code) else check for check in item.checks),
        )
        for item in items
    )


def _fitting(prompts: Sequence[Prompt], log: Callable[[str], None]) -> tuple[str, ...]:
    """The checkers of data for which none are named."""
    calling = next((prompt for prompt in prompts if prompt.tool_calls), None)
    other = next((prompt for prompt in prompts if parse_object(prompt.reference) is None), None)
    if calling is not None:
        names, because = OF_CALLS, f"{calling.address} calls a tool"
    elif other is not None:
        names, because = OF_TEXT, f"the reply of {other.address} is not a JSON object"
    else:
        return (JSON_FIELDS,)
    log(f"The task's replies are scored by {' and '.join(names)}, as {because}; evaluate.checkers chooses others")
    return names


def _require_references(name: str, prompts: Sequence[Prompt]) -> None:
    for prompt in prompts:
        if name == JSON_FIELDS:
            if parse_object(prompt.reference) is None:
                raise _refused(
                    "A task row's reply is not a JSON object",
                    prompt,
                    found=prompt.reference[:SHOWN_CHARACTERS],
                    expected="one JSON object, nothing around it",
                    fix=f"take {JSON_FIELDS} out of evaluate.checkers, which is for data whose replies are JSON",
                )
        elif (problem := CHECKERS[name].unusable(prompt)) is not None:
            raise _refused(
                f"A task row has no reference for the checker {name}",
                prompt,
                found=problem,
                expected="a reply of the row's own to compare with",
                fix=f"mend this row, or take {name} out of evaluate.checkers",
            )


def _require_calls(prompts: Sequence[Prompt], own_texts: Sequence[str]) -> None:
    """Calls somewhere, and each row's own are read back from what the template makes of them."""
    if not any(prompt.tool_calls for prompt in prompts):
        raise _refused(
            "No row of the task calls a tool",
            prompts[0],
            found=f"{len(prompts)} rows whose last reply is words",
            expected="at least one whose last reply is a call",
            fix=f"take {' and '.join(OF_CALLS)} out of evaluate.checkers",
        )
    for prompt, own_text in zip(prompts, own_texts, strict=True):
        if not same_calls(calls_in(own_text), reference_calls(prompt)):
            raise _refused(
                "A task row's calls cannot be read back from what the chat template makes of them",
                prompt,
                found=repr(own_text[:SHOWN_CHARACTERS]),
                expected="one of the forms that docs/evaluate.md names, such as JSON with a name and arguments",
                fix=f"take {' and '.join(OF_CALLS)} out of evaluate.checkers, and rows that call tools out of the data",
            )


def _own_text(examples: Sequence[Example], renderer: Renderer) -> str:
    """The row's last reply as the model would have to write it."""
    example, turn = max(
        ((example, turn) for example in examples for turn in example.turns), key=lambda pair: pair[1].message
    )
    return renderer.tokenizer.decode(example.ids[turn.prompt_end : turn.reply_end].tolist())


def _refused(
    what: str,
    row: Prompt | Conversation,
    *,
    found: str,
    expected: str = "a conversation that ends in a reply",
    fix: str = "leave this row out of evaluate.task",
) -> DataError:
    return DataError(what, where=str(row.address), found=found, expected=expected, fix=fix)

"""A run's folder -> its prompts, and what its models replied to them. Imports without torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from tutelage import formats
from tutelage.builders.base_model import start_folder
from tutelage.builders.renderer import renderer_for
from tutelage.config import Settings
from tutelage.errors import DataError, SourceNotFoundError, cause_of, command
from tutelage.evaluate.general import read_general
from tutelage.evaluate.pairwise.pairs import Answered, Replies
from tutelage.formats.data_files import DataFiles
from tutelage.formats.sources import SourceFile
from tutelage.ledger import Ledger
from tutelage.pack import proven_rows
from tutelage.runs import folder as run_files
from tutelage.runs.fingerprint import explain_missing_paths, read_inputs
from tutelage.types import Conversation, Message

When: TypeAlias = Literal["before", "after"]
Questions: TypeAlias = Literal["all", "task", "general"]
Asked: TypeAlias = tuple[str, tuple[Message, ...]]
"""The address of a prompt, and its turns."""


def run_replies(folder: Path, when: When, *, questions: Questions = "all", name: str) -> Replies:
    """What a run's model replied to the task and the general set, joined with the prompts, which its data still holds.

    Args:
        folder: of a finished run.
        when: before training or after it.
        questions: which set.
        name: of the model.

    Raises:
        SourceNotFoundError: there are no replies yet; or the data is not where it was.
        DataError: the replies are damaged, there are none, or the data changed since.
        CheckpointError: the settings, or what the run began with, cannot be read.
    """
    path = folder / (run_files.BEFORE if when == "before" else run_files.AFTER)
    saved = _saved(path, when)
    settings = run_files.read_settings(folder)
    rows: list[Answered] = []
    data = DataFiles(lambda _note: None)
    with explain_missing_paths(folder):
        if questions in ("all", "task") and saved["task"]:
            rows += _joined(path, _task(settings, folder, data), saved["task"])
        if questions in ("all", "general") and saved["general"]:
            rows += _joined(path, _general(settings, folder, data), saved["general"])
    if not rows:
        raise DataError(
            "The run kept no replies to compare",
            where=str(path),
            found=f"{len(saved['task'])} replies to the task, {len(saved['general'])} to the general set",
            expected="replies to evaluate.task or evaluate.general",
            fix="name a general set in the recipe and train, or leave --only out",
        )
    return Replies(name, tuple(rows))


def _saved(path: Path, when: When) -> dict[str, Any]:
    try:
        saved = run_files.read_json(path)
    except FileNotFoundError as error:
        raise SourceNotFoundError(
            f"The run has no replies from {when} training",
            where=str(path),
            expected="a finished run that measured its model then",
            fix=f"let the run finish ({command('train', '--resume', path.parent)}), with evaluate.before = true",
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(
            "The replies of the run are damaged",
            where=str(path),
            found=cause_of(error),
            expected="the file as the run wrote it",
            fix="put the file back",
        ) from error
    return saved


def _joined(path: Path, asked: Sequence[Asked], replies: Sequence[str]) -> list[Answered]:
    if len(asked) != len(replies):
        raise DataError(
            "The prompts that the data gives now are not as many as the replies that the run kept",
            where=str(path),
            found=f"{len(asked)} prompts, {len(replies)} replies",
            expected="the data, settings and tokenizer that the run was started with",
            fix="compare files of replies instead, or measure again with `tutelage evaluate`",
        )
    return [Answered(address, prompt, reply) for (address, prompt), reply in zip(asked, replies, strict=True)]


def _task(settings: Settings, folder: Path, data: DataFiles) -> list[Asked]:
    """The turns before the last trained one of each row that was proven, as `builders.dataset` asks them."""
    files = data.of(settings.evaluate.task)
    _require_same(folder, files, data)
    renderer = renderer_for(start_folder(settings.model, weights=False, log=lambda _text: None), settings.render)
    rows = proven_rows(
        lambda ledger: formats.read(
            [],
            ledger=ledger,
            shape=settings.data.format,
            columns=settings.data.columns,
            files=files,
            tree_paths=settings.data.tree_paths,
        ),
        renderer,
        Ledger(),
        max_seq_length=settings.pack.max_seq_length,
        workers=1,
    )
    asked = []
    for conversation, examples in rows:
        last = max(turn.message for example in examples for turn in example.turns)
        asked.append((str(conversation.address), prompt_turns(conversation, last)))
    return asked


def prompt_turns(conversation: Conversation, end: int) -> tuple[Message, ...]:
    """The turns as texts of a role; calls of tools are shown as JSON behind the text."""
    turns = []
    for message in conversation.messages[:end]:
        calls = [json.dumps({"name": call.name, "arguments": dict(call.arguments)}) for call in message.tool_calls]
        turns.append(Message(message.role, "\n".join([*([message.content] if message.content else []), *calls])))
    return tuple(turns)


def _general(settings: Settings, folder: Path, data: DataFiles) -> list[Asked]:
    files = [SourceFile(Path(path), path) for path in settings.evaluate.general]
    items = [item for path in settings.evaluate.general for item in read_general(path)]
    data.take(files)
    _require_same(folder, files, data)
    return [(str(item.address), (Message("user", item.prompt),)) for item in items]


def _require_same(folder: Path, files: Sequence[SourceFile], data: DataFiles) -> None:
    recorded = set(read_inputs(folder)["data_sha256"].values())
    changed = [file.display_name for file in files if data.sha256[file.display_name] not in recorded]
    if changed:
        raise DataError(
            "The data changed since the run, so that its replies have lost their prompts",
            where=", ".join(changed),
            found="other bytes than the run read",
            expected="the files as they were",
            fix="put them back, or compare files of replies",
        )

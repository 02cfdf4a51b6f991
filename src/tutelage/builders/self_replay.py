"""The base's own replies to general prompts, made once before training and replayed beside the task.

Replies that a checker turns down are left out: a model's poor replies are worse to replay than others' good ones
(arXiv:2605.29495). A reply to a prompt with checks must pass them; every reply must end by itself and say something.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage import formats
from tutelage.builders.base_model import start_folder
from tutelage.builders.renderer import renderer_for
from tutelage.builders.run_inputs import base_sha256
from tutelage.builders.trained_model import open_model
from tutelage.config import Settings
from tutelage.config.data import SELF_REPLAY_LABEL
from tutelage.errors import DataError, SourceNotFoundError
from tutelage.evaluate.general import GeneralItem, passes, read_general
from tutelage.formats.memory import keep_rows, kept_rows
from tutelage.generate.replies import ended_replies
from tutelage.generate.requests import EndedReply, Sampling
from tutelage.ledger import Ledger
from tutelage.model.out_of_memory import release_memory
from tutelage.render import Renderer
from tutelage.report.console.progress import Screen
from tutelage.runs import folder as run_files
from tutelage.system.files import cache_folder
from tutelage.types import Message

TRIES = 4
"""Replies at most to a prompt with checks: the likeliest one, then drawn ones."""

TEMPERATURE = 0.8
"""Of those that are drawn. Our choice: varied, and not so free that a small model loses its way."""

VERSION = 1
"""Part of what a kept set is found by; another one where replies would be chosen otherwise."""


@dataclass(frozen=True, slots=True)
class ReplayPrompt:
    """What the base is asked, and the item that its reply is checked by, if there is one."""

    messages: tuple[Message, ...]
    item: GeneralItem | None


@dataclass(frozen=True, slots=True)
class SelfReplay:
    """What came of it: the name of the rows, as settings name them, and how many prompts gave none, by reason."""

    source: str
    asked: int
    left_out: dict[str, int]

    @property
    def sentence(self) -> str:
        """For people."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.left_out.items())
        kept = self.asked - sum(self.left_out.values())
        return f"the base's own replies to {kept} of {self.asked} prompts" + (
            f" (left out: {reasons})" if reasons else ""
        )


def with_self_replay(settings: Settings, screen: Screen) -> Settings:
    """The settings with the base's own replies among what is replayed; they are made now, or found in the cache.

    Settings that name them already, as those of a run that goes on, stay as they are while the cache has them.

    Raises:
        TutelageError: the model or the prompts cannot be used, or no reply is of use.
    """
    data = settings.data
    named = [source for source in data.replay if source.startswith(f"<{SELF_REPLAY_LABEL}:")]
    if not data.self_replay or data.replay_ratio == 0 or (named and _is_kept(named[0])):
        return settings
    made = self_replay(settings, screen)
    if named and made.source != named[0]:
        raise SourceNotFoundError(
            "The base's own replies that this run began with are not in the cache any more, and come out otherwise now",
            where=", ".join(data.self_replay),
            found=made.source,
            expected=named[0],
            fix="start a new run",
        )
    screen.log(f"Self-replay: {made.sentence}")
    replay = [source for source in data.replay if source not in named] + [made.source]
    return settings.model_copy(update={"data": data.model_copy(update={"replay": replay})})


def _is_kept(source: str) -> bool:
    try:
        return kept_rows(source) is not None
    except SourceNotFoundError:
        return False


def self_replay(settings: Settings, screen: Screen) -> SelfReplay:
    """Ask the base, or find what it said when it was asked the same before.

    Raises:
        TutelageError: as `with_self_replay`.
    """
    base = start_folder(settings.model, log=screen.log)
    renderer = renderer_for(base, settings.render)
    prompts = list(_prompts(settings))
    path = cache_folder() / "self_replay" / f"{_key(settings, base, renderer, prompts, screen.log)}.json"
    if (found := _found(path)) is not None:
        return found
    rows, left_out = _asked(settings, prompts, screen)
    if not rows:
        raise DataError(
            "No reply of the base is fit to be replayed",
            where=", ".join(settings.data.self_replay),
            found=", ".join(f"{count} {reason}" for reason, count in left_out.items()),
            expected="replies that end by themselves and pass their checks",
            fix="raise data.self_replay_tokens, or replay rows of others with data.replay",
        )
    made = SelfReplay(keep_rows(rows, SELF_REPLAY_LABEL), len(prompts), dict(left_out))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise run_files.save_error("What the base said could not be kept", path.parent, error) from error
    run_files.write_json(path, {"source": made.source, "asked": made.asked, "left_out": made.left_out})
    return made


def _found(path: Path) -> SelfReplay | None:
    try:
        saved = run_files.read_json(path)
        made = SelfReplay(saved["source"], saved["asked"], saved["left_out"])
    except (OSError, ValueError, KeyError):
        return None
    return made if _is_kept(made.source) else None


def _prompts(settings: Settings) -> Iterator[ReplayPrompt]:
    """Of general sets each item; of other data each row up to its last reply."""
    for source in settings.data.self_replay:
        if _has_checks(source):
            for item in read_general(source):
                yield ReplayPrompt((Message("user", item.prompt),), item)
            continue
        data = settings.data
        reading = formats.read(
            [source], ledger=Ledger(), shape=data.format, columns=data.columns, tree_paths=data.tree_paths
        )
        for conversation in reading:
            messages = list(conversation.messages)
            while messages and messages[-1].role == "assistant":
                messages.pop()
            if messages and messages[-1].role == "user":
                yield ReplayPrompt(tuple(messages), None)


def _has_checks(source: str) -> bool:
    try:
        with Path(source).open("rb") as stream:
            row = json.loads(stream.readline())
    except (OSError, ValueError):  # a folder, a hub id, a file of another kind
        return False
    return isinstance(row, dict) and "prompt" in row and "checks" in row


def _key(
    settings: Settings, base: Path, renderer: Renderer, prompts: Sequence[ReplayPrompt], log: Callable[[str], None]
) -> str:
    facts: dict[str, Any] = {
        "version": VERSION,
        "base": base_sha256(settings, base, log=log),
        "tokenizer": renderer.tokenizer.sha256(),
        "template": renderer.template.sha256(),
        "precision": settings.model.precision,
        "quantized": settings.model.method == "qlora",
        "tokens": settings.data.self_replay_tokens,
        "seed": settings.seed,
        "prompts": [
            [[message.role, message.content] for message in prompt.messages]
            + [check.model_dump() for check in (prompt.item.checks if prompt.item else ())]
            for prompt in prompts
        ],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _asked(
    settings: Settings, prompts: Sequence[ReplayPrompt], screen: Screen
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Rows to train on, and how many prompts gave none, by reason."""
    if not prompts:
        raise DataError(
            "There is no prompt to ask the base",
            where=", ".join(settings.data.self_replay),
            expected="rows that begin with a user's message",
            fix="look at them with tutelage see",
        )
    opened = open_model(settings, log=screen.log)
    kept: dict[int, str] = {}
    problems: dict[int, str] = {}
    with opened.as_base() as model:
        for attempt in range(TRIES):
            open_places = [
                place
                for place, prompt in enumerate(prompts)
                if place not in kept and (attempt == 0 or prompt.item is not None)
            ]
            if not open_places:
                break
            title = "Self-replay: the base replies" + (f", drawn anew ({attempt} of {TRIES - 1})" if attempt else "")
            drawing = Sampling(temperature=TEMPERATURE, seed=settings.seed + attempt)
            with screen.counting(title, len(open_places)) as done:
                replies = ended_replies(
                    model,
                    opened.renderer,
                    [prompts[place].messages for place in open_places],
                    max_new_tokens=settings.data.self_replay_tokens,
                    batch_prompts=settings.evaluate.batch_prompts,
                    sampling=drawing if attempt else None,
                    done=done,
                )
            if replies is None:  # nothing can be drawn from this kind of model
                break
            for place, reply in zip(open_places, replies, strict=True):
                problem = _problem(prompts[place], reply)
                if problem is None:
                    kept[place] = reply.text.strip()
                    problems.pop(place, None)
                else:
                    problems[place] = problem
    del opened, model
    release_memory()
    rows = [_row(prompts[place], kept[place]) for place in sorted(kept)]
    return rows, Counter(problems.values())


def _problem(prompt: ReplayPrompt, reply: EndedReply) -> str | None:
    """Why a reply is not replayed; None where it is."""
    if reply.ended_by == "length":
        return "cut"
    if not reply.text.strip():
        return "empty"
    try:
        wrong = prompt.item is not None and not passes(prompt.item, reply.text)
    except TimeoutError:  # a pattern that backtracks without end on this reply
        return "not checked in time"
    return "wrong by their checks" if wrong else None


def _row(prompt: ReplayPrompt, reply: str) -> dict[str, Any]:
    messages = [{"role": message.role, "content": message.content or ""} for message in prompt.messages]
    return {"messages": [*messages, {"role": "assistant", "content": reply}]}

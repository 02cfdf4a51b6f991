"""What is said around a task's own words, from `phrases.toml`."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from tutelage.synthesize.tasks.templates import TaskTemplate


@dataclass(frozen=True, slots=True)
class Layout:
    """How a few-shot prompt is laid out: each exemplar, the row that is asked, and what stands between."""

    exemplar: TaskTemplate
    question: TaskTemplate
    between: str


@dataclass(frozen=True, slots=True)
class Phrases:
    """All of them."""

    reasoning_requests: tuple[str, ...]
    reasoned_replies: tuple[TaskTemplate, ...]
    layouts: tuple[Layout, ...]


@cache
def phrases() -> Phrases:
    """Those of the package."""
    table = tomllib.loads(files("tutelage.synthesize.tasks").joinpath("phrases.toml").read_text("utf-8"))
    return Phrases(
        tuple(table["reasoning_requests"]),
        tuple(map(TaskTemplate, table["reasoned_replies"])),
        tuple(
            Layout(TaskTemplate(layout["exemplar"]), TaskTemplate(layout["question"]), layout["between"])
            for layout in table["layouts"]
        ),
    )

"""A run -> the prompts that its export is compared on: held-out ones first, then those it was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from tutelage.builders.base_model import start_folder
from tutelage.builders.dataset import Prepared
from tutelage.builders.evaluation import prepared_again
from tutelage.builders.export.request import ExportRequest
from tutelage.errors import DataError, SourceNotFoundError, TemplateError
from tutelage.evaluate.general import read_general
from tutelage.evaluate.packaged_sets import PROBES as PACKAGED
from tutelage.evaluate.packaged_sets import packaged_files
from tutelage.render import Renderer
from tutelage.render.chat_template.template import TemplateRefusal
from tutelage.types import Example, Message, Role, TokenIds

LONGEST = 1024
"""Tokens of a prompt: comparing long ones takes long and shows no more."""
T = TypeVar("T")
PROBES: tuple[tuple[tuple[Role, str], ...], ...] = (
    (("user", "Hello"),),
    (("system", "Answer in one word."), ("user", "Is water wet?  \n")),
    (("user", "One\n\ntwo"), ("assistant", "Three, four."), ("user", "And then?")),
)
"""Conversations that every template is tried with: a system prompt, white space, a reply in between."""


@dataclass(frozen=True, slots=True)
class Prompts:
    """What an export is compared on.

    Attributes:
        ids: served prompts.
        places: how many of each kind.
        conversations: for the folder's own template, as `tutelage.export.proof.Asked` has them.
    """

    ids: tuple[TokenIds, ...]
    places: dict[str, int]
    conversations: tuple[dict[str, Any], ...]


def prompts_for(request: ExportRequest, renderer: Renderer) -> Prompts:
    """At most `request.prompts`, spread evenly over each kind; our own where the run's data cannot be read."""
    start = start_folder(request.settings.model, weights=False, log=request.screen.log)
    most = request.prompts
    try:
        prepared = prepared_again(request.settings, start, log=request.screen.log)
        by_place = _of_data(prepared, renderer, most)
    except (SourceNotFoundError, DataError) as error:
        request.screen.log(f"  note: the run's data cannot be read ({error.what}); packaged prompts stand in")
        by_place = {"packaged": _packaged(renderer)}
    ids: list[TokenIds] = []
    places: dict[str, int] = {}
    for place, prompts in by_place.items():
        chosen = _spread([prompt for prompt in prompts if 0 < len(prompt) <= LONGEST], most - len(ids))
        if chosen:
            ids, places = [*ids, *chosen], places | {place: len(chosen)}
    return Prompts(tuple(ids), places, tuple(_conversations(renderer)))


def _of_data(prepared: Prepared, renderer: Renderer, most: int) -> dict[str, list[TokenIds]]:
    """By what they are of; those that were trained on come last."""
    general = [renderer.serve([Message("user", item.prompt)]) for item in _spread(prepared.general, most)]
    return {
        "task": [prompt.ids for prompt in prepared.task],
        "held out": [_served(example) for example in _spread(prepared.validation, 2 * most)],
        "general": general,
        "trained on": [_served(example) for example in _spread(prepared.train, 2 * most)],
    }


def _served(example: Example) -> TokenIds:
    """What stands before the first token that is trained."""
    return example.ids[: int(np.flatnonzero(example.weights)[0])]


def _packaged(renderer: Renderer) -> list[TokenIds]:
    items = [item for file in packaged_files(PACKAGED) for item in read_general(str(file.path))]
    return [renderer.serve([Message("user", item.prompt)]) for item in items]


def _conversations(renderer: Renderer) -> Iterator[dict[str, Any]]:
    """Those of `PROBES` that the template accepts."""
    for probe in PROBES:
        with suppress(TemplateRefusal, TemplateError):
            ids = renderer.serve([Message(role, text) for role, text in probe])
            yield {"messages": [{"role": role, "content": text} for role, text in probe], "ids": ids.tolist()}


def _spread(items: Sequence[T], most: int) -> list[T]:
    """At most so many, spread evenly."""
    if len(items) <= most:
        return [items[number] for number in range(len(items))]
    return [items[number * len(items) // most] for number in range(most)]

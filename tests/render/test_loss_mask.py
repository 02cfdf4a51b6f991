"""Mutants: plausible mask bugs, each caught by the gate, by the oracle, or by both."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.serving_oracle import assert_served, dropped, pair, proven, renderer_of, talk
from tutelage.render import Renderer, Tokenizer
from tutelage.render.loss_mask import assert_proven, trained_stops
from tutelage.render.renderer import ProvenTurn
from tutelage.render.replies import RenderedTurn
from tutelage.render.turns import TurnWriter
from tutelage.types import Example, Message, Turn

CONVERSATION = talk(Message("system", "Be short."), *pair("How are you", "Fine"), *pair("And now", "Still fine"))


@pytest.fixture(scope="module")
def whole(chatml_folder: Path) -> Example:
    (one,) = proven(renderer_of(chatml_folder), CONVERSATION)
    return one


def moved(example: Example, by_prompt: int = 0, by_reply: int = 0) -> Example:
    """The mask moved at the ends of every reply, and the turns with it."""
    turns = tuple(Turn(turn.message, turn.prompt_end + by_prompt, turn.reply_end + by_reply) for turn in example.turns)
    return dataclasses.replace(masked(example, turns), turns=turns)


def masked(example: Example, turns: tuple[Turn, ...]) -> Example:
    """The mask as `turns` say, the claimed turns as they were."""
    weights = np.zeros(len(example.ids), dtype=np.float32)
    for turn in turns:
        weights[turn.prompt_end : turn.reply_end] = 1.0
    return dataclasses.replace(example, weights=weights)


def starts_one_early(one: Example) -> Example:
    return masked(one, moved(one, by_prompt=-1).turns)


def starts_one_late(one: Example) -> Example:
    return masked(one, moved(one, by_prompt=1).turns)


def leaves_out_the_stop(one: Example) -> Example:
    return masked(one, moved(one, by_reply=-1).turns)


def shifted_by_one(one: Example) -> Example:
    return dataclasses.replace(one, weights=np.roll(one.weights, 1))


def runs_into_the_next_prompt(one: Example) -> Example:
    return masked(one, (dataclasses.replace(one.turns[0], reply_end=one.turns[0].reply_end + 2), *one.turns[1:]))


def trains_everything(one: Example) -> Example:
    weights = np.ones(len(one.ids), dtype=np.float32)
    weights[0] = 0.0
    return dataclasses.replace(one, weights=weights)


def trains_nothing(one: Example) -> Example:
    return dataclasses.replace(one, weights=np.zeros_like(one.weights))


def forgets_a_turn(one: Example) -> Example:
    return masked(one, one.turns[1:])


MASK_MUTANTS = [
    starts_one_early,
    starts_one_late,
    leaves_out_the_stop,
    shifted_by_one,
    runs_into_the_next_prompt,
    trains_everything,
    trains_nothing,
    forgets_a_turn,
]


def gate(example: Example, folder: Path, *, train_on_all: bool = False) -> None:
    tokenizer = Tokenizer.load(folder)
    assert_proven(
        example, stop_ids=tokenizer.stop_ids, vocabulary_size=tokenizer.vocabulary_size, trains_all_tokens=train_on_all
    )


def oracle(example: Example, folder: Path) -> None:
    assert_served(folder, CONVERSATION, [example], stop="<|im_end|>")


def test_the_unchanged_example_passes_both(whole: Example, chatml_folder: Path) -> None:
    gate(whole, chatml_folder)
    oracle(whole, chatml_folder)


@pytest.mark.parametrize("mutate", MASK_MUTANTS)
def test_a_wrong_mask_is_caught_by_both(
    whole: Example, chatml_folder: Path, mutate: Callable[[Example], Example]
) -> None:
    mutant = mutate(whole)
    with pytest.raises(AssertionError):
        gate(mutant, chatml_folder)
    with pytest.raises(AssertionError):
        oracle(mutant, chatml_folder)


@pytest.mark.parametrize(("by_prompt", "by_reply"), [(-1, 0), (1, 0), (0, -1), (0, 1), (1, 1), (-1, -1)])
def test_wrong_turns_with_their_mask_are_caught(
    whole: Example, chatml_folder: Path, by_prompt: int, by_reply: int
) -> None:
    mutant = moved(whole, by_prompt, by_reply) if by_reply < 1 else moved_but_the_last(whole, by_prompt, by_reply)
    with pytest.raises(AssertionError):
        oracle(mutant, chatml_folder)
    if by_reply:
        with pytest.raises(AssertionError, match="stop token"):
            gate(mutant, chatml_folder)


def moved_but_the_last(example: Example, by_prompt: int, by_reply: int) -> Example:
    """The last reply ends the sequence: its end cannot move right."""
    turns = (*moved(example, by_prompt, by_reply).turns[:-1], example.turns[-1])
    return dataclasses.replace(masked(example, turns), turns=turns)


class TestGate:
    def mutated(self, example: Example, **changes: Any) -> Example:
        return dataclasses.replace(example, **changes)

    def test_first_token(self, whole: Example, chatml_folder: Path) -> None:
        weights = whole.weights.copy()
        weights[0] = 1.0
        with pytest.raises(AssertionError, match="first token"):
            gate(self.mutated(whole, weights=weights), chatml_folder, train_on_all=True)

    def test_ids_out_of_range(self, whole: Example, chatml_folder: Path) -> None:
        for wrong, words in ((403, "no embedding"), (-1, "negative")):
            ids = whole.ids.copy()
            ids[0] = wrong
            with pytest.raises(AssertionError, match=words):
                gate(self.mutated(whole, ids=ids), chatml_folder)

    def test_lengths_and_order(self, whole: Example, chatml_folder: Path) -> None:
        with pytest.raises(AssertionError, match="weights"):
            gate(self.mutated(whole, weights=whole.weights[1:]), chatml_folder)
        with pytest.raises(AssertionError, match="out of order"):
            gate(self.mutated(whole, turns=whole.turns[::-1]), chatml_folder)
        end = len(whole.ids)
        with pytest.raises(AssertionError, match="out of order"):
            gate(self.mutated(whole, turns=(Turn(4, end, end),)), chatml_folder)

    def test_train_on_all_allows_weights_outside_turns(self, whole: Example, chatml_folder: Path) -> None:
        gate(trains_everything(whole), chatml_folder, train_on_all=True)


def test_stops_are_counted(whole: Example, chatml_folder: Path) -> None:
    stop_ids = Tokenizer.load(chatml_folder).stop_ids
    assert trained_stops((whole,), stop_ids) == 2
    assert trained_stops((leaves_out_the_stop(whole), whole), stop_ids) == 2


class TestMutantsInTheRenderer:
    """The same bugs put into the renderer itself: a witness of its own disagrees before an Example comes out."""

    def test_a_reply_without_its_stop(self, chatml_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.mutate_text(monkeypatch, lambda turn: {"reply": turn.reply.removesuffix("<|im_end|>")})
        assert dropped(renderer_of(chatml_folder), CONVERSATION).reason == "no_stop_token"

    def test_a_reply_that_runs_into_the_next_prompt(self, chatml_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.mutate_text(monkeypatch, lambda turn: {"reply": turn.reply + "\n"})
        assert dropped(renderer_of(chatml_folder), CONVERSATION).reason == "stop_inside_reply"

    def test_a_prompt_one_token_short(self, chatml_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def short(turn: ProvenTurn) -> dict[str, Any]:
            return {"prompt_ids": turn.prompt_ids[:-1], "reply_ids": turn.prompt_ids[-1:] + turn.reply_ids}

        self.mutate_ids(monkeypatch, short)
        assert dropped(renderer_of(chatml_folder), CONVERSATION).reason == "round_trip"

    def test_a_reply_one_token_short(self, chatml_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def short(turn: ProvenTurn) -> dict[str, Any]:
            return {"prompt_ids": turn.prompt_ids + turn.reply_ids[:1], "reply_ids": turn.reply_ids[1:]}

        self.mutate_ids(monkeypatch, short)
        assert dropped(renderer_of(chatml_folder), CONVERSATION).reason == "round_trip"

    def mutate_text(self, monkeypatch: pytest.MonkeyPatch, change: Callable[[RenderedTurn], dict[str, Any]]) -> None:
        true = TurnWriter.turn

        def mutant(*given: Any) -> RenderedTurn:
            turn = true(*given)
            return dataclasses.replace(turn, **change(turn))

        monkeypatch.setattr(TurnWriter, "turn", mutant)

    def mutate_ids(self, monkeypatch: pytest.MonkeyPatch, change: Callable[[ProvenTurn], dict[str, Any]]) -> None:
        true = Renderer._turns_as_ids

        def mutant(*given: Any) -> Iterator[ProvenTurn]:
            for turn in true(*given):
                yield dataclasses.replace(turn, **change(turn))

        monkeypatch.setattr(Renderer, "_turns_as_ids", mutant)

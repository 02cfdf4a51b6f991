"""Prompts are served a portion at a time, memory that runs out costs no reply, and what is kept is not asked again."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tutelage.evaluate import asking
from tutelage.evaluate.asking import PORTION, Asking, Served, ask, ask_again
from tutelage.evaluate.reply_log import ReplyLog
from tutelage.generate.batch_check import Batching
from tutelage.generate.requests import EndedReply
from tutelage.types import TokenIds

HOW = Asking(4, 8, Batching("packed"))


def prompt(place: int) -> TokenIds:
    return np.full(300, place, dtype=np.int32)


def reply_to(ids: TokenIds) -> EndedReply:
    return EndedReply(f"reply to {ids[0]}", int(ids[0]) % 5, "length")


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """A model that answers with the prompt's first id; of each call how many prompts it got, and how many together."""
    calls: list[tuple[int, int]] = []

    def replies(
        _model: Any,
        _tokenizer: Any,
        prompts: Sequence[TokenIds],
        *,
        batch_prompts: int,
        done: Callable[[int], None],
        on_reply: Callable[[int, EndedReply], None],
        **_: Any,
    ) -> list[EndedReply]:
        calls.append((len(prompts), batch_prompts))
        for place, ids in enumerate(prompts):
            on_reply(place, reply_to(ids))
            done(1)
            if batch_prompts > 2 and place == 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return [reply_to(ids) for ids in prompts]

    monkeypatch.setattr(asking, "greedy_replies", replies)
    return calls


def test_every_prompt_gets_its_reply_over_all_portions(batches: list[tuple[int, int]]) -> None:
    count, finished = 2 * PORTION + 3, []

    found = ask(None, None, Served(count, prompt), Asking(4, 2, Batching("packed"), done=finished.append))

    assert found == [reply_to(prompt(place)) for place in range(count)]
    assert batches == [(PORTION, 2), (PORTION, 2), (3, 2)]
    assert sum(finished) == count
    assert ask(None, None, Served(0, prompt), HOW) == []


def test_b12_where_memory_runs_out_only_the_rest_is_asked_of_fewer(batches: list[tuple[int, int]]) -> None:
    finished: list[int] = []
    said: list[str] = []

    how = Asking(4, 8, Batching("packed"), finished.append, said.append)
    found = ask(None, None, Served(PORTION + 5, prompt), how)

    assert found == [reply_to(prompt(place)) for place in range(PORTION + 5)]
    # Three are answered before memory runs out; the portion after it begins with what fitted.
    assert batches == [(PORTION, 8), (PORTION - 3, 4), (PORTION - 6, 2), (5, 2)]
    assert sum(finished) == PORTION + 5, "the bar ends at its end"
    assert [text.split(": ")[1] for text in said] == ["the rest is asked 4 at once", "the rest is asked 2 at once"]


def test_another_failure_or_one_prompt_without_room_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_given: Any, batch_prompts: int, **_: Any) -> Any:
        raise RuntimeError("CUDA out of memory" if batch_prompts == 1 else "shapes differ")

    monkeypatch.setattr(asking, "greedy_replies", fails)
    for together, message in ((8, "shapes differ"), (1, "out of memory")):
        with pytest.raises(RuntimeError, match=message):
            ask(None, None, Served(3, prompt), Asking(4, together, Batching("packed")))


def test_what_is_kept_is_not_asked_again(batches: list[tuple[int, int]], tmp_path: Path) -> None:
    def how() -> Asking:
        replies = ReplyLog(tmp_path / "replies.jsonl", asked={"model": 1})
        return Asking(4, 2, Batching("packed"), finished.append, replies=replies)

    finished: list[int] = []
    first = ask(None, None, Served(5, prompt), how())
    second = ask(None, None, Served(8, prompt), how())

    assert second[:5] == first
    assert batches == [(5, 2), (3, 2)]
    assert sum(finished) == 5 + 8, "those that are there count as done"


def test_some_of_all_sets_are_asked_again_in_smaller_batches(batches: list[tuple[int, int]], tmp_path: Path) -> None:
    sets = {"task": Served(9, prompt), "general": Served(3, lambda place: prompt(100 + place))}
    how = Asking(4, 8, Batching("packed"), replies=ReplyLog(tmp_path / "replies.jsonl", asked={}))
    asked_first = ask(None, None, sets["task"], Asking(4, 2, Batching("packed"), replies=how.replies))

    again = ask_again(None, None, sets, how, most=4)

    assert again == {
        "task": {place: f"reply to {place}" for place in (0, 3, 6)},
        "general": {0: "reply to 100"},
    }
    assert len(asked_first) == 9
    assert batches[-1] == (4, 2), "asked, though a reply to each was kept, and two together rather than eight"


def test_prompts_that_are_answered_one_at_a_time_have_no_other_batch(batches: list[tuple[int, int]]) -> None:
    finished: list[int] = []
    said: list[str] = []

    how = Asking(4, 8, Batching("alone"), finished.append, said.append)
    again = ask_again(None, None, {"task": Served(9, prompt)}, how, most=4)

    assert again == {}
    assert batches == []
    assert sum(finished) == 4
    assert "one at a time" in said[0]


def test_few_prompts_are_served_at_once(batches: list[tuple[int, int]]) -> None:
    """What is alive of 4,000 prompts is a portion: counted, not timed."""
    alive = most_alive = 0

    def gone() -> None:
        nonlocal alive
        alive -= 1

    def serve(place: int) -> TokenIds:
        nonlocal alive, most_alive
        ids = prompt(place)
        weakref.finalize(ids, gone)
        alive += 1
        most_alive = max(most_alive, alive)
        return ids

    ask(None, None, Served(4000, serve), Asking(4, 2, Batching("packed")))
    gc.collect()

    assert alive == 0
    assert most_alive <= 2 * PORTION, "one portion, and the next while it is being served"


def peak_beside_replies(count: int, tmp_path: Path) -> int:
    """Bytes that asking takes at most, without what it returns."""
    how = Asking(4, 2, Batching("packed"), replies=ReplyLog(tmp_path / f"{count}.jsonl", asked={}))
    tracemalloc.start()
    try:
        replies = ask(None, None, Served(count, prompt), how)
        gc.collect()
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(replies) == count
    return peak - kept


def test_memory_is_flat_in_the_number_of_prompts(batches: list[tuple[int, int]], tmp_path: Path) -> None:
    """4,000 prompts of 1,200 bytes each would take 3.6 MB more than 1,000 of them, were all served at once."""
    small, large = (peak_beside_replies(count, tmp_path) for count in (1000, 4000))

    assert large < small + 300_000

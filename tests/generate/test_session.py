"""Requests that come and go while others are answered get the replies that they would get alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.support.own_forward import LetterTokenizer, own_choices, own_logits, random_prompts
from tutelage.generate import engine as engine_module
from tutelage.generate import kv_cache, schedule
from tutelage.generate.engine import Engine, Session
from tutelage.generate.requests import Completion, Request, Sampling
from tutelage.types import TokenIds

torch.set_num_threads(1)
VOCABULARY = 416
LENGTHS = (9, 31, 2, 17, 17, 1, 40, 12)
TOKENS = 10


@pytest.fixture(scope="module")
def model(tiny_model_folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_model_folder, attn_implementation="sdpa").eval()


def opened(model: Any, *, most_tokens: int = 4096, prefix_tokens: int = 0, active_replies: int = 64) -> Session:
    engine = Engine(model, LetterTokenizer(), active_replies=active_replies)  # type: ignore[arg-type] # all it asks of one
    return engine.session(most_tokens=most_tokens, prefix_tokens=prefix_tokens)


def finished(session: Session) -> dict[int, Completion]:
    completions = []
    with session.answering():
        while not session.done:
            completions += session.step()
    return {completion.request: completion for completion in completions}


@pytest.mark.parametrize(("most_tokens", "active_replies"), [(4096, 64), (4096, 2), (100, 64)])
def test_late_requests_get_the_replies_of_their_own(model: Any, most_tokens: int, active_replies: int) -> None:
    session = opened(model, most_tokens=most_tokens, active_replies=active_replies, prefix_tokens=512)
    prompts = random_prompts(LENGTHS, vocabulary=VOCABULARY)
    told: dict[int, list[int]] = {place: [] for place in range(len(prompts))}
    ended: dict[int, Completion] = {}
    with session.answering():
        for place, prompt in enumerate(prompts):
            session.submit(place, Request(prompt, TOKENS))
            for _ in range(3):
                for completion in session.step(lambda reply, token: told[reply.place].append(token)):
                    ended[completion.request] = completion
        while not session.done:
            for completion in session.step(lambda reply, token: told[reply.place].append(token)):
                ended[completion.request] = completion

    for place, prompt in enumerate(prompts):
        assert told[place] == list(ended[place].ids) == own_choices(model, prompt, told[place])
        assert len(told[place]) == TOKENS


def test_a_cancelled_request_frees_its_room_and_leaves_the_others_alone(model: Any) -> None:
    session = opened(model, active_replies=3)
    prompts = random_prompts(LENGTHS, vocabulary=VOCABULARY)
    for place, prompt in enumerate(prompts):
        session.submit(place, Request(prompt, TOKENS, samples=2 if place == 1 else 1))
    with session.answering():
        session.step()
    for place in (0, 1, 5):  # under way, and waiting; also between steps, outside of the block
        session.cancel(place)
    session.cancel(99)
    assert session.active + session.waiting == len(LENGTHS) - 3
    ended = finished(session)

    assert sorted(ended) == [2, 3, 4, 6, 7]
    for place, completion in ended.items():
        assert list(completion.ids) == own_choices(model, prompts[place], list(completion.ids))
    assert session._schedule._cache.tokens_allocated == 0


def turns_of(model: Any, session: Session) -> tuple[list[TokenIds], list[Completion]]:
    """A conversation: each prompt has the earlier ones and their replies in front."""
    prompts, replies = [random_prompts([60], vocabulary=VOCABULARY)[0]], []
    for turn in range(3):
        session.submit(turn, Request(prompts[-1], TOKENS))
        replies.append(finished(session)[turn])
        said = np.asarray([*replies[-1].ids, 7, 8, 9], dtype=np.int32)
        prompts.append(np.concatenate([prompts[-1], said]))
    return prompts[:-1], replies


@pytest.mark.parametrize("small", [False, True])
def test_what_a_conversation_said_before_is_not_computed_again(
    model: Any, monkeypatch: pytest.MonkeyPatch, small: bool
) -> None:
    if small:  # prompts are cut every few tokens, and replies move to another shelf every few
        monkeypatch.setattr(engine_module, "PREFILL_TOKENS", 7)
        monkeypatch.setattr(schedule, "ROOM_AHEAD", 2)
        monkeypatch.setattr(kv_cache, "BLOCK_TOKENS", 4)
    session = opened(model, prefix_tokens=200)
    prompts, replies = turns_of(model, session)

    for prompt, reply in zip(prompts, replies, strict=True):
        assert list(reply.ids) == own_choices(model, prompt, list(reply.ids))
    # All but the token that was generated last, whose keys nobody needed.
    assert session.reused_tokens == sum(len(prompt) + TOKENS - 1 for prompt in prompts[:-1])
    assert session._prefixes is not None
    assert session._prefixes.tokens <= 200


def test_a_known_prompt_is_of_use_to_several_at_once_and_the_oldest_leaves(model: Any) -> None:
    session = opened(model, prefix_tokens=100)
    prompts = random_prompts([50, 52, 49, 48], vocabulary=VOCABULARY, beginning=30)
    session.submit(0, Request(prompts[0], TOKENS))
    finished(session)
    for place, prompt in enumerate(prompts[1:], start=1):
        session.submit(place, Request(prompt, TOKENS, samples=2, sampling=Sampling(temperature=0.5, seed=place)))
    ended = finished(session)

    assert session.reused_tokens >= 3 * 30
    assert session._prefixes is not None
    assert 0 < session._prefixes.tokens <= 100
    fresh = opened(model)
    for place, prompt in enumerate(prompts[1:], start=1):
        fresh.submit(place, Request(prompt, TOKENS, samples=2, sampling=Sampling(temperature=0.5, seed=place)))
    assert {place: completion.ids for place, completion in finished(fresh).items()} == {
        place: completion.ids for place, completion in ended.items()
    }


def test_the_most_likely_tokens_are_those_of_the_models_own_forward(model: Any) -> None:
    session, (prompt,) = opened(model), random_prompts([12], vocabulary=VOCABULARY)
    session.submit(0, Request(prompt, 5, logprobs=True, top_logprobs=3))
    completion = finished(session)[0]

    expected = own_logits(model, prompt, list(completion.ids)).log_softmax(1).topk(3)
    assert [[token for token, _ in step] for step in completion.likely] == expected.indices.tolist()
    found = torch.tensor([[logprob for _, logprob in step] for step in completion.likely])
    torch.testing.assert_close(found, expected.values, atol=1e-4, rtol=1e-4)
    assert list(completion.logprobs) == pytest.approx([step[0][1] for step in completion.likely], abs=1e-5)

"""Requests of the soak whose replies show whose they are, and what each reply says about that.

- copied: a text that repeats a nonce, and stops where it is due again: a model that copies goes on with the nonce. What
  answers must have met the keys and values of this prompt.
- held: a conversation whose reply a JSON schema holds to its nonce, whatever the model is.
- again: a prompt with a nonce; the reply and its log-probabilities are compared afterwards with those that the server
  gives to the same prompt alone.
- left: a stream that its client leaves after some tokens.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import openai
from benchmarks.serve.clients import nonce

Kind = Literal["copied", "held", "again", "left"]
REPEATS = 5
NEW_TOKENS = 24
LONG = 200
ROUNDING = 0.2
"""By how much log-probabilities in bf16 may differ between a reply alone and one in a batch. How many replies to
*other* prompts lie within it is counted, too: they say what the comparison is worth."""


@dataclass(frozen=True, slots=True)
class Steps:
    """A greedy reply: its ids, the log-probability of each, and how far the second best lies below."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    gaps: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a request.

    Attributes:
        kind: of the request.
        verdict: right, wrong, left, refused (429), or failed.
        said: what was met where that was not right.
        prompt: of `again`.
        steps: of `again`.
    """

    kind: Kind
    verdict: Literal["right", "wrong", "left", "refused", "failed"]
    said: str = ""
    prompt: str = ""
    steps: Steps | None = None


async def ask(client: openai.AsyncOpenAI, model: str, kind: Kind, source: random.Random) -> Outcome:
    """One request; an error of the API is an outcome."""
    word = nonce(source)
    try:
        if kind == "copied":
            return await _copied(client, model, word)
        if kind == "held":
            return await _held(client, model, word)
        if kind == "again":
            prompt = f"{word} and {nonce(source)}: {source.choice(('the sea', 'a shop', 'my lamp', 'two trains'))}"
            return Outcome("again", "right", prompt=prompt, steps=await steps_of(client, model, prompt))
        return await _left(client, model, word, after=source.randrange(1, 6))
    except openai.RateLimitError:
        return Outcome(kind, "refused")
    except openai.APIError as error:
        return Outcome(kind, "failed", f"{type(error).__name__}: {error}"[:300])


async def _copied(client: openai.AsyncOpenAI, model: str, word: str) -> Outcome:
    prompt = f"code: {word}\n" * REPEATS + "code:"
    reply = await client.completions.create(
        model=model, prompt=prompt, max_tokens=NEW_TOKENS, temperature=0, stop="\n", echo=True
    )
    text = reply.choices[0].text
    is_right = text == f"{prompt} {word}"
    return Outcome("copied", "right" if is_right else "wrong", "" if is_right else f"{word}: {text!r}")


async def _held(client: openai.AsyncOpenAI, model: str, word: str) -> Outcome:
    reply = await client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": f"Say {word} as JSON."}],
        max_tokens=NEW_TOKENS,
        temperature=0,
        response_format={"type": "json_schema", "json_schema": {"name": "nonce", "schema": {"const": word}}},
    )
    choice, expected = reply.choices[0], json.dumps(word)
    text = (choice.message.content or "").strip()
    # White space around it is JSON, too, and a model of random weights may not leave it before it is cut.
    is_right = text == expected or (choice.finish_reason == "length" and expected.startswith(text))
    return Outcome("held", "right" if is_right else "wrong", "" if is_right else f"{word}: {text!r}")


async def _left(client: openai.AsyncOpenAI, model: str, word: str, *, after: int) -> Outcome:
    stream = await client.completions.create(
        model=model, prompt=f"{word} goes on", max_tokens=LONG, temperature=0, stream=True
    )
    chunks = 0
    async for _ in stream:
        chunks += 1
        if chunks == after:
            break
    await stream.close()
    return Outcome("left", "left")


async def steps_of(client: openai.AsyncOpenAI, model: str, prompt: str) -> Steps:
    """The greedy reply to a text."""
    reply: Any = await client.completions.create(
        model=model, prompt=prompt, max_tokens=NEW_TOKENS, temperature=0, logprobs=2,
        extra_body={"return_token_ids": True},
    )  # fmt: skip
    choice = reply.choices[0]
    gaps = []
    for likely in choice.logprobs.top_logprobs:
        best, second = sorted(likely.values(), reverse=True)[:2]
        gaps.append(best - second)
    return Steps(tuple(choice.token_ids), tuple(choice.logprobs.token_logprobs), tuple(gaps))


def same_reply(one: Steps, other: Steps) -> bool:
    """Whether two greedy replies are of one prompt: alike but for rounding, up to where two tokens are as likely."""
    for place, (token, logprob, gap) in enumerate(zip(one.ids, one.logprobs, one.gaps, strict=True)):
        if place >= len(other.ids):
            return gap <= ROUNDING  # the other one stopped here
        if token != other.ids[place]:
            return gap <= ROUNDING and place > 0
        if abs(logprob - other.logprobs[place]) > ROUNDING:
            return False
    return True


async def alone(client: openai.AsyncOpenAI, model: str, outcomes: Sequence[Outcome]) -> tuple[list[str], int]:
    """Ask again, one at a time.

    Returns:
        The prompts whose replies were not theirs, and how many replies would have passed for those to the next prompt.
    """
    again = [await steps_of(client, model, outcome.prompt) for outcome in outcomes]
    wrong, passed = [], 0
    for number, (outcome, expected) in enumerate(zip(outcomes, again, strict=True)):
        assert outcome.steps is not None
        if not same_reply(outcome.steps, expected):
            wrong.append(f"{outcome.prompt}: {outcome.steps} alone: {expected}")
        passed += len(again) > 1 and same_reply(outcome.steps, again[(number + 1) % len(again)])
    return wrong, passed

"""Clients that ask a server all at once, each one request after the other, through OpenAI's own asynchronous client."""

from __future__ import annotations

import asyncio
import json
import random
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import openai

ROWS = Path(__file__).parents[2] / "datasets" / "support" / "test.jsonl"
TIMEOUT_SECONDS = 1200.0
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a request.

    Attributes:
        seconds: from asking to the end.
        first_seconds: to the first words.
        tokens: of the reply, as the server counts them.
    """

    seconds: float
    first_seconds: float
    tokens: int

    @property
    def token_seconds(self) -> float:
        """Of each token behind the first."""
        return (self.seconds - self.first_seconds) / max(1, self.tokens - 1)


@dataclass(frozen=True, slots=True)
class Load:
    """What came of all requests of one measurement.

    Attributes:
        seconds: from the first request to the end of the last reply.
        client_seconds: processor time of this process meanwhile.
        answers: one for each request.
        server_seconds: processor time of the server meanwhile.
    """

    seconds: float
    client_seconds: float
    answers: tuple[Answer, ...]
    server_seconds: float = 0.0

    @property
    def tokens(self) -> int:
        """Of all replies."""
        return sum(answer.tokens for answer in self.answers)

    @property
    def speed(self) -> float:
        """New tokens a second."""
        return self.tokens / self.seconds


def nonce(source: random.Random, letters: int = 8) -> str:
    """Letters that no other request has, but by a very rare chance."""
    return "".join(source.choice(LETTERS) for _ in range(letters))


def prompts(count: int, seed: int) -> list[str]:
    """Messages that ask for long replies; each begins with a nonce, so that no server knows any of it."""
    source = random.Random(seed)
    rows = [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()]
    texts = [message["content"] for row in rows for message in row["messages"] if message["role"] == "user"]
    return [
        f"{nonce(source)}: a customer wrote this: {source.choice(texts)}\n"
        "Tell the whole story of how it came to that, in many long paragraphs."
        for _ in range(count)
    ]


async def ask(client: openai.AsyncOpenAI, model: str, prompt: str, new_tokens: int) -> Answer:
    """One request, as a stream."""
    started, first, tokens = time.perf_counter(), 0.0, 0
    stream = await client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": prompt}],
        max_tokens=new_tokens,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    async for chunk in stream:
        if not first and chunk.choices and chunk.choices[0].delta.content:
            first = time.perf_counter() - started
        if chunk.usage is not None:
            tokens = chunk.usage.completion_tokens
    seconds = time.perf_counter() - started
    return Answer(seconds, first or seconds, tokens)


async def _loaded(url: str, model: str, clients: int, texts: Sequence[str], new_tokens: int) -> Load:
    waiting, answers = list(reversed(texts)), list[Answer]()
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=TIMEOUT_SECONDS) as client:

        async def one_client() -> None:
            while waiting:
                answers.append(await ask(client, model, waiting.pop(), new_tokens))

        used, started = _used_seconds(), time.perf_counter()
        await asyncio.gather(*(one_client() for _ in range(clients)))
        return Load(time.perf_counter() - started, _used_seconds() - used, tuple(answers))


def load(url: str, model: str, clients: int, texts: Sequence[str], new_tokens: int) -> Load:
    """Ask a server.

    Args:
        url: of its API.
        model: what it calls the model.
        clients: that ask at the same time.
        texts: what is asked, by whichever client is free.
        new_tokens: of each reply.

    Raises:
        openai.APIError: a request failed.
    """
    return asyncio.run(_loaded(url, model, clients, texts, new_tokens))


def _used_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime

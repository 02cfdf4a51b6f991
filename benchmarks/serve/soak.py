"""Many clients for some time: is a reply dropped or somebody else's, does memory stay, does the server end well?

python -m benchmarks.serve.soak
python -m benchmarks.serve.soak --clients 10 --seconds 5 --queue 30

Three parts: all clients for so many seconds, some of which leave in the middle of their streams; then more requests at
once than the server takes, each of which must be answered or told to come again; then SIGTERM, with streams under way.
Ends with 1 where one of these does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
from benchmarks.serve.asked import LONG, Kind, Outcome, alone, ask
from benchmarks.serve.servers import OURS, Job, Server, end_by_exception, started, watched

from tutelage.model.locate import model_folder

TIMEOUT_SECONDS = 600.0
GRACE_SECONDS = 300
ASKED_AGAIN = 60
STREAMS_AT_THE_END = 12
GROWTH_MIB = 64
"""Of memory between half time and the end: keys and values of earlier prompts have their bound by then."""
MIB = 2**20
OPEN = "tutelage_replies_open"
ENDLESS = {"70": 100}
"""A token that is always the likeliest, so that no reply ends by itself."""


@dataclass
class Counts:
    """What was met.

    Attributes:
        outcomes: of the first part.
        hung: requests of it that had no answer long after its end.
        memory: PSS at the start, at half time and at the end of it, in bytes.
        mixed: replies that were not those to their prompts, as said again alone; `asked_again` were compared, and
            `would_pass` of them would have passed as replies to another prompt.
        burst: how requests at once, more than the server takes, ended.
        drained: whole replies among those under way at SIGTERM.
        refused: how many requests behind it were refused.
        status: exit code.
    """

    outcomes: list[Outcome] = field(default_factory=list)
    hung: int = 0
    memory: list[int] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)
    asked_again: int = 0
    would_pass: int = 0
    burst: Counter[str] = field(default_factory=Counter)
    over: int = 0
    drained: int = 0
    refused: int = 0
    status: int | None = None

    def faults(self) -> list[str]:
        """What does not hold."""
        bad = [f"{outcome.kind} {outcome.verdict}: {outcome.said}" for outcome in self.outcomes if outcome.said]
        bad += [f"not its reply: {text}" for text in self.mixed]
        _, half, end = self.memory
        checks = {
            f"{self.hung} requests hang": self.hung == 0,
            "no request was answered": bool(self.outcomes),
            f"memory grew from {half / MIB:.0f} to {end / MIB:.0f} MiB": end - half < GROWTH_MIB * MIB,
            f"at once: {dict(self.burst)}": set(self.burst) <= {"answered", "refused"} and bool(self.burst["answered"]),
            f"{self.burst['refused']} refused where {self.over} were too many": self.burst["refused"] >= self.over,
            f"{self.drained} of {STREAMS_AT_THE_END} replies came to their end": self.drained == STREAMS_AT_THE_END,
            f"{self.refused} of 3 requests refused while it ended": self.refused == 3,
            f"exit code {self.status}": self.status == 0,
        }
        return bad + [said for said, holds in checks.items() if not holds]


def options(words: Sequence[str] | None = None) -> argparse.Namespace:
    """What is asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m", help="short name or folder")
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--batch", type=int, default=32, help="of the server")
    parser.add_argument("--queue", type=int, default=128, help="of the server")
    parser.add_argument("--threads", type=int, default=2, help="of the server")
    parser.add_argument("--burst-tokens", type=int, default=50, help="of each reply where too many are asked for")
    parser.add_argument("--no-copies", action="store_true", help="the model cannot copy: its weights are random")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/soak.json"))
    return parser.parse_args(words)


def client_of(server: Server) -> openai.AsyncOpenAI:
    """OpenAI's own, which asks once."""
    return openai.AsyncOpenAI(base_url=server.url, api_key="none", max_retries=0, timeout=TIMEOUT_SECONDS)


async def soaked(asked: argparse.Namespace, server: Server, counts: Counts) -> None:
    """The first part."""
    kinds: list[Kind] = ["held", "again", "left"] if asked.no_copies else ["copied", "held", "copied", "again", "left"]
    first = time.monotonic()

    async with client_of(server) as client:

        async def one_client(number: int) -> None:
            source, turn = random.Random(number), number
            while time.monotonic() - first < asked.seconds:
                counts.outcomes.append(await ask(client, server.model, kinds[turn % len(kinds)], source))
                turn += 1

        counts.memory.append(server.memory())
        tasks = [asyncio.create_task(one_client(number)) for number in range(asked.clients)]
        await asyncio.sleep(asked.seconds / 2)
        counts.memory.append(server.memory())
        _, hung = await asyncio.wait(tasks, timeout=asked.seconds / 2 + GRACE_SECONDS)
        counts.memory.append(server.memory())
        counts.hung = len(hung)
        for task in hung:
            task.cancel()
        compared = [outcome for outcome in counts.outcomes if outcome.steps is not None][:ASKED_AGAIN]
        counts.asked_again = len(compared)
        counts.mixed, counts.would_pass = await alone(client, server.model, compared)


async def burst(asked: argparse.Namespace, server: Server, counts: Counts) -> None:
    """More at once than the server takes."""
    bound = asked.batch + asked.queue
    counts.over = bound // 4 + 1

    async with client_of(server) as client:

        async def short() -> str:
            try:
                await client.completions.create(
                    model=server.model,
                    prompt="So",
                    max_tokens=asked.burst_tokens,
                    temperature=0,
                    logit_bias=ENDLESS,
                )
            except openai.RateLimitError as error:
                return "refused" if error.response.headers.get("retry-after") else "refused without a time"
            except openai.APIError as error:
                return type(error).__name__
            return "answered"

        first = [asyncio.create_task(short()) for _ in range(bound)]
        await _until_open(server, bound)
        counts.burst.update(await asyncio.gather(*(short() for _ in range(counts.over))))
        counts.burst.update(await asyncio.gather(*first))


async def _until_open(server: Server, replies: int) -> None:
    """Wait until so many replies are under way or wait.

    Raises:
        TimeoutError: it does not come to that.
    """

    def counts() -> str:
        with urllib.request.urlopen(server.url.removesuffix("/v1") + "/metrics", timeout=TIMEOUT_SECONDS) as answer:
            text: str = answer.read().decode()
        return text

    async with asyncio.timeout(GRACE_SECONDS):
        while f"{OPEN} {replies}\n" not in await asyncio.to_thread(counts):
            await asyncio.sleep(0.01)


async def ended(server: Server, counts: Counts) -> None:
    """SIGTERM while streams are under way."""
    async with client_of(server) as client:
        streams = [
            await client.completions.create(
                model=server.model, prompt=f"Part {number}", max_tokens=LONG // 2, temperature=0, stream=True,
                logit_bias=ENDLESS,
            )
            for number in range(STREAMS_AT_THE_END)
        ]  # fmt: skip
        for stream in streams:
            await anext(aiter(stream))
        server.process.send_signal(signal.SIGTERM)

        async def refused() -> bool:
            try:
                await client.completions.create(model=server.model, prompt="So", max_tokens=1)
            except openai.APIConnectionError:
                return True
            except openai.InternalServerError as error:
                return error.status_code == 503
            return False

        async def whole(stream: Any) -> bool:
            finish = None
            async for chunk in stream:
                finish = chunk.choices[0].finish_reason if chunk.choices else finish
            return finish == "length"

        replies = [asyncio.create_task(whole(stream)) for stream in streams]
        await asyncio.sleep(0.3)
        counts.refused = sum([await refused() for _ in range(3)])
        results = await asyncio.gather(*replies, return_exceptions=True)
        counts.drained = sum(result is True for result in results)
    counts.status = await asyncio.to_thread(server.process.wait, GRACE_SECONDS)


def main(words: Sequence[str] | None = None) -> Counts:
    """Ask, print, write."""
    asked, counts = options(words), Counts()
    with tempfile.TemporaryDirectory() as name:
        job = Job(
            Path(model_folder(asked.model)), None, Path(name), threads=asked.threads, slots=asked.batch,
            options=("--quiet", "--queue", str(asked.queue), "--drain-seconds", "120"),
        )  # fmt: skip
        with started(OURS, job) as server, watched([server]):
            for part in (soaked(asked, server, counts), burst(asked, server, counts), ended(server, counts)):
                asyncio.run(part)
    verdicts = Counter((outcome.kind, outcome.verdict) for outcome in counts.outcomes)
    print(f"{asked.clients} clients, {asked.seconds:g} s: {len(counts.outcomes)} requests")
    for (kind, verdict), number in sorted(verdicts.items()):
        print(f"  {kind}: {number} {verdict}")
    print(
        f"  {counts.asked_again} asked again alone, {len(counts.mixed)} differ; as replies to another prompt "
        f"{counts.would_pass} would have passed"
    )
    print(f"  PSS at the start, at half time, at the end: {', '.join(f'{b / MIB:,.0f}' for b in counts.memory)} MiB")
    print(f"  {asked.batch + asked.queue + counts.over} at once: {dict(counts.burst)}")
    print(
        f"  SIGTERM: {counts.drained} of {STREAMS_AT_THE_END} replies under way came to their end, {counts.refused} of "
        f"3 new requests refused, exit code {counts.status}"
    )
    faults = counts.faults()
    for fault in faults:
        print(f"FAULT {fault}")
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(
        json.dumps({"verdicts": {" ".join(key): number for key, number in verdicts.items()}, "faults": faults,
                    "memory": counts.memory, "pss": server.pss, "burst": counts.burst}, indent=1), encoding="utf-8",
    )  # fmt: skip
    return counts


if __name__ == "__main__":
    end_by_exception()
    sys.exit(bool(main().faults()))

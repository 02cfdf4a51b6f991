"""New tokens a second, latency and peak memory of servers with the same weights, asked alike and by turns.

python -m benchmarks.serve.run
python -m benchmarks.serve.run --servers tutelage llama_cpp --clients 1 --rounds 5
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.serve.clients import Answer, Load, load, prompts
from benchmarks.serve.servers import NAMES, Job, Server, end_by_exception, started, watched
from benchmarks.train.machine import this_machine

from tutelage.model.locate import model_folder

OUT = Path("runs/benchmarks/serve.json")
MIB = 2**20
PERCENTILES = (50, 90, 99)
LATENCIES: dict[str, Callable[[Answer], float]] = {
    "first token": lambda answer: answer.first_seconds,
    "each further token": lambda answer: answer.token_seconds,
    "whole reply": lambda answer: answer.seconds,
}

Loads = dict[tuple[str, int], list[Load]]
"""By server and number of clients: one for each round."""


def options(words: Sequence[str] | None = None) -> argparse.Namespace:
    """What is asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m", help="short name or folder")
    parser.add_argument(
        "--servers", nargs="+", choices=NAMES, default=["tutelage", "transformers", "llama_cpp"], help="ratios are "
        "those of the first to each other one",
    )  # fmt: skip
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--requests", type=int, default=2, help="for each client; a single one asks twice as often")
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2, help="of each server")
    parser.add_argument("--out", type=Path, default=OUT, help="file for all raw figures")
    return parser.parse_args(words)


def gguf_of(folder: Path, scratch: Path) -> Path:
    """The weights in BF16, as `tutelage export --to gguf --type bf16` writes them."""
    from tutelage.export.gguf.export import export_gguf

    file = scratch / "model-bf16.gguf"
    export_gguf(folder, file, kind="bf16", prove=False, log=lambda _line: None)
    return file


def measured(asked: argparse.Namespace, servers: Sequence[Server]) -> Loads:
    """All rounds: each load meets one server after the other, in another order each round."""
    loads: Loads = {}
    for server in servers:
        load(server.url, server.model, 1, prompts(1, -1), 4)
    for turn in range(asked.rounds):
        for clients in asked.clients:
            texts = prompts(max(clients, 2) * asked.requests, seed=turn * 1000 + clients)
            for server in [*servers[turn % len(servers) :], *servers[: turn % len(servers)]]:
                before = server.cpu_seconds()
                result = load(server.url, server.model, clients, texts, asked.new_tokens)
                result = replace(result, server_seconds=server.cpu_seconds() - before)
                loads.setdefault((server.name, clients), []).append(result)
                print(
                    f"  round {turn + 1}, {clients} clients, {server.name}: {result.speed:,.1f} tokens/s, "
                    f"{result.tokens} tokens of {len(texts)} requests, load {os.getloadavg()[0]:.1f}",
                    flush=True,
                )
    return loads


def percentile(values: Sequence[float], percent: int) -> float:
    """The least value that so many percent of all do not pass."""
    return sorted(values)[max(0, -(-len(values) * percent // 100) - 1)]


def speed_table(asked: argparse.Namespace, loads: Loads) -> str:
    """Medians, and ratios within each round."""
    first, *others = asked.servers
    heads = [f"{name}, tokens/s" for name in asked.servers] + [f"{first} / {name}" for name in others]
    lines = [f"| clients | {' | '.join(heads)} |", "|---" * (1 + len(heads)) + "|"]
    for clients in asked.clients:
        speeds = {name: [result.speed for result in loads[name, clients]] for name in asked.servers}
        cells = [f"{statistics.median(speeds[name]):,.1f}" for name in asked.servers]
        for name in others:
            ratios = [ours / theirs for ours, theirs in zip(speeds[first], speeds[name], strict=True)]
            cells.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
        lines.append(f"| {clients} | {' | '.join(cells)} |")
    return "\n".join(lines)


def processor_table(asked: argparse.Namespace, loads: Loads) -> str:
    """Processor time of the server and of the clients, medians: other work beside counts less there than in speed."""
    heads = [f"{name}, server / clients" for name in asked.servers]
    lines = [f"| clients | {' | '.join(heads)} |", "|---" * (1 + len(heads)) + "|"]
    for clients in asked.clients:
        cells = []
        for name in asked.servers:
            results = [result for result in loads[name, clients] if result.tokens]
            server = statistics.median(result.server_seconds / result.tokens for result in results)
            asking = statistics.median(result.client_seconds / result.tokens for result in results)
            cells.append(f"{server * 1000:.2f} / {asking * 1000:.2f}")
        lines.append(f"| {clients} | {' | '.join(cells)} |")
    return "\n".join(lines)


def latency_table(asked: argparse.Namespace, loads: Loads) -> str:
    """Percentiles over all rounds, in seconds."""
    heads = [f"{what}, p{'/p'.join(map(str, PERCENTILES))}" for what in LATENCIES]
    lines = [f"| clients | server | {' | '.join(heads)} |", "|---" * (2 + len(heads)) + "|"]
    for clients in asked.clients:
        for name in asked.servers:
            answers = [answer for result in loads[name, clients] for answer in result.answers]
            cells = []
            for seconds in LATENCIES.values():
                values = [seconds(answer) for answer in answers]
                cells.append(" / ".join(f"{percentile(values, percent):.3g}" for percent in PERCENTILES))
            lines.append(f"| {clients} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> dict[str, Any]:
    """Start, measure, print, write; returns the raw figures."""
    asked = options(words)
    machine = this_machine()
    print(machine.sentence())
    with tempfile.TemporaryDirectory() as name, ExitStack() as running:
        scratch, folder = Path(name), Path(model_folder(asked.model))
        gguf = gguf_of(folder, scratch) if "llama_cpp" in asked.servers else None
        job = Job(folder, gguf, scratch, threads=asked.threads, slots=max(asked.clients), options=("--quiet",))
        servers = [running.enter_context(started(server, job)) for server in asked.servers]
        with watched(servers):
            loads = measured(asked, servers)
    print("\n" + speed_table(asked, loads))
    print("\nLatency, seconds:\n\n" + latency_table(asked, loads))
    print("\nProcessor time, milliseconds a new token:\n\n" + processor_table(asked, loads))
    peaks = {server.name: max(bytes_ for _, bytes_ in server.pss) for server in servers}
    print("\nPeak PSS, MiB: " + ", ".join(f"{name} {peak / MIB:,.0f}" for name, peak in peaks.items()))
    raw = {
        "machine": asdict(machine),
        "asked": {key: str(value) for key, value in vars(asked).items()},
        "peak_pss_bytes": peaks,
        "loads": [
            {"server": server, "clients": clients, "round": number + 1, **asdict(result)}
            for (server, clients), results in loads.items()
            for number, result in enumerate(results)
        ],
    }
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(raw, indent=1), encoding="utf-8")
    print(f"All raw figures: {asked.out}")
    return raw


if __name__ == "__main__":
    end_by_exception()
    main()

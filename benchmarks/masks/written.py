"""Of all pairs whose words the template writes at all, how many are proven? From the results of `benchmarks.masks.run`.

A pair is *written* when, in some way of handing the messages over (reasoning stays in its field), every trained turn
behind another message has a served prompt and a finished turn, both render, and the finished turn holds all words of
the turn: reasoning, content, names and arguments of calls, behind what is written without the turn, as the tools on
offer have the same names. Nothing is asked of earlier messages, of open or closed blocks, or of stops. Rows that spell
a control token are left out. Under the default setting a pair that is dropped for `no_reasoning` and proven with
`empty_reasoning = "close"` is the policy's, and counted apart. The setting "open" has `closed_reasoning = "open"`, too.

    python -m benchmarks.masks.written runs/masks --templates DIR
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from itertools import takewhile
from pathlib import Path
from typing import Any

from benchmarks.masks.oracle import trained_messages
from benchmarks.masks.pairs import spelling_tokenizer
from benchmarks.masks.run import TRAPS, read_cases
from benchmarks.masks.served import INLINE, Server, Way, ways_for
from benchmarks.masks.words import called, spoken

from tutelage.types import Conversation

WAY_OUT = "the turn is proven with"
"""How a drop names what it was proven with when that was tried."""


def is_written(conversation: Conversation, server: Server) -> bool:
    """Whether the template writes all words of every turn that is to be trained, in some way."""
    trained = [trained_message for trained_message in trained_messages(conversation) if trained_message > 0]
    return bool(trained) and any(
        all(_writes(conversation, index, server, way) for index in trained)
        for way in ways_for(conversation)
        if way.reasoning not in INLINE
    )


def _writes(conversation: Conversation, index: int, server: Server, way: Way) -> bool:
    prompt = server.text(conversation, index, way, prompt=True)
    finished = server.text(conversation, index + 1, way, prompt=False)
    if not (isinstance(prompt, str) and prompt and isinstance(finished, str)):
        return False
    message = conversation.messages[index]
    before = server.text(conversation, index, way, prompt=False)
    letters = zip(before if isinstance(before, str) else "", finished, strict=False)
    start = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], letters))
    return all(piece.find(finished, start) is not None for piece in [*spoken(message), *called(message)])


def main() -> int:
    """Print the shares of each setting, and what is lost by template and reason."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="the folder that run wrote")
    parser.add_argument("--templates", type=Path, required=True, help="the folder of *.jinja files that run was given")
    options = parser.parse_args()
    lines = (options.results / "results.jsonl").read_text(encoding="utf-8").splitlines()
    pairs: list[dict[str, Any]] = [json.loads(line) for line in lines]
    cases, _ = read_cases(TRAPS)
    written = set()
    for name in sorted({pair["template"] for pair in pairs}):
        server = Server(spelling_tokenizer((options.templates / f"{name}.jinja").read_text(encoding="utf-8")))
        written |= {(name, case.name) for case in cases if is_written(case.conversation, server)}
    closed = {_key(pair) for pair in pairs if pair["setting"] == "close" and pair["verdict"] == "proven"}
    by_setting = {
        setting: {_key(pair): pair for pair in pairs if pair["setting"] == setting and _key(pair)[1:] in written}
        for setting in ("default", "close", "open")
    }
    by_setting["open"] = by_setting["close"] | by_setting["open"]  # which only rows with reasoning are asked
    for setting, asked in by_setting.items():
        _print(setting, list(asked.values()), closed)
    return 0


def _key(pair: dict[str, Any]) -> tuple[str, str, str]:
    return pair["tokenizer"], pair["template"], pair["case"]


def _print(setting: str, pairs: list[dict[str, Any]], closed: set[tuple[str, str, str]]) -> None:
    counted = [pair for pair in pairs if pair["acceptance"] != "control token"]
    policy = [one for one in counted if one["reason"] == "no_reasoning" and _key(one) in closed]
    left = [one for one in counted if one not in policy]
    proven = sum(one["verdict"] == "proven" for one in left)
    print(f"{setting}: {proven} of {len(left)} proven, {proven / max(1, len(left)):.2%}; {len(policy)} the policy's")
    named = sum(WAY_OUT in one["detail"] for one in left if one["verdict"] != "proven")
    print(f"  {len(left) - proven} lost, {named} of them with a way out in the drop, which proves the turn")
    lost = Counter((one["template"], one["reason"]) for one in left if one["verdict"] != "proven")
    for (template, reason), count in lost.most_common():
        print(f"  {count} {template} {reason}")


if __name__ == "__main__":
    raise SystemExit(main())

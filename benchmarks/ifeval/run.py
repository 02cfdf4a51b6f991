"""Our verdicts on IFEval's instructions beside those of the package if-verifiable, on the same replies.

python -m benchmarks.ifeval.run --rows ifeval_input_data.jsonl --environment VENV --nltk-data FOLDER
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.ifeval.replies import ANY_ROW, Row, following, near_misses

from tutelage.evaluate.instructions.accuracy import follows_loosely
from tutelage.evaluate.instructions.kinds import instruction_of

CONTESTANT = Path(__file__).parent / "by_if_verifiable.py"


def options() -> argparse.Namespace:
    """What is asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, required=True, help="IFEval's file")
    parser.add_argument("--environment", type=Path, required=True, help="a virtual environment with if-verifiable")
    parser.add_argument("--nltk-data", type=Path, help="a folder with NLTK's tokenizers/punkt_tab")
    parser.add_argument("--show", type=int, default=0, help="disagreements of each kind to print")
    return parser.parse_args()


def follows_all(row: Row, reply: str) -> bool:
    """Whether our checks hold it to follow everything."""
    return all(instruction_of(*named).follows(reply) for named in row)


def replies_to(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What kind of reply, and the reply."""
    asked = list(zip(row["instruction_id_list"], row["kwargs"], strict=True))
    tried = list(following(asked))
    following_reply = next((reply for reply in tried if follows_all(asked, reply)), tried[0])
    yield "following", following_reply
    yield "more blank lines", following_reply.replace("\n\n", "\n\n\n\n")
    for near in near_misses(asked):
        replies = [reply for reply in following(near) if len(reply) < 12_000][:20]
        yield "near", next((reply for reply in replies if follows_all(near, reply)), replies[0])
    yield "the prompt", row["prompt"]
    yield from ANY_ROW.items()


def cases_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each instruction of each row with each reply to the row."""
    return [
        {"key": row["key"], "prompt": row["prompt"], "id": name, "arguments": arguments, "how": how, "reply": reply}
        for row in rows
        for how, reply in replies_to(row)
        for name, arguments in zip(row["instruction_id_list"], row["kwargs"], strict=True)
    ]


def their_verdicts(cases: list[dict[str, Any]], asked: argparse.Namespace) -> dict[str, Any]:
    """What the package says, in its own process."""
    environment = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "NLTK_DATA"}}
    if asked.nltk_data:
        environment["NLTK_DATA"] = str(asked.nltk_data.absolute())
    with tempfile.TemporaryDirectory() as folder:
        cases_file, verdicts_file = Path(folder) / "cases.json", Path(folder) / "verdicts.json"
        cases_file.write_text(json.dumps(cases), encoding="utf-8")
        python = asked.environment.absolute() / "bin" / "python"
        subprocess.run([python, CONTESTANT, cases_file, verdicts_file], check=True, env=environment)
        answer: dict[str, Any] = json.loads(verdicts_file.read_text(encoding="utf-8"))
    return answer


def main() -> None:
    """Compare and print."""
    asked = options()
    rows = [json.loads(line) for line in asked.rows.read_text(encoding="utf-8").splitlines()]
    cases = cases_of(rows)
    answer = their_verdicts(cases, asked)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    shown: Counter[str] = Counter()
    for case, theirs in zip(cases, answer["verdicts"], strict=True):
        instruction, kind = instruction_of(case["id"], case["arguments"]), counts[case["id"]]
        strict, loose = instruction.follows(case["reply"]), follows_loosely(instruction, case["reply"])
        kind["cases"] += 1
        kind["followed"] += strict
        if "error" in theirs:
            kind["no verdict"] += 1
            continue
        kind["strict"] += strict != theirs["strict"]
        kind["loose"] += loose != theirs["loose"]
        if (strict, loose) != (theirs["strict"], theirs["loose"]) and shown[case["id"]] < asked.show:
            shown[case["id"]] += 1
            ours = f"ours {strict}/{loose}, theirs {theirs['strict']}/{theirs['loose']}"
            print(case["id"], case["arguments"], case["key"], case["how"], ours, repr(case["reply"][:600]))
    report(counts, answer["versions"])


def report(counts: dict[str, Counter[str]], versions: dict[str, str]) -> None:
    """The table."""
    print(", ".join(f"{name} {number}" for name, number in versions.items()))
    print("| kind | cases | followed | agreements | disagreements, strict | loose | no verdict of theirs |")
    print("|---|---|---|---|---|---|---|")
    for name in sorted(counts):
        kind = counts[name]
        agreements = kind["cases"] - kind["strict"] - kind["no verdict"]
        print(f"| {name} | {kind['cases']:,} | {kind['followed']:,} | {agreements:,} | {kind['strict']:,} ", end="")
        print(f"| {kind['loose']:,} | {kind['no verdict']:,} |")


if __name__ == "__main__":
    main()

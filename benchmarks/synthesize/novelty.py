"""Processor time of the novelty rule where 5,200 and 52,000 instructions are kept: ours, rapidfuzz, rouge-score.

python -m benchmarks.synthesize.novelty --material FOLDER
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tutelage.synthesize.novelty import NoveltyIndex
from tutelage.words import plain_words

BOUND = 0.7
SIZES = (5_200, 52_000)
COLUMNS = {
    "selfinstruct_seed_tasks.jsonl": ("instruction",),
    "selfinstruct_user_oriented.jsonl": ("instruction",),
    "octopack_oasst_rawin.jsonl": ("instruction",),
    "ifeval_input_data.jsonl": ("prompt",),
    "gsm8k_train.jsonl": ("question", "answer"),
    "gsm8k_test.jsonl": ("question", "answer"),
}
TABLES = ("flan_cot_aqua.tsv", "flan_cot_qasc.tsv", "flan_cot_sensemaking.tsv")
Decides = Callable[[str], bool]


def texts_of(folder: Path) -> Iterator[str]:
    """Whole texts of the published files."""
    for name, columns in COLUMNS.items():
        for line in (folder / name).read_text(encoding="utf-8").split("\n"):
            row = json.loads(line) if line else {}
            yield from (row[column] for column in columns if column in row)
    for name in TABLES:
        for line in (folder / name).read_text(encoding="utf-8").split("\n"):
            yield from line.split("\t")[::2]


def sentences(folder: Path) -> list[str]:
    """Sentences of 4 to 150 words in a fixed order."""
    found = [part for text in texts_of(folder) for part in re.split(r"(?<=[.?!])\s+|\\n|\n", text)]
    kept = [sentence for sentence in found if 3 < len(plain_words(sentence)) <= 150]
    random.Random(0).shuffle(kept)
    return kept


def by_rapidfuzz(kept: Sequence[str]) -> Decides:
    """Every one, words as characters of one string each, in compiled code."""
    from rapidfuzz.distance import LCSseq
    from rapidfuzz.process import cdist

    numbers: dict[str, str] = {}

    def encode(text: str) -> str:
        return "".join(numbers.setdefault(word, chr(0x10000 + len(numbers))) for word in plain_words(text))

    encoded = [encode(text) for text in kept]
    import numpy as np

    lengths = np.array([len(text) for text in encoded])

    def is_new(text: str) -> bool:
        query = encode(text)
        common = cdist([query], encoded, scorer=LCSseq.similarity)[0]
        return not bool((20 * common >= 7 * (len(query) + lengths)).any())

    return is_new


def by_rouge_score(kept: Sequence[str]) -> Decides:
    """Every one, split into words beforehand, as Alpaca's script does it."""
    from rouge_score import rouge_scorer

    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    tokens = [scorer._tokenizer.tokenize(text) for text in kept]

    def is_new(text: str) -> bool:
        query = scorer._tokenizer.tokenize(text)
        return max(rouge_scorer._score_lcs(query, other).fmeasure for other in tokens) <= BOUND

    return is_new


def measure(decide: Decides, queries: Sequence[str]) -> tuple[float, float, list[bool]]:
    """Median and mean microseconds of processor time of one decision, and the decisions."""
    costs, decisions = [], []
    for query in queries:
        started = time.process_time_ns()
        decisions.append(decide(query))
        costs.append((time.process_time_ns() - started) / 1000)
    return statistics.median(costs), statistics.mean(costs), decisions


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--material", type=Path, required=True)
    parser.add_argument("--queries", type=int, default=1000, help="asked of ours; a tenth of rapidfuzz")
    parser.add_argument("--rouge-queries", type=int, default=5)
    chosen = parser.parse_args()
    everything = sentences(chosen.material)
    queries, stream = everything[: chosen.queries], iter(everything[chosen.queries :])
    index, kept, spent = NoveltyIndex(BOUND), [], 0.0
    others = {"rapidfuzz": (by_rapidfuzz, chosen.queries // 10), "rouge_score": (by_rouge_score, chosen.rouge_queries)}
    costs: dict[str, list[float]] = {}
    for size in SIZES:
        started = time.process_time()
        while len(index) < size:
            words = plain_words(text := next(stream))
            if index.nearest(words) is None:
                index.add(words)
                kept.append(text)
        spent += time.process_time() - started
        median, mean, ours = measure(lambda text: index.nearest(plain_words(text)) is None, queries)
        costs.setdefault("ours", []).append(mean)
        print(f"{size:,} kept: ours {median:,.0f} µs median, {mean:,.0f} µs mean; {sum(ours)} of {len(ours)} are new")
        for name, (make, number) in others.items():
            if importlib.util.find_spec(name):
                median, mean, theirs = measure(make(kept), queries[:number])
                same = sum(one == other for one, other in zip(ours, theirs, strict=False))
                costs.setdefault(name, []).append(mean)
                print(f"  {name} {median:,.0f} µs median, {mean:,.0f} µs mean; {same} of {number} decisions the same")
    for name, (first, last) in costs.items():
        print(f"{name}: {last / first:.1f} times the cost at {SIZES[1] // SIZES[0]} times the size")
    print(f"all {SIZES[1]:,} by ours, those that were not new among them: {spent:.0f} s")


if __name__ == "__main__":
    main()

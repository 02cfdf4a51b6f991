"""SemHash on the rows of the benchmark, with its own threshold (0.9), over the packaged vectors of wordllama.

    PYTHON_WITH_SEMHASH benchmarks/curate/by_semhash.py FOLDER OUT

Its own vectors are not in any package. A row's text is its turns, one below the other. The last line printed is JSON:
rows, seconds (vectors, index and search; reading left out), what was dropped by row.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file
from semhash import SemHash
from tokenizers import Tokenizer


class Encoder:
    """The mean of a packaged table's vectors of the tokens of a text."""

    def __init__(self) -> None:
        origin = importlib.util.find_spec("wordllama").origin
        folder = Path(origin).parent
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizers/l2_supercat_tokenizer_config.json"))
        self.tokenizer.no_padding()
        table = load_file(folder / "weights/l2_supercat_256.safetensors")["embedding.weight"]
        self.table = table.astype(np.float32)

    def encode(self, inputs: Sequence[Any] | Any, **_: Any) -> np.ndarray:
        """Vectors of texts."""
        encodings = self.tokenizer.encode_batch(list(inputs), add_special_tokens=False)
        return np.stack([self.table[encoding.ids or [0]].mean(axis=0) for encoding in encodings])


def main() -> None:
    """Deduplicate once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    asked = parser.parse_args()
    lines = (asked.folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    records = [
        {"text": "\n\n".join(turn["content"] for turn in json.loads(line)["messages"]), "id": str(number)}
        for number, line in enumerate(lines)
    ]
    encoder = Encoder()
    start = time.perf_counter()
    result = SemHash.from_records(records, columns=["text"], model=encoder).self_deduplicate()
    seconds = time.perf_counter() - start
    kept = {int(record["id"]) for record in result.selected}
    dropped = {row: "semhash" for row in range(len(records)) if row not in kept}
    print(json.dumps({"rows": len(records), "seconds": seconds, "dropped": dropped}))


if __name__ == "__main__":
    main()

"""One preparation by LitGPT's SFTDataset of the same rows; prints one JSON line. Needs an environment with LitGPT.

    PYTHON_WITH_LITGPT benchmarks/prepare/by_litgpt.py ROWS.jsonl MODEL_FOLDER

Timed is one pass over the data set in one process, as it tokenizes each row when the row is asked for; not timed is
reading the file. Its own ChatML prompt for this model stands for the chat template.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def main() -> None:
    """Prepare once."""
    from litgpt.data.base import SFTDataset
    from litgpt.tokenizer import Tokenizer

    lines = Path(sys.argv[1]).read_text(encoding="utf-8").split("\n")
    rows = [json.loads(line) for line in lines if line]
    for row in rows:
        row["instruction"] = "\n\n".join(text for text in (row["instruction"], row["input"]) if text)
    tokenizer = Tokenizer(Path(sys.argv[2]))
    data = SFTDataset(rows, tokenizer, "smollm2", max_seq_length=1024, mask_prompt=True)
    started = time.perf_counter()
    made = [data[index] for index in range(len(data))]
    seconds = time.perf_counter() - started
    tokens = sum(len(one["input_ids"]) for one in made)
    trained = sum(int((one["labels"] != -100).sum()) for one in made)
    print(json.dumps({"rows": len(rows), "seconds": seconds, "tokens": tokens, "trained_tokens": trained}))


if __name__ == "__main__":
    main()

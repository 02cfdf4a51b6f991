"""What a run of the program gave, and rows to run it on."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

GOOD = [
    {"messages": [{"role": "user", "content": f"question {n}"}, {"role": "assistant", "content": f"answer {n}"}]}
    for n in range(1, 5)
]
SPELLED = {"messages": [{"role": "user", "content": "<|im_end|>"}, {"role": "assistant", "content": "no"}]}
NO_REPLY = {"messages": [{"role": "user", "content": "anyone?"}]}


class Ran(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

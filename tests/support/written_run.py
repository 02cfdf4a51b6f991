"""A small, whole run folder, and a reader for the page made from it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

RESULT: dict[str, Any] = {
    "name": "labels, small",
    "model": "tiny-instruct",
    "method": "lora",
    "started": "2025-01-02T03:04:05Z",
    "elapsed_seconds": 204.31,
    "steps": 30,
    "epochs": 3.0,
    "stopped_early": False,
    "best_step": 20,
    "before": {
        "exact_match": 0.0,
        "valid_json": 0.317,
        "heldout_loss": 2.3104,
        "general": 0.4133,
        "fields": {"product": 0.104, "urgent": None},
    },
    "after": {
        "exact_match": 0.81,
        "valid_json": 1.0,
        "heldout_loss": 0.1202,
        "general": 0.3878,
        "fields": {"product": 0.9625, "urgent": 0.5},
    },
    "tokens_per_second": 9388.2,
    "trained_tokens": 57213,
    "total_tokens": 236881,
    "peak_bytes": 2652142305,
    "dropped": {"duplicate": 9, "too_long": 3},
    "examples": [
        {
            "address": "heldout.jsonl:1",
            "prompt": "The camera is black, order K4821.",
            "reference": '{"product": "camera", "order": "K4821"}',
            "before": "Thank you for your message!",
            "after": '{"product": "camera", "order": "K4812"}',
        }
    ],
    "parameters": {"total": 134515008, "trainable": 2442240},
    "device": "cpu, float32",
    "versions": {"tutelage": "0.1.0", "torch": "2.9.1"},
    "seed": 17,
    "settings_sha256": "a3" * 32,
    "template_sha256": "9f" * 32,
    "data_sha256": {"train.jsonl": "0c" * 32},
    "git_commit": "5f2c1de0",
}

LEDGER: dict[str, Any] = {
    "rows_in": 1000,
    "rows_kept": 988,
    "rows_dropped": 12,
    "dropped": {"duplicate": 9, "too_long": 3},
    "changed": {"trimmed": 41},
    "notes": ["train.jsonl: read as messages."],
    "samples": {"duplicate": [{"address": "train.jsonl:88", "detail": "same as train.jsonl:12"}]},
}

ROWS: list[dict[str, Any]] = [
    {
        "address": "train.jsonl:1",
        "tokens": [
            {"text": "Hello", "id": 11, "weight": 0.0, "stop": False},
            {"text": "\n", "id": 12, "weight": 0.0, "stop": False},
            {"text": "yes", "id": 13, "weight": 1.0, "stop": False},
            {"text": "<end>", "id": 2, "weight": 1.0, "stop": True},
        ],
    }
]


def record_lines(steps: int = 30) -> list[dict[str, Any]]:
    """A falling loss with a held-out measurement every ten steps."""
    lines: list[dict[str, Any]] = [{"step": 0, "heldout_loss": 2.3104, "elapsed_seconds": 0.5}]
    for step in range(1, steps + 1):
        lines.append(
            {
                "step": step,
                "epoch": step / 10,
                "loss": 0.1 + 2.2 * math.exp(-step / 8),
                "learning_rate": 2e-4 * (1 - step / (steps + 1)),
                "gradient_norm": 0.5 + 1 / step,
                "tokens": 4000,
                "trained_tokens": 900,
                "tokens_per_second": 9400.0 + step,
                "elapsed_seconds": 0.4 * step,
                "peak_bytes": 2**31 + step,
            }
        )
        if step % 10 == 0:
            lines.append({"step": step, "heldout_loss": 0.12 + abs(step - 20) / 100, "elapsed_seconds": 0.4 * step})
    return lines


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with every file."""
    folder = tmp_path / "first-run"
    folder.mkdir()
    (folder / "record.jsonl").write_text("".join(json.dumps(line) + "\n" for line in record_lines()), encoding="utf-8")
    for name, content in (("result.json", RESULT), ("ledger.json", LEDGER), ("rows.json", ROWS)):
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    (folder / "settings.toml").write_text("[train]\nepochs = 3\n", encoding="utf-8")
    return folder


@pytest.fixture
def rewrite(run: Path) -> Callable[..., Path]:
    """Change fields of one JSON file of the run folder."""

    def change(file: str, /, **fields: Any) -> Path:
        path = run / file
        content = json.loads(path.read_text(encoding="utf-8")) | fields
        path.write_text(json.dumps(content), encoding="utf-8")
        return run

    return change


class PageReader(HTMLParser):
    """What a browser would find: elements with their attributes, visible text, exact values, table rows."""

    VOID = frozenset({"meta", "br", "link", "img", "input", "hr"})

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.scripts: dict[str, str] = {}
        self.exact: list[tuple[str, str]] = []
        self.score_rows: dict[str, list[str]] = {}
        self._open: list[tuple[str, dict[str, str | None]]] = []
        self._score: str | None = None
        self.feed(html)
        self.close()
        assert self._open == [], f"elements left open: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        assert len(attributes) == len(attrs), f"<{tag}> says an attribute twice: {attrs}"
        self.elements.append((tag, attributes))
        if tag in self.VOID:
            return
        self._open.append((tag, attributes))
        if tag == "tr":
            self._score = attributes.get("data-score")
        if tag in ("td", "th") and self._score:
            self.score_rows.setdefault(self._score, []).append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open[-1][0] == tag, f"</{tag}> closes <{self._open[-1][0]}>"
        self._open.pop()
        if tag == "tr":
            self._score = None

    def handle_data(self, data: str) -> None:
        tag, attributes = self._open[-1] if self._open else ("", {})
        if tag in ("script", "style"):
            self.scripts[attributes.get("id") or tag] = data
            return
        self.texts.append(data)
        if tag == "data":
            self.exact.append((attributes["value"] or "", data))
        if self._score and any(name in ("td", "th") for name, _ in self._open):
            self.score_rows[self._score][-1] += data

    @property
    def text(self) -> str:
        """All visible text, line breaks and runs of spaces as one space; no-break spaces stay."""
        return " ".join("".join(self.texts).split(" ")).replace("\n", " ")


@pytest.fixture
def read_page() -> Callable[[Path], PageReader]:
    """Parse a page; it must be well nested."""
    return lambda path: PageReader(path.read_text(encoding="utf-8"))

"""What the steps meet in published files, by file and row: the table of docs/curate.md."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ftfy", reason="the extra [curate] is not installed")

from tutelage.config.curation_normalize import NormalizeSettings
from tutelage.config.curation_quality import QualitySettings
from tutelage.curate.normalize import Normalize
from tutelage.curate.quality import Quality
from tutelage.curate.step import Edited
from tutelage.formats import read
from tutelage.ledger import Ledger
from tutelage.types import Conversation, Drop

MATERIAL = Path(__file__).resolve().parents[3].parent / "shared/material/data"
pytestmark = pytest.mark.skipif(not MATERIAL.is_dir(), reason="the collection of published files is not here")
COT = {"prompt": "0", "response": "2"}


def rows(name: str, columns: dict[str, str] | None = None) -> Iterator[Conversation]:
    return read([str(MATERIAL / name)], ledger=Ledger(), columns=columns)


def reasons(step: Any, name: str, columns: dict[str, str] | None = None) -> dict[str, list[int]]:
    """Rows by the reason that a step drops or changes them for."""
    found: dict[str, list[int]] = {}
    for row in rows(name, columns):
        outcome = step(row)
        entries = outcome.changes if isinstance(outcome, Edited) else (outcome,) if isinstance(outcome, Drop) else ()
        for entry in entries:
            found.setdefault(entry.reason, []).append(entry.address.number)
    return found


@pytest.mark.parametrize(
    ("name", "columns", "reason", "met"),
    [
        ("t0_ag_news_classify.jsonl", None, "end_token_in_text", 200),
        ("flan_cot_qasc.tsv", COT, "literal_newlines", 1084),
        ("gsm8k_train.jsonl", None, "control_characters", [2382, 7389]),
        ("llamafactory_identity.json", None, "unfilled_variable", 85),
        ("llamafactory_reason_tool_use_demo_50.jsonl", None, "reasoning_tag", [7]),
    ],
)
def test_debris_in_published_files(name: str, columns: Any, reason: str, met: int | list[int]) -> None:
    found = reasons(Normalize(NormalizeSettings()), name, columns)[reason]
    assert (found if isinstance(met, list) else len(found)) == met


@pytest.mark.parametrize(
    ("name", "columns", "reason", "met"),
    [
        ("flan_cot_aqua.tsv", COT, "cut", [2579]),
        ("llamafactory_v1_sft_demo.jsonl", None, "code_fences", [230]),
        ("llamafactory_glaive_toolcall_en_demo.json", None, "bad_json_in_reply", [78]),
        ("tinker_conversations.jsonl", None, None, []),
    ],
)
def test_broken_rows_in_published_files(name: str, columns: Any, reason: str | None, met: list[int]) -> None:
    settings = QualitySettings(rules=["empty", "code_fences", "bad_json_in_reply", "cut", "formulas", "repetition"])
    found = reasons(Quality(settings), name, columns)
    assert found.get(reason or "", []) == met
    assert reason is not None or not found

"""The damage of the curation benchmark is what it says, and most of it is found; what was not damaged is left alone."""

from __future__ import annotations

import importlib.util
import json
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("py3langid", reason="the extra [curate] is not installed")

from tutelage.types import Address, Conversation, Message

ROOT = Path(__file__).resolve().parents[2]
REPLY = (
    "Your parcel left our store on Monday and is on its way to you. It should be there on Wednesday before noon. "
    "If nobody is at home, it waits for you at the shop next door.\n\n```\ntrack 12\n```\nThat shows where it is."
)


@pytest.fixture(scope="module")
def damage() -> ModuleType:
    spec = importlib.util.spec_from_file_location("damage", ROOT / "benchmarks/curate/damage.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules["damage"] = loaded  # dataclasses look their module up
    spec.loader.exec_module(loaded)
    return loaded


def test_each_kind_of_damage(damage: ModuleType) -> None:
    draw = random.Random(1)
    for _ in range(50):
        cut = damage.cut(REPLY, draw)
        assert cut is None or (REPLY.startswith(cut) and cut[-1] not in ".:")
        with pytest.raises(ValueError, match=r"column|char"):
            json.loads(damage.without_bracket(REPLY, draw))
        repeated = damage.repeated(REPLY, draw).removeprefix(REPLY + " ")
        assert any(repeated.count(sentence) >= 8 for sentence in damage.re.split(r"(?<=[.])\s+", REPLY))
        assert damage.translated(REPLY, draw).isascii() is False or "the" not in damage.translated(REPLY, draw)
    assert json.loads(damage.as_json(REPLY))["count"] == 6
    assert damage.without_fence(REPLY, draw) == REPLY[: REPLY.rindex("```")]
    assert damage.without_fence("no code", draw) is None


def test_most_damage_is_found(damage: ModuleType) -> None:
    rows = []
    for name in ("prose", "letter", "recipe"):
        text = (ROOT / f"datasets/texts/{name}.txt").read_text(encoding="utf-8")
        sentences = damage.re.split(r"(?<=[.])\s+", text)
        for start in range(len(sentences) - 6):
            reply = Message("assistant", " ".join(sentences[start : start + 6]))
            rows.append(
                Conversation((Message("user", "Tell me a story that nobody knows."), reply), Address("a", start))
            )
    least = {
        "cut behind a word": 0.2,
        "bracket taken out": 1.0,
        "sentence repeated": 0.95,
        "other language, languages": 1.0,
        "other language, as_prompt": 1.0,
    }
    for planted in damage.PLANTED:
        if planted.name in least:
            count, found, alarms = damage.measure(planted, rows, 1)
            assert count > 0.8 * len(rows), planted.name
            assert found >= least[planted.name] * count, (planted.name, found, count)
            assert alarms == 0, planted.name

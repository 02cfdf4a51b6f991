"""The nightly count of damaged inputs: it makes the same ones again, and a fault does not pass it by."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from benchmarks.fuzz.attempts import Attempts
from benchmarks.fuzz.mutations import damaged_bytes, damaged_value
from benchmarks.fuzz.run import attempt_chunk

from tutelage import formats


def test_a_damage_is_the_same_for_the_same_seed() -> None:
    document = {"messages": [{"role": "user", "content": "a"}], "id": 3}
    for seed in range(200):
        one, other = (damaged_value(document, random.Random(seed)) for _ in range(2))
        assert repr(one) == repr(other)
        assert damaged_bytes(b"abc" * 40, random.Random(seed)) == damaged_bytes(b"abc" * 40, random.Random(seed))
    assert document == {"messages": [{"role": "user", "content": "a"}], "id": 3}


@pytest.mark.parametrize("kind", ["data", "settings"])
def test_damaged_inputs_end_in_an_answer_or_an_error_of_ours(kind: str, tmp_path: Path) -> None:
    count = attempt_chunk(kind, range(150), 1, tmp_path)
    assert count.faults == []
    assert count.outcomes.total() == 150
    assert len(count.outcomes) > 1, "all of one kind: nothing was really damaged"


def test_another_exception_and_unbalanced_books_are_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = Attempts(tmp_path / "work", 0)
    assert attempts.renderer is not None

    def broken(*_: object, ledger: formats.Ledger, **__: object) -> object:
        ledger.enter()
        raise KeyError("planted")

    monkeypatch.setattr(formats, "read", broken)
    count = attempt_chunk("data", range(3, 4), 0, tmp_path)
    assert [number for number, _ in count.faults] == [3]
    assert "planted" in (tmp_path / "faults" / "data-3.txt").read_text(encoding="utf-8")

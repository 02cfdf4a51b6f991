"""The benchmark of servers at tiny size, and the soak: small in `make test`, whole at night."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("openai", reason="the benchmark asks through OpenAI's own client")

from benchmarks.serve import run, soak
from benchmarks.serve.asked import Steps, same_reply
from benchmarks.serve.clients import prompts


def test_every_prompt_is_another_one_and_the_same_for_the_same_seed() -> None:
    texts = prompts(300, seed=3)
    assert texts == prompts(300, seed=3)
    assert len({text.partition(":")[0] for text in texts}) == 300
    assert not set(texts) & set(prompts(300, seed=4))


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert [run.percentile(values, percent) for percent in (50, 90, 99)] == [50.0, 90.0, 99.0]
    assert run.percentile([7.0], 99) == 7.0


def test_replies_are_alike_up_to_rounding_and_a_tie() -> None:
    reply = Steps((4, 5, 6), (-0.1, -0.7, -0.2), (3.0, 0.05, 2.0))
    assert same_reply(reply, Steps((4, 5, 6), (-0.15, -0.6, -0.3), (3.0, 0.0, 2.0)))
    assert same_reply(reply, Steps((4, 9), (-0.1, -0.7), (3.0, 0.0)))
    assert not same_reply(reply, Steps((4, 5, 9), (-0.1, -0.7, -0.2), (3.0, 0.05, 2.0)))
    assert not same_reply(reply, Steps((4, 5, 6), (-0.1, -1.7, -0.2), (3.0, 0.05, 2.0)))


def test_our_server_is_measured(tiny_model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = run.main(
        [
            "--model", str(tiny_model_folder), "--servers", "tutelage", "--clients", "1", "3", "--requests", "1",
            "--rounds", "1", "--new-tokens", "4", "--threads", "1", "--out", str(tmp_path / "raw.json"),
        ]
    )  # fmt: skip
    printed = capsys.readouterr().out
    assert [(load["clients"], len(load["answers"])) for load in raw["loads"]] == [(1, 2), (3, 3)]
    for answer in (answer for load in raw["loads"] for answer in load["answers"]):
        assert 1 <= answer["tokens"] <= 4
        assert 0 < answer["first_seconds"] <= answer["seconds"]
    assert raw["peak_pss_bytes"]["tutelage"] > 2**26
    assert "| 3 | tutelage |" in printed
    assert json.loads((tmp_path / "raw.json").read_text(encoding="utf-8"))["loads"]


def test_ten_clients_get_their_own_replies_and_the_server_ends_well(tiny_model_folder: Path, tmp_path: Path) -> None:
    counts = soak.main(
        [
            "--model", str(tiny_model_folder), "--no-copies", "--clients", "10", "--seconds", "2", "--batch", "4",
            "--queue", "8", "--threads", "1", "--burst-tokens", "100", "--out", str(tmp_path / "soak.json"),
        ]
    )  # fmt: skip
    assert counts.faults() == []
    assert {outcome.kind for outcome in counts.outcomes} == {"held", "again", "left"}
    assert counts.asked_again > 3
    assert counts.would_pass * 4 < counts.asked_again


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_a_hundred_clients_for_a_minute(tmp_path: Path) -> None:
    counts = soak.main(["--out", str(tmp_path / "soak.json")])
    assert counts.faults() == []
    assert counts.would_pass * 4 < counts.asked_again

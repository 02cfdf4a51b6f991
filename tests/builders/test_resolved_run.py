"""What a machine and its processes decide where the settings leave it open, in one record."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tutelage import config
from tutelage.builders import resolved_run
from tutelage.builders.resolved_run import resolve
from tutelage.builders.row_lengths import longest_rows
from tutelage.distributed.process_group import SINGLE
from tutelage.distributed.strategy import Strategy
from tutelage.errors import ConfigError
from tutelage.model.architecture import Architecture
from tutelage.model.attention.isolation_check import MaxLengths
from tutelage.pack import Sampler
from tutelage.train.dataloader import rank_batches
from tutelage.types import Address, Example


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(resolved_run, "device_here", lambda: request.param)
    return str(request.param)


def settings(**sections: Any) -> config.Settings:
    return config.from_mapping(
        {"model": {"name": "m", "method": "lora"}, "data": {"train": ["a.jsonl"]}} | sections, where="test"
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_left_out_device_and_precision_decide(device: str, precision: str) -> None:
    expected = {"cpu": {"fp32": 1024, "bf16": 2048}[precision], "cuda": 4096}[device]
    asked = config.from_mapping(
        {"model": {"name": "m", "method": "lora", "precision": precision}, "data": {"train": ["a.jsonl"]}}, where="test"
    )
    assert resolve(asked).row_tokens == expected
    assert resolve(settings()).share_prefixes == (device == "cpu")


def test_the_longest_example_fits_into_a_row(device: str) -> None:
    assert resolve(settings(pack={"max_seq_length": 9000})).row_tokens == 9000


def test_what_is_asked_for_is_done(device: str) -> None:
    asked = settings(pack={"max_seq_length": 100, "row_tokens": 300, "share_prefixes": device != "cpu"})
    assert resolve(asked).row_tokens == 300
    assert resolve(asked).share_prefixes == (device != "cpu")


@pytest.mark.parametrize("noise", [
    {"lora": {"dropout": 0.1}},
    {"train": {"residual_dropout": 0.1}},
    {"train": {"neftune_alpha": 5.0}},
])  # fmt: skip
def test_noise_is_never_shared_in_training(noise: dict[str, Any]) -> None:
    noisy = settings(**noise, pack={"share_prefixes": True})
    assert not resolve(noisy).trains_on_shared_prefixes
    assert resolve(noisy).share_prefixes
    assert resolve(settings(pack={"share_prefixes": True})).trains_on_shared_prefixes


@pytest.mark.parametrize(("checkpointing", "processes", "row_tokens", "expected"), [
    ("on", 1, 300, True),
    ("off", 2, 9000, False),
    ("auto", 1, 300, None),
    ("auto", 2, 300, False),
    ("auto", 2, 9000, True),
])  # fmt: skip
def test_several_processes_decide_about_recomputation_without_looking_at_free_memory(
    checkpointing: str, processes: int, row_tokens: int, *, expected: bool | None
) -> None:
    requested = settings(
        pack={"max_seq_length": 300, "row_tokens": row_tokens}, train={"activation_checkpointing": checkpointing}
    )
    assert resolve(requested, processes=processes).recompute is expected


def test_a_model_is_sharded_only_over_several_processes() -> None:
    assert not resolve(settings()).sharded
    assert resolve(settings(), processes=2).sharded
    assert not resolve(settings(train={"optimizer": "muon"}), processes=2).sharded


@pytest.mark.parametrize("processes", [1, 2])
def test_what_cannot_be_sharded_is_refused_before_anything_is_built(processes: int) -> None:
    requested = config.from_mapping(
        {
            "model": {"name": "m", "method": "lora", "parallel": "shard"},
            "data": {"train": ["a.jsonl"]},
            "train": {"optimizer": "muon"},
        },
        where="test",
    )
    with pytest.raises(ConfigError, match="sharded"):
        resolve(requested, processes=processes)


@pytest.mark.parametrize(("train", "validation", "expected"), [
    ([40] * 99, [30], MaxLengths(80, 40)),
    ([40, 7], [30, 50], MaxLengths(80, 50)),
    ([400] * 99, [], MaxLengths(300, 400)),
])  # fmt: skip
def test_r8_rows_are_tried_as_long_as_the_run_has_them(
    train: list[int], validation: list[int], expected: MaxLengths
) -> None:
    stores = {
        name: SimpleNamespace(column=lambda _name, tokens=tokens: np.array(tokens, dtype=np.int64))
        for name, tokens in (("train", train), ("validation", validation))
    }
    asked = settings(pack={"max_seq_length": 100, "row_tokens": 300}, train={"batch_size": 2})

    assert longest_rows(resolve(asked), SimpleNamespace(**stores)) == expected  # type: ignore[arg-type] # two of its stores


@pytest.mark.parametrize("shares", [True, False])
def test_r8_a_model_that_shares_no_beginning_gets_rows_without(shares: bool) -> None:
    beginning = np.arange(40, dtype=np.int32)
    examples = [
        Example(Address("made", number), 0, np.append(beginning, number).astype(np.int32), np.eye(1, 41, 40)[0], ())
        for number in range(4)
    ]
    strategy = Strategy(SINGLE, architecture=Architecture(shares_prefixes=shares))

    (batch,) = rank_batches(
        strategy, examples, Sampler(4, 4, 1.0, 0), row_tokens=400, start_step=0, share_prefixes=True
    )

    assert any(row.parents for row in batch.rows) is shares

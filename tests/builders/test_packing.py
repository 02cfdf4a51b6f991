"""What the device decides about packing where the settings leave it open."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tutelage import config
from tutelage.builders import packing as rows
from tutelage.builders.packing import longest_rows, row_tokens_here, shares_prefixes_here, trains_on_shared_prefixes
from tutelage.distributed.process_group import SINGLE
from tutelage.distributed.strategy import Strategy
from tutelage.model.architecture import Architecture
from tutelage.model.attention.isolation_check import MaxLengths
from tutelage.pack import Sampler
from tutelage.train.dataloader import rank_batches
from tutelage.types import Address, Example


@pytest.fixture(params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(rows, "device_here", lambda: request.param)
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
    assert row_tokens_here(asked) == expected
    assert shares_prefixes_here(settings()) == (device == "cpu")


def test_the_longest_example_fits_into_a_row(device: str) -> None:
    assert row_tokens_here(settings(pack={"max_seq_length": 9000})) == 9000


def test_what_is_asked_for_is_done(device: str) -> None:
    asked = settings(pack={"max_seq_length": 100, "row_tokens": 300, "share_prefixes": device != "cpu"})
    assert row_tokens_here(asked) == 300
    assert shares_prefixes_here(asked) == (device != "cpu")


@pytest.mark.parametrize("noise", [
    {"lora": {"dropout": 0.1}},
    {"train": {"residual_dropout": 0.1}},
    {"train": {"neftune_alpha": 5.0}},
])  # fmt: skip
def test_noise_is_never_shared_in_training(noise: dict[str, Any]) -> None:
    noisy = settings(**noise, pack={"share_prefixes": True})
    assert not trains_on_shared_prefixes(noisy)
    assert shares_prefixes_here(noisy)
    assert trains_on_shared_prefixes(settings(pack={"share_prefixes": True}))


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

    assert longest_rows(asked, SimpleNamespace(**stores)) == expected  # type: ignore[arg-type] # two of its stores


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

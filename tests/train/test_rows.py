"""What the device decides about packing where the settings leave it open."""

from __future__ import annotations

from typing import Any

import pytest

from tutelage import config
from tutelage.train import rows
from tutelage.train.rows import row_tokens_here, shares_prefixes_here, trains_on_shared_prefixes


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
    assert row_tokens_here(settings(pack={"max_tokens": 9000})) == 9000


def test_what_is_asked_for_is_done(device: str) -> None:
    asked = settings(pack={"max_tokens": 100, "row_tokens": 300, "share_prefixes": device != "cpu"})
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

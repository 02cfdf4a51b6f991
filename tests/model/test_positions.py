"""How far positions reach is tried on one layer without memory: a table ends, rotary ones go on."""

from __future__ import annotations

import pytest
from tiny_kinds import tiny_config

from tutelage.model.positions import last_position, stated_positions


@pytest.mark.parametrize(
    ("kind", "last"),
    [("gpt2", 512), ("opt", 512), ("gpt_bigcode", 512), ("gptj", 512), ("biogpt", 512), ("bert", 512)],
)
def test_r5_a_table_of_positions_ends(kind: str, last: int) -> None:
    more = {"is_decoder": True} if kind == "bert" else {}

    assert last_position(tiny_config(kind, **more)) == last


def test_r5_entries_that_no_token_has_are_not_counted() -> None:
    """RoBERTa's positions begin behind that of padding."""
    config = tiny_config("roberta", is_decoder=True, pad_token_id=1)

    assert stated_positions(config) == 512
    assert last_position(config) == 510


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma2", "mamba", "bloom", "falcon_h1"])
def test_r5_what_is_computed_from_a_position_goes_on(kind: str) -> None:
    assert last_position(tiny_config(kind)) is None

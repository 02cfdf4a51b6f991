"""How far positions reach is tried on one layer without memory: a table ends, rotary ones go on."""

from __future__ import annotations

import pytest
import torch

from tests.support.tiny_kinds import tiny_config
from tutelage.model import positions
from tutelage.model.positions import position_limit, stated_positions


@pytest.mark.parametrize(
    ("kind", "last"),
    [("gpt2", 512), ("opt", 512), ("gpt_bigcode", 512), ("gptj", 512), ("biogpt", 512), ("bert", 512)],
)
def test_r5_a_table_of_positions_ends(kind: str, last: int) -> None:
    more = {"is_decoder": True} if kind == "bert" else {}

    assert position_limit(tiny_config(kind, **more)) == last


def test_r5_entries_that_no_token_has_are_not_counted() -> None:
    """RoBERTa's positions begin behind that of padding."""
    config = tiny_config("roberta", is_decoder=True, pad_token_id=1)

    assert stated_positions(config) == 512
    assert position_limit(config) == 510


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma2", "mamba", "bloom", "falcon_h1"])
def test_r5_what_is_computed_from_a_position_goes_on(kind: str) -> None:
    assert position_limit(tiny_config(kind)) is None


def test_r5_a_model_without_a_table_of_positions_computes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass over all positions of a long context takes minutes."""
    config = tiny_config("llama")
    config.max_position_embeddings = 131_072
    computed: list[int] = []
    monkeypatch.setattr(positions, "_computes", lambda _decoder, tokens: bool(computed.append(tokens)))

    assert position_limit(config) is None
    assert position_limit(tiny_config("gpt2")) is None, "the stand-in computes nothing"
    assert computed == [positions.TRIED_TOKENS], "only the model with a table is tried"


def test_r5_memory_that_runs_out_is_no_end_of_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    def short_of_memory(*_given: object, **_named: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    made = positions._one_layer_decoder

    def with_hook(config: object, *, trust_remote_code: bool) -> torch.nn.Module:
        decoder: torch.nn.Module = made(config, trust_remote_code=trust_remote_code)
        decoder.register_forward_pre_hook(short_of_memory)
        return decoder

    monkeypatch.setattr(positions, "_one_layer_decoder", with_hook)

    with pytest.raises(RuntimeError, match="can't allocate memory"):
        position_limit(tiny_config("gpt2"))

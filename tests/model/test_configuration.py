"""Configurations that no model can be made of are named before one is made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tutelage.errors import DataError
from tutelage.model.configuration import MAX_LAYERS, causal_configuration

SMALL = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8, "num_attention_heads": 2}


@pytest.mark.parametrize("layers", [MAX_LAYERS + 1, 10**300])
def test_more_layers_than_any_model_has_are_refused_before_one_is_made(tmp_path: Path, layers: int) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(SMALL | {"num_hidden_layers": layers}))
    with pytest.raises(DataError, match="more layers than any model has") as caught:
        causal_configuration(file)
    assert caught.value.expected == f"at most {MAX_LAYERS:,}"
    assert len(str(caught.value.found)) <= 40


def test_as_many_layers_as_a_model_may_have_are_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SMALL | {"num_hidden_layers": MAX_LAYERS}))
    assert causal_configuration(tmp_path / "config.json").num_hidden_layers == MAX_LAYERS

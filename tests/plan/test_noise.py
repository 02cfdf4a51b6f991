"""Whether a training step draws random numbers is tried on the model without its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.tiny_kinds import tiny_config
from tutelage.plan.model_shape import read_model_shape
from tutelage.plan.noise import draws_noise

NONE = {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0}


@pytest.mark.parametrize(
    ("kind", "changes", "expected"),
    [
        ("gpt2", NONE, False),
        ("gpt2", NONE | {"attn_pdrop": 0.1}, True),
        ("gpt2", NONE | {"resid_pdrop": 0.1}, True),
        ("gpt2", NONE | {"embd_pdrop": 0.1}, True),
        ("llama", {}, False),
        ("llama", {"attention_dropout": 0.1}, True),
        ("mixtral", {}, False),
    ],
)
def test_r3_dropout_of_the_model_is_noticed_wherever_it_is(
    tmp_path: Path, kind: str, changes: dict[str, Any], *, expected: bool
) -> None:
    tiny_config(kind, **changes).save_pretrained(tmp_path)

    assert draws_noise(read_model_shape(str(tmp_path))) is expected

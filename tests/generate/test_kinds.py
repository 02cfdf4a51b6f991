"""Every kind of `AutoModelForCausalLM`, tiny: the trial lets the engine answer, and its replies are the model's own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tests.support.own_forward import LetterTokenizer, own_choices, random_prompts
from tests.support.tiny_kinds import VOCABULARY, facts, tiny_config, tiny_kind
from tutelage.generate.batch_check import batching_of
from tutelage.generate.engine import Engine
from tutelage.generate.padded import padded_replies
from tutelage.generate.requests import Request
from tutelage.model.attention.packed import use_generation_attention

torch.set_num_threads(1)

DAILY = {"llama", "gemma3_text", "gpt_oss", "deepseek_v3", "mixtral", "phi3", "qwen3", "qwen3_next"}
KINDS = sorted(set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - set(facts()["unmade"]))
STOPPING = LetterTokenizer(frozenset({3}))
WINDOW = 6
"""Tokens that layers with a window look back: less than a reply, and no other size of a tiny model."""


def kind_with_short_window(kind: str) -> Any:
    """The tiny model, attending as served."""
    # Moshi's masks know no window; only transformers' cache does, and forgets what the masks would let see.
    has_window = kind != "moshi" and isinstance(getattr(tiny_config(kind), "sliding_window", None), int)
    model = tiny_kind(kind, **({"sliding_window": WINDOW} if has_window else {}))
    use_generation_attention(model)
    return model


@pytest.mark.parametrize(
    "kind", [kind if kind in DAILY else pytest.param(kind, marks=pytest.mark.nightly) for kind in KINDS]
)
def test_what_the_engine_answers_is_what_the_model_says_alone(kind: str) -> None:
    model = kind_with_short_window(kind)

    batching = batching_of(model, STOPPING)  # type: ignore[arg-type] # all that is asked of a tokenizer

    assert (batching.kind == "packed") == (kind in facts()["packed"])
    if batching.kind != "packed":
        return
    prompts = random_prompts((11, 12, 15, 20, 31, 13), vocabulary=VOCABULARY, beginning=10)
    engine = Engine(
        model,
        STOPPING,  # type: ignore[arg-type] # all that is asked of a tokenizer
        head=batching.head,
        active_replies=4,
        shares_beginnings=batching.shares_beginnings,
    )
    for completion in engine.generate([Request(prompt, 16) for prompt in prompts]):
        prompt, ids = prompts[completion.request], list(completion.ids)
        if kind in facts()["positions_behind_padding"]:
            assert [ids] == padded_replies(model, STOPPING, [prompt], 16)  # type: ignore[arg-type] # as above
        else:
            assert ids == own_choices(model, prompt, ids)


def test_most_kinds_are_answered_by_the_engine() -> None:
    assert set(facts()["packed"]) <= set(KINDS)
    assert len(facts()["packed"]) >= 100

"""Behind the virtual tokens of prompt tuning the engine's replies are transformers' own, one prompt at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.support.own_forward import LetterTokenizer, random_prompts
from tests.support.tiny_kinds import VOCABULARY, tiny_kind
from tutelage.generate.batch_check import batching_of
from tutelage.generate.engine import Engine
from tutelage.generate.padded import padded_replies
from tutelage.generate.requests import Request, Sampling
from tutelage.model.adapters.prompt_tuning import add_prompt
from tutelage.model.attention.packed import use_generation_attention

torch.set_num_threads(1)
WORDS = LetterTokenizer(frozenset({3}))


def tuned(kind: str) -> Any:
    """A model with five virtual tokens that say something."""
    model, _ = add_prompt(tiny_kind(kind), tokens=5)
    torch.manual_seed(4)
    torch.nn.init.normal_(model.prompt_encoder["default"].embedding.weight, std=2.0)
    use_generation_attention(model)
    return model.eval()


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2", "mistral"])
@pytest.mark.parametrize("beginning", [0, 10])
def test_replies_are_those_of_one_prompt_at_a_time(kind: str, beginning: int) -> None:
    model = tuned(kind)
    lengths = [tokens + beginning for tokens in (5, 1, 12, 3, 9, 20)]
    prompts = random_prompts(lengths, vocabulary=VOCABULARY, beginning=beginning)
    batching = batching_of(model, WORDS)  # type: ignore[arg-type] # all that it asks of a tokenizer
    assert batching.kind == "packed"
    engine = Engine(model, WORDS, head=batching.head, active_replies=4)  # type: ignore[arg-type] # as above

    replies = {reply.request: list(reply.ids) for reply in engine.generate([Request(ids, 9) for ids in prompts])}

    for place, prompt in enumerate(prompts):
        assert [replies[place]] == padded_replies(model, WORDS, [prompt], 9)  # type: ignore[arg-type] # as above
    with model.disable_adapter():
        assert any([replies[n]] != padded_replies(model, WORDS, [prompt], 9) for n, prompt in enumerate(prompts))  # type: ignore[arg-type] # as above


def test_replies_can_be_drawn_and_long_prompts_come_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    from tutelage.generate import engine as engine_module

    model = tuned("llama")
    prompts = random_prompts((30, 14), vocabulary=VOCABULARY)
    drawn = Sampling(temperature=1.0, seed=2)
    found = []
    for prefill_tokens in (1024, 7):
        monkeypatch.setattr(engine_module, "PREFILL_TOKENS", prefill_tokens)
        engine = Engine(model, WORDS)  # type: ignore[arg-type] # as above
        completions = engine.generate([Request(prompt, 8, drawn, samples=2) for prompt in prompts])
        found.append({(reply.request, reply.sample): reply.ids for reply in completions})
    assert found[0] == found[1]
    assert len(set(found[0].values())) > 2

"""Requests of one call ask different adapters of one base: each reply is that of its adapter alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from transformers import AutoModelForCausalLM

from tests.support.own_forward import LetterTokenizer, own_choices, random_prompts
from tests.support.tiny_kinds import tiny_kind
from tutelage.errors import ConfigError
from tutelage.generate.engine import Engine
from tutelage.generate.requests import Request, Sampling
from tutelage.model.adapters.adapter_set import active_adapter
from tutelage.model.adapters.lora import add_lora
from tutelage.model.adapters.per_token import PEFT_BASE
from tutelage.model.attention.packed import use_generation_attention

torch.set_num_threads(1)
VOCABULARY = 416
NAMES = ("default", "second", PEFT_BASE, None)


def with_second(model: Any, **settings: Any) -> Any:
    """A model with two adapters that change its words, the first of them active."""
    adapted, _ = add_lora(model, rank=4, alpha=8, dropout=0.0, targets="all-linear")
    adapted.add_adapter("second", LoraConfig(r=6, lora_alpha=3, target_modules="all-linear", **settings))
    torch.manual_seed(1)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return adapted.eval()


@pytest.fixture(scope="module")
def model(tiny_model_folder: Path) -> Any:
    return with_second(AutoModelForCausalLM.from_pretrained(tiny_model_folder, attn_implementation="sdpa"))


def alone(model: Any, prompt: Any, ids: list[int], name: str | None) -> list[int]:
    """What the model's own forward chooses with one adapter switched on, or none."""
    use_generation_attention(model)
    if name == PEFT_BASE:
        with model.disable_adapter():
            return own_choices(model, prompt, ids)
    with active_adapter(model, name or "default"):
        return own_choices(model, prompt, ids)


@pytest.mark.parametrize("beginning", [0, 11])
@pytest.mark.parametrize("active_replies", [3, 64])
def test_each_reply_is_that_of_its_adapter_alone(model: Any, beginning: int, active_replies: int) -> None:
    lengths = [length + beginning for length in (9, 31, 2, 17, 5, 12, 8, 21, 3, 14, 6, 10)]
    prompts = random_prompts(lengths, vocabulary=VOCABULARY, beginning=beginning)
    requests = [Request(prompt, 10, adapter=NAMES[place % 4]) for place, prompt in enumerate(prompts)]
    engine = Engine(model, LetterTokenizer(), active_replies=active_replies)  # type: ignore[arg-type] # all it asks of one

    completions = {completion.request: list(completion.ids) for completion in engine.generate(requests)}

    assert len(completions) == len(requests)
    for place, ids in completions.items():
        assert ids == alone(model, prompts[place], ids, requests[place].adapter)


def test_the_same_prompt_differs_by_adapter_and_shares_no_keys(model: Any) -> None:
    (prompt,) = random_prompts((30,), vocabulary=VOCABULARY)
    requests = [Request(prompt, 8, adapter=name) for name in NAMES for _ in range(4)]
    engine = Engine(model, LetterTokenizer())  # type: ignore[arg-type] # all that it asks of one

    by_name: dict[str | None, set[tuple[int, ...]]] = {}
    for completion in engine.generate(requests):
        by_name.setdefault(requests[completion.request].adapter, set()).add(completion.ids)

    assert all(len(replies) == 1 for replies in by_name.values())
    assert by_name[None] == by_name["default"]
    assert len({next(iter(replies)) for replies in by_name.values()}) == 3


def test_a_drawn_reply_does_not_depend_on_the_adapters_beside_it(model: Any) -> None:
    prompts = random_prompts((9, 14, 7), vocabulary=VOCABULARY)
    drawn = Sampling(temperature=1.0, seed=5)
    engine = Engine(model, LetterTokenizer())  # type: ignore[arg-type] # all that it asks of one
    together = list(engine.generate([Request(p, 6, drawn, adapter=n) for p, n in zip(prompts, NAMES, strict=False)]))
    for completion in together:
        request = Request(prompts[completion.request], 6, drawn, adapter=NAMES[completion.request])
        (single,) = engine.generate([request])
        assert single.ids == completion.ids


def test_the_model_answers_as_before_when_the_call_ends(model: Any) -> None:
    prompts = random_prompts((9, 14), vocabulary=VOCABULARY)
    engine = Engine(model, LetterTokenizer())  # type: ignore[arg-type] # all that it asks of one
    replies = engine.generate([Request(prompt, 6, adapter="second") for prompt in prompts])
    next(replies)
    ids = list(range(6))
    assert alone(model, prompts[0], ids, None) == alone(model, prompts[0], ids, "default"), "in the middle of a call"
    replies.close()
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("kind", ["gpt2", "gemma2", "phi3"])
def test_other_layers_are_mixed_as_well(kind: str) -> None:
    """GPT-2's Conv1D, more norms, and fused projections."""
    model = with_second(tiny_kind(kind))
    prompts = random_prompts((9, 14, 7, 5), vocabulary=120)
    requests = [Request(prompt, 5, adapter=name) for prompt, name in zip(prompts, NAMES, strict=True)]
    engine = Engine(model, LetterTokenizer())  # type: ignore[arg-type] # all that it asks of one
    for completion in engine.generate(requests):
        ids = list(completion.ids)
        assert ids == alone(model, prompts[completion.request], ids, requests[completion.request].adapter)


def test_what_cannot_be_mixed_is_refused(model: Any, tiny_model_folder: Path) -> None:
    (prompt,) = random_prompts((9,), vocabulary=120)
    plain = AutoModelForCausalLM.from_pretrained(tiny_model_folder, attn_implementation="sdpa")
    other = AutoModelForCausalLM.from_pretrained(tiny_model_folder, attn_implementation="sdpa")
    dora, experts = with_second(other, use_dora=True), with_second(tiny_kind("qwen2_moe"))
    for asked, name, says in (
        (model, "third", "default, second"),
        (plain, "default", "a model with adapters"),
        (dora, "second", "LoRA pairs and nothing else"),
        (experts, "second", "that all tokens pass in order"),
    ):
        engine = Engine(asked, LetterTokenizer())  # type: ignore[arg-type] # all that it asks of one
        with pytest.raises(ConfigError) as caught:
            list(engine.generate([Request(prompt, 3, adapter=name)]))
        assert says in str(caught.value.expected)

"""Replies in batches equal replies one by one through transformers alone; order kept, stop tokens removed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from tutelage.evaluate.generate import greedy_replies, streamed_reply
from tutelage.evaluate.measure import Exam, sit
from tutelage.model.adapt import add_lora
from tutelage.model.attention import NAME, attend_as_served, isolate_documents
from tutelage.render import ChatTemplate, Renderer, Tokenizer
from tutelage.types import TokenIds

torch.set_num_threads(1)


@pytest.fixture
def tokenizer(tiny_model_folder: Path) -> Tokenizer:
    return Tokenizer.load(tiny_model_folder)


@pytest.fixture
def renderer(tokenizer: Tokenizer) -> Renderer:
    assert tokenizer.template is not None
    return Renderer(tokenizer, ChatTemplate(tokenizer.template, named_tokens=tokenizer.named_tokens))


@pytest.fixture
def model(tiny_model_folder: Path) -> Any:
    """A fresh fp32 copy of the tiny model, attending as served."""
    return AutoModelForCausalLM.from_pretrained(tiny_model_folder, attn_implementation="sdpa")


@pytest.fixture
def prompts(tokenizer: Tokenizer) -> list[TokenIds]:
    random = np.random.default_rng(2)
    return [random.integers(0, 400, length).astype(np.int32) for length in (9, 31, 2, 17, 17, 5, 40, 1)]


def one_by_one(model: Any, prompt: TokenIds, stops: list[int], limit: int) -> list[int]:
    """Greedy ids, stop token included, from plain forwards over the whole text so far."""
    ids = prompt.tolist()
    for _ in range(limit):
        with torch.no_grad():
            ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
        if ids[-1] in stops:
            break
    return ids[len(prompt) :]


def likely_stops(model: Any, prompts: list[TokenIds]) -> list[int]:
    """Tokens that this model writes early for some prompts and never for others, to act as stop tokens."""
    written = [one_by_one(model, prompt, [], 20) for prompt in prompts]
    common = sorted({token for reply in written for token in reply[3:12]})
    return common[:2]


@pytest.mark.parametrize("batch_prompts", [1, 3, 8])
def test_batches_equal_one_by_one(
    model: Any, tokenizer: Tokenizer, prompts: list[TokenIds], batch_prompts: int
) -> None:
    stops = likely_stops(model, prompts)
    stopping = Tokenizer(
        tokenizer.fast, tokenizer.named_tokens, frozenset(stops), tokenizer.vocabulary_size, None, tokenizer.folder
    )
    expected = [one_by_one(model, prompt, stops, 20) for prompt in prompts]
    assert len({len(one) for one in expected}) > 2, "replies of several lengths make the test worth its name"
    finished: list[int] = []

    found = greedy_replies(
        model, stopping, prompts, max_new_tokens=20, batch_prompts=batch_prompts, done=finished.append
    )

    texts = [tokenizer.decode([token for token in one if token not in stops]) for one in expected]
    assert found == texts
    assert sum(finished) == len(prompts)
    assert max(finished) <= batch_prompts


def test_replies_equal_transformers_own_generation(model: Any, tokenizer: Tokenizer, prompts: list[TokenIds]) -> None:
    found = greedy_replies(model, tokenizer, prompts, max_new_tokens=12, batch_prompts=4)

    for prompt, reply in zip(prompts, found, strict=True):
        ids = torch.from_numpy(prompt).long()[None]
        output = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12)
        written = [one for one in output[0, len(prompt) :].tolist() if one not in tokenizer.stop_ids]
        assert reply == tokenizer.decode(written)


def test_order_of_prompts_is_kept(model: Any, tokenizer: Tokenizer, prompts: list[TokenIds]) -> None:
    forwards = greedy_replies(model, tokenizer, prompts, max_new_tokens=6, batch_prompts=3)
    backwards = greedy_replies(model, tokenizer, prompts[::-1], max_new_tokens=6, batch_prompts=3)

    assert len(set(forwards)) > 3
    assert backwards[::-1] == forwards


def test_sampling_settings_of_the_checkpoint_do_not_make_replies_random(
    model: Any, tokenizer: Tokenizer, prompts: list[TokenIds]
) -> None:
    plain = greedy_replies(model, tokenizer, prompts, max_new_tokens=8, batch_prompts=8)
    model.generation_config = GenerationConfig(do_sample=True, temperature=5.0, top_k=0, eos_token_id=401)

    assert greedy_replies(model, tokenizer, prompts, max_new_tokens=8, batch_prompts=8) == plain


def test_adapters_take_part_in_generation(model: Any, tokenizer: Tokenizer, prompts: list[TokenIds]) -> None:
    base = greedy_replies(model, tokenizer, prompts, max_new_tokens=8, batch_prompts=8)
    adapted, _ = add_lora(model, rank=4, alpha=8, dropout=0.5, targets="all-linear")
    adapted.train()
    assert greedy_replies(adapted, tokenizer, prompts, max_new_tokens=8, batch_prompts=8) == base, "no dropout either"
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)

    tuned = greedy_replies(adapted, tokenizer, prompts, max_new_tokens=8, batch_prompts=8)

    assert tuned != base
    with adapted.disable_adapter():
        assert greedy_replies(adapted, tokenizer, prompts, max_new_tokens=8, batch_prompts=8) == base


def test_a_streamed_reply_is_the_same_reply(model: Any, tokenizer: Tokenizer, prompts: list[TokenIds]) -> None:
    class Collector:
        def __init__(self) -> None:
            self.ids: list[list[int]] = []
            self.ended = 0

        def put(self, value: torch.Tensor) -> None:
            self.ids.append(value.flatten().tolist())

        def end(self) -> None:
            self.ended += 1

    collector = Collector()
    (expected,) = greedy_replies(model, tokenizer, prompts[:1], max_new_tokens=8, batch_prompts=1)

    found = streamed_reply(model, tokenizer, prompts[0], max_new_tokens=8, streamer=collector)

    assert found == expected
    assert collector.ids[0] == prompts[0].tolist()
    written = [one for ids in collector.ids[1:] for one in ids if one not in tokenizer.stop_ids]
    assert tokenizer.decode(written) == expected
    assert collector.ended == 1


def test_an_exam_with_nothing_to_ask_measures_nothing(model: Any, renderer: Renderer) -> None:
    isolate_documents(model)

    sitting = sit(model, renderer, Exam((), (), (), max_new_tokens=4, batch_prompts=2))

    assert (sitting.measures.exact_match, sitting.measures.heldout_loss, sitting.measures.general) == (None,) * 3
    assert model.config._attn_implementation == NAME


def test_no_prompts_no_replies(model: Any, tokenizer: Tokenizer) -> None:
    attend_as_served(model)

    assert greedy_replies(model, tokenizer, [], max_new_tokens=4, batch_prompts=2) == []

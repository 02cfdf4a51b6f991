"""The engine's replies are the model's own, whatever shares a row, a beginning, or too little memory with them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.support.own_forward import LetterTokenizer, own_choices, own_logits, own_reply, random_prompts
from tests.support.tiny_kinds import tiny_kind
from tutelage.errors import ConfigError
from tutelage.generate import engine as engine_module
from tutelage.generate import kv_cache, schedule
from tutelage.generate.engine import Engine
from tutelage.generate.kv_cache import Beginning, KVCache, Shelf, capacity_for
from tutelage.generate.requests import Completion, Request, Sampling
from tutelage.model.adapters.lora import add_lora
from tutelage.model.attention.packed import use_generation_attention
from tutelage.model.output_head import HeadKind
from tutelage.types import TokenIds

torch.set_num_threads(1)

VOCABULARY = 416
WORDS = LetterTokenizer()


@pytest.fixture(scope="module")
def model(tiny_model_folder: Path) -> Any:
    """The tiny Llama in fp32; no test changes it."""
    return AutoModelForCausalLM.from_pretrained(tiny_model_folder, attn_implementation="sdpa").eval()


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts are cut every few tokens, and replies move to another shelf every few."""
    monkeypatch.setattr(engine_module, "PREFILL_TOKENS", 7)
    monkeypatch.setattr(schedule, "ROOM_AHEAD", 2)
    monkeypatch.setattr(kv_cache, "BLOCK_TOKENS", 4)


def completed(model: Any, requests: Sequence[Request], **settings: Any) -> dict[tuple[int, int], Completion]:
    engine = Engine(model, WORDS, **settings)  # type: ignore[arg-type] # all that it asks of a tokenizer
    completions = list(engine.generate(requests))
    by_place = {(completion.request, completion.sample): completion for completion in completions}
    assert len(by_place) == len(completions) == sum(request.samples for request in requests)
    return by_place


def assert_own_replies(model: Any, prompts: Sequence[TokenIds], tokens: int, **settings: Any) -> None:
    """The engine's greedy replies are those of the model's own forward."""
    found = completed(model, [Request(prompt, tokens) for prompt in prompts], **settings)
    for place, prompt in enumerate(prompts):
        ids = list(found[place, 0].ids)
        assert len(ids) == tokens
        assert ids == own_choices(model, prompt, ids)


LENGTHS = (9, 31, 2, 17, 17, 1, 40, 12)


@pytest.mark.parametrize("active_replies", [1, 3, 64])
@pytest.mark.parametrize("beginning", [0, 11])
def test_replies_are_the_models_own(model: Any, active_replies: int, beginning: int) -> None:
    lengths = [length + beginning for length in LENGTHS]
    prompts = random_prompts(lengths, vocabulary=VOCABULARY, beginning=beginning)

    assert_own_replies(model, prompts, 12, active_replies=active_replies)


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("active_replies", [1, 3, 64])
@pytest.mark.parametrize("beginning", [0, 11])
def test_long_prompts_are_computed_in_parts_and_long_replies_move(
    model: Any, active_replies: int, beginning: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved: list[int] = []
    add = Shelf.add

    def watched(shelf: Shelf, sequence: Any) -> None:
        moved.append(sequence.shelf is not None)
        add(shelf, sequence)

    monkeypatch.setattr(Shelf, "add", watched)
    prompts = random_prompts([n + beginning for n in LENGTHS], vocabulary=VOCABULARY, beginning=beginning, seed=1)

    assert_own_replies(model, prompts, 30, active_replies=active_replies)

    assert sum(moved) > len(prompts)


@pytest.mark.usefixtures("small_steps")
def test_two_beginnings_at_once_beside_prompts_with_none(model: Any) -> None:
    prompts = [
        *random_prompts((15, 16, 20, 30), vocabulary=VOCABULARY, beginning=14, seed=2),
        *random_prompts((5, 26), vocabulary=VOCABULARY, seed=3),
        *random_prompts((22, 23, 22, 41, 25), vocabulary=VOCABULARY, beginning=20, seed=4),
    ]
    random = np.random.default_rng(0)
    mixed = [prompts[place] for place in random.permutation(len(prompts))]

    assert_own_replies(model, mixed, 14)
    assert_own_replies(model, mixed, 14, active_replies=2)


def test_a_prompt_that_is_asked_many_times_shares_all_but_its_last_token(model: Any) -> None:
    (prompt,) = random_prompts((20,), vocabulary=VOCABULARY)

    assert_own_replies(model, [prompt] * 5, 8)


def test_without_shared_beginnings_prompts_are_whole(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "PREFILL_TOKENS", 3)
    prompts = random_prompts([n + 9 for n in LENGTHS], vocabulary=VOCABULARY, beginning=9)

    assert_own_replies(model, prompts, 8, shares_beginnings=False)


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("most_tokens", [1, 90, 200, 2000])
@pytest.mark.parametrize("beginning", [0, 9])
def test_replies_that_begin_again_for_want_of_memory_are_the_same(
    model: Any, most_tokens: int, beginning: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    began_again = count_calls(monkeypatch, schedule.Schedule, "_preempt")
    prompts = random_prompts([n + beginning for n in LENGTHS], vocabulary=VOCABULARY, beginning=beginning, seed=5)

    assert_own_replies(model, prompts, 40, most_tokens=most_tokens)

    assert bool(began_again) == (most_tokens in {90, 200}), "else this shows nothing"


def count_calls(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[None]:
    calls: list[None] = []
    original = getattr(owner, name)

    def counted(*given: Any, **named: Any) -> Any:
        calls.append(None)
        return original(*given, **named)

    monkeypatch.setattr(owner, name, counted)
    return calls


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize(
    ("active_replies", "beginnings", "samples"), [(2, 0, 1), (2, 6, 1), (64, 0, 1), (64, 1, 5), (64, 6, 1), (64, 6, 5)]
)
def test_memory_stays_below_its_bound(
    model: Any, active_replies: int, beginnings: int, samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    most_tokens, allocated = 400, [0]
    caches: list[KVCache] = []
    initialize, resize, begin = KVCache.__init__, Shelf.resize, KVCache.begin

    def remembered(cache: KVCache, most: int) -> None:
        initialize(cache, most)
        caches.append(cache)

    def resized(shelf: Shelf, rows: int) -> None:
        resize(shelf, rows)
        allocated.append(caches[-1].tokens_allocated)

    def begun(cache: KVCache, beginning: Beginning) -> bool:
        is_new = begin(cache, beginning)
        allocated.append(cache.tokens_allocated)
        return is_new

    monkeypatch.setattr(KVCache, "__init__", remembered)
    monkeypatch.setattr(Shelf, "resize", resized)
    monkeypatch.setattr(KVCache, "begin", begun)
    prompts = random_prompts((30, 5, 9, 17, 3) * 2, vocabulary=VOCABULARY, seed=6)
    for seed in range(beginnings):
        prompts += random_prompts((60, 62, 70, 64), vocabulary=VOCABULARY, beginning=58, seed=7 + seed)
    requests = [Request(prompt, 12, samples=samples) for prompt in prompts]

    completed(model, requests, active_replies=active_replies, most_tokens=most_tokens)

    assert max(allocated) <= most_tokens
    assert active_replies == 2 or max(allocated) > most_tokens / 2, "memory that is there is used"


def test_samples_are_drawn_from_one_prompt(model: Any) -> None:
    sampling = Sampling(temperature=1.0, seed=4)
    prompts = random_prompts((12, 5), vocabulary=VOCABULARY)
    requests = [Request(prompts[0], 9, sampling, samples=7), Request(prompts[1], 9)]

    by_active = [completed(model, requests, active_replies=active) for active in (1, 3, 7, 64)]

    assert all(one == by_active[0] for one in by_active)
    assert len({by_active[0][0, sample].ids for sample in range(7)}) == 7
    assert by_active[0][1, 0].ids == tuple(own_reply(model, prompts[1], 9))


def test_greedy_samples_are_all_the_same(model: Any) -> None:
    (prompt,) = random_prompts((12,), vocabulary=VOCABULARY)

    found = completed(model, [Request(prompt, 9, samples=5)], active_replies=2)

    assert {completion.ids for completion in found.values()} == {tuple(own_reply(model, prompt, 9))}


@pytest.mark.usefixtures("small_steps")
def test_samples_begin_again_alike_where_memory_is_short(model: Any) -> None:
    (prompt,) = random_prompts((12,), vocabulary=VOCABULARY)
    requests = [Request(prompt, 30, Sampling(temperature=1.0), samples=6)]

    assert completed(model, requests, most_tokens=80) == completed(model, requests)


def test_each_token_is_told_in_order(model: Any) -> None:
    prompts = random_prompts(LENGTHS, vocabulary=VOCABULARY)
    told: dict[tuple[int, int], list[int]] = defaultdict(list)
    requests = [Request(prompt, 6, Sampling(temperature=1.0), samples=2) for prompt in prompts]
    engine = Engine(model, WORDS, active_replies=3)  # type: ignore[arg-type] # all that it asks of a tokenizer

    for completion in engine.generate(requests, lambda place, sample, token: told[place, sample].append(token)):
        assert told[completion.request, completion.sample] == list(completion.ids), "told before it has ended"

    assert len(told) == 2 * len(prompts)


def test_stop_tokens_end_replies_and_are_not_told(model: Any) -> None:
    prompts = random_prompts(LENGTHS, vocabulary=VOCABULARY)
    written = [own_reply(model, prompt, 12) for prompt in prompts]
    stops = frozenset(sorted({token for reply in written for token in reply[3:9]})[:4])
    told: list[int] = []

    engine = Engine(model, LetterTokenizer(stops))  # type: ignore[arg-type] # all that it asks of a tokenizer
    completions = sorted(
        engine.generate([Request(prompt, 12) for prompt in prompts], lambda *values: told.append(values[2])),
        key=lambda completion: completion.request,
    )

    expected = [own_reply(model, prompt, 12, sorted(stops)) for prompt in prompts]
    assert [list(completion.ids) for completion in completions] == expected
    ends = ["length" if len(reply) == 12 else "stop_token" for reply in expected]
    assert [completion.ended_by for completion in completions] == ends
    assert set(ends) == {"length", "stop_token"}
    assert not stops & set(told)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=0.7, top_k=5, repetition_penalty=1.3)])
def test_logprobs_are_those_of_the_models_own_logits(model: Any, sampling: Sampling) -> None:
    prompts = random_prompts((19, 13, 24, 15), vocabulary=VOCABULARY, beginning=10)
    requests = [Request(prompt, 6, sampling, logprobs=place != 1) for place, prompt in enumerate(prompts)]

    found = completed(model, requests)

    assert found[1, 0].logprobs == ()
    for place in (0, 2, 3):
        completion = found[place, 0]
        logprobs_TV = own_logits(model, prompts[place], completion.ids).log_softmax(1)
        expected = [float(logprobs_V[token]) for logprobs_V, token in zip(logprobs_TV, completion.ids, strict=True)]
        assert completion.logprobs == pytest.approx(expected, abs=1e-5)


KINDS: dict[str, tuple[dict[str, Any], HeadKind]] = {
    "gemma2": ({"sliding_window": 6, "attn_logit_softcapping": 2.0}, "product"),
    "gemma3_text": ({"sliding_window": 6}, "product"),
    "mistral": ({"sliding_window": 6}, "product"),
    "gpt_oss": ({"sliding_window": 6}, "product"),
    "deepseek_v3": ({}, "product"),
    "gpt2": ({}, "product"),
    "qwen3_moe": ({}, "product"),
    "modernbert-decoder": ({}, "own"),
}


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beginning", [0, 10])
def test_windows_sinks_caps_and_widths_are_attended_as_the_model_does(kind: str, beginning: int) -> None:
    more, head = KINDS[kind]
    tiny = tiny_kind(kind, **more)
    use_generation_attention(tiny)
    if kind == "gpt_oss":
        tiny.set_attn_implementation("eager")  # the only one of its own that has sinks
    prompts = random_prompts([n + beginning for n in (1, 9, 17, 4, 26)], vocabulary=128, beginning=beginning)

    assert_own_replies(tiny, prompts, 20, head=head, active_replies=3)


def test_adapters_take_part(tiny_model_folder: Path) -> None:
    fresh = AutoModelForCausalLM.from_pretrained(tiny_model_folder, attn_implementation="sdpa")
    prompts = random_prompts(LENGTHS, vocabulary=VOCABULARY, seed=8)
    plain = completed(fresh, [Request(prompt, 8) for prompt in prompts])
    adapted, _ = add_lora(fresh, rank=4, alpha=8, dropout=0.0, targets="all-linear")
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    adapted.eval()

    assert_own_replies(adapted, prompts, 8)

    assert completed(adapted, [Request(prompt, 8) for prompt in prompts]) != plain


def test_bf16_replies_are_likely_to_the_model_itself(tiny_model_folder: Path) -> None:
    bf16 = AutoModelForCausalLM.from_pretrained(tiny_model_folder, attn_implementation="sdpa", dtype=torch.bfloat16)
    prompts = random_prompts([n + 9 for n in LENGTHS], vocabulary=VOCABULARY, beginning=9)

    found = completed(bf16, [Request(prompt, 10, logprobs=True) for prompt in prompts])

    for (place, _), completion in found.items():
        own_logprobs_TV = own_logits(bf16, prompts[place], completion.ids).log_softmax(1)
        for token, logprob, own_V in zip(completion.ids, completion.logprobs, own_logprobs_TV, strict=True):
            assert logprob == pytest.approx(float(own_V[token]), abs=0.15)
            assert float(own_V.max() - own_V[token]) < 0.15


def test_a_model_attends_as_before_between_completions_and_afterwards(model: Any) -> None:
    prompts = random_prompts((3, 8, 5), vocabulary=VOCABULARY)
    expected = [own_reply(model, prompt, 6) for prompt in prompts]
    engine = Engine(model, WORDS, active_replies=1)  # type: ignore[arg-type] # all that it asks of a tokenizer
    requests = [Request(prompt, 6) for prompt in prompts]

    for completion in engine.generate(requests):
        assert own_reply(model, prompts[completion.request], 6) == list(completion.ids)
    assert model.config._attn_implementation == "sdpa"
    both = zip(engine.generate(requests), engine.generate(requests[::-1]), strict=True)
    pairs = [(list(one.ids), list(other.ids)) for one, other in both]

    assert pairs == list(zip(expected, expected[::-1], strict=True))
    assert model.config._attn_implementation == "sdpa"


def test_replies_that_nobody_waits_for_leave_nothing_broken(model: Any) -> None:
    prompts = random_prompts((3, 8, 5), vocabulary=VOCABULARY)
    expected = own_reply(model, prompts[1], 6)
    engine = Engine(model, WORDS, active_replies=1)  # type: ignore[arg-type] # all that it asks of a tokenizer
    replies = engine.generate([Request(prompt, 6) for prompt in prompts])

    next(replies)
    replies.close()

    assert model.config._attn_implementation == "sdpa"
    assert not torch.is_inference_mode_enabled()
    assert own_reply(model, prompts[1], 6) == expected
    assert_own_replies(model, prompts, 6)


def test_an_error_of_the_caller_passes_through(model: Any) -> None:
    prompts = random_prompts((3, 8, 5), vocabulary=VOCABULARY)

    def refuse(place: int, sample: int, token: int) -> None:
        raise KeyError("of the caller")

    engine = Engine(model, WORDS)  # type: ignore[arg-type] # all that it asks of a tokenizer
    with pytest.raises(KeyError, match="of the caller"):
        list(engine.generate([Request(prompt, 6) for prompt in prompts], refuse))

    assert model.config._attn_implementation == "sdpa"
    assert not torch.is_inference_mode_enabled()
    assert_own_replies(model, prompts, 6)


def test_nothing_asked_nothing_said(model: Any) -> None:
    assert completed(model, []) == {}


def test_memory_by_default_holds_as_many_replies_as_may_grow(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = count_calls(monkeypatch, Engine, "_step")
    prompts = random_prompts((40,) * 12, vocabulary=VOCABULARY)

    completed(model, [Request(prompt, 5) for prompt in prompts], active_replies=12)

    assert len(steps) <= 5 + 1, f"all at once, with room for {capacity_for(45)} tokens each"


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("prompt", {"prompt": np.zeros(0, dtype=np.int32)}),
        ("max_new_tokens", {"max_new_tokens": 0}),
        ("samples", {"samples": 0}),
        ("stop_strings", {"stop_strings": ("a", "")}),
    ],
)
def test_a_request_for_nothing_is_refused(field: str, given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="Nothing can be generated") as refused:
        Request(**{"prompt": np.ones(3, dtype=np.int32), "max_new_tokens": 4} | given)

    assert refused.value.where == field

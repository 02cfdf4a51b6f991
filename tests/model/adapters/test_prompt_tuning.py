"""Prompt tuning on packed rows is PEFT's own forward for one document at a time, gradients and replies too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, Gemma2Config, Gemma2ForCausalLM

from tutelage.errors import ConfigError
from tutelage.export.model_folder import save_trained
from tutelage.generate.replies import greedy_replies
from tutelage.model.adapters.prompt_tuning import add_prompt, has_prompt, without_prompt
from tutelage.model.attention.packed import use_generation_attention, use_packed_attention
from tutelage.model.load import load
from tutelage.model.loss import row_loss
from tutelage.model.precision import cast_model
from tutelage.optim.master_weights import MasterWeights
from tutelage.optim.optimizers import adamw
from tutelage.pack import pack_rows
from tutelage.render import ChatTemplate, Renderer, Tokenizer

LENGTHS = (7, 31, 12, 2, 20, 9)
TEXT_IDS = (5, 77, 301)
IDS = torch.arange(3, 40)[None]


def optimizer_of(model: Any, *, shared: bool = False) -> MasterWeights:
    return MasterWeights(model, build=adamw(weight_decay=0.0, betas=(0.9, 0.999), epsilon=1e-8), shared=shared)


def one_document_at_a_time(model: Any, examples: Any) -> torch.Tensor:
    """Through PEFT's forward, which puts the virtual tokens in front itself."""
    model.set_attn_implementation("eager")
    sums = []
    for example in examples:
        ids, weights = torch.from_numpy(example.ids).long(), torch.from_numpy(example.weights)
        logits = model(input_ids=ids[None], use_cache=False).logits[0].float()[-len(ids) :]
        sums.append((cross_entropy(logits[:-1], ids[1:], reduction="none") * weights[1:]).sum())
    return torch.stack(sums).sum()


@pytest.mark.parametrize(("row_tokens", "share_prefixes"), [(32, False), (64, False), (128, False), (128, True)])
@pytest.mark.parametrize("text_ids", [None, TEXT_IDS])
def test_the_packed_loss_is_pefts_one_by_one(
    tiny_model: Any, documents: Any, gradients_of: Any, row_tokens: int, share_prefixes: bool, text_ids: Any
) -> None:
    torch.manual_seed(1)
    model, _ = add_prompt(tiny_model, tokens=5, text_ids=text_ids)
    examples = documents(LENGTHS, scaled=True)
    if share_prefixes:
        for one in (examples[1], examples[4]):
            one.ids[:18], one.weights[:18] = examples[1].ids[:18], 0.0
    expected = one_document_at_a_time(model, examples)
    expected.backward()
    expected_gradients = gradients_of(model)

    use_packed_attention(model)
    rows = pack_rows(examples, row_tokens=row_tokens, share_prefixes=share_prefixes)
    assert any(row.parents for row in rows) == share_prefixes
    assert row_tokens == 32 or any(len(row.document_tokens) > 1 for row in rows)
    sums, counts = zip(*(row_loss(model, row) for row in rows), strict=True)
    torch.stack(sums).sum().backward()

    torch.testing.assert_close(torch.stack(sums).sum(), expected, rtol=1e-6, atol=0)
    assert sum(counts) == sum(int((example.weights != 0).sum()) for example in examples)
    assert set(expected_gradients) == {"prompt_encoder.default.embedding.weight"}
    for name, value in gradients_of(model).items():
        torch.testing.assert_close(value, expected_gradients[name], rtol=1e-4, atol=1e-5)


def test_models_that_scale_their_embeddings_get_them_scaled_once(documents: Any) -> None:
    torch.manual_seed(0)
    small = Gemma2Config(
        vocab_size=400, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, attn_logit_softcapping=None, pad_token_id=0, eos_token_id=1,
        bos_token_id=None,
    )  # fmt: skip
    model, _ = add_prompt(Gemma2ForCausalLM(small), tokens=3)
    examples = documents((9, 14))
    model.eval()
    expected = one_document_at_a_time(model, examples)

    use_packed_attention(model)
    (row,) = pack_rows(examples, row_tokens=64)

    torch.testing.assert_close(row_loss(model, row)[0], expected, rtol=1e-5, atol=0)


def test_text_is_repeated_or_cut(tiny_model_folder: Path) -> None:
    model, record = add_prompt(load(tiny_model_folder)[0], tokens=5, text_ids=TEXT_IDS)
    words = model.get_input_embeddings().weight

    expected = words[torch.tensor([5, 77, 301, 5, 77])]
    assert torch.equal(model.prompt_encoder["default"].embedding.weight, expected)
    assert (record.method, record.trainable, record.trainable_bytes) == ("prompt", 5 * 64, 4 * 5 * 64)
    cut, _ = add_prompt(load(tiny_model_folder)[0], tokens=2, text_ids=TEXT_IDS)
    assert torch.equal(cut.prompt_encoder["default"].embedding.weight, words[torch.tensor([5, 77])])


def test_a_text_without_tokens_is_a_config_error(tiny_model: Any) -> None:
    with pytest.raises(ConfigError, match="no tokens"):
        add_prompt(tiny_model, tokens=4, text_ids=())


def test_only_the_virtual_tokens_have_optimizer_state(tiny_model: Any, documents: Any) -> None:
    model, record = add_prompt(tiny_model, tokens=4)
    before = {name: one.clone() for name, one in model.get_base_model().named_parameters()}
    optimizer = optimizer_of(model, shared=True)
    use_packed_attention(model)
    (row,) = pack_rows(documents((20, 30)), row_tokens=64)
    row_loss(model, row)[0].backward()
    optimizer.step(1e-2, max_grad_norm=1.0)

    moments = [one for name, one in optimizer.state().items() if name.startswith("exp_avg:")]
    assert [moment.numel() for moment in moments] == [record.trainable]
    assert all(torch.equal(one, before[name]) for name, one in model.get_base_model().named_parameters())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_plain_peft_opens_what_was_saved(
    tiny_model_folder: Path, documents: Any, tmp_path: Path, precision: Any
) -> None:
    model, _ = add_prompt(load(tiny_model_folder)[0], tokens=4, text_ids=TEXT_IDS)
    optimizer = optimizer_of(model)
    cast_model(model, precision)
    use_packed_attention(model)
    (row,) = pack_rows(documents((20, 30)), row_tokens=64)
    for _ in range(3):
        row_loss(model, row)[0].backward()
        optimizer.step(0.1, max_grad_norm=1.0)
    use_generation_attention(model)
    trained = model.eval()(input_ids=IDS).logits
    assert not torch.equal(without_prompt(model)(input_ids=IDS).logits, trained[:, 4:])
    tokenizer = Tokenizer.load(tiny_model_folder)
    renderer = Renderer(tokenizer, ChatTemplate(str(tokenizer.template), named_tokens=tokenizer.named_tokens))

    save_trained(model, optimizer, renderer, tmp_path / "adapter", stored_as=torch.float32)

    again = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model_folder), tmp_path / "adapter")
    cast_model(again, precision)
    assert torch.equal(again.eval()(input_ids=IDS).logits, trained)
    assert has_prompt(again)
    assert str(tiny_model_folder) not in (tmp_path / "adapter" / "adapter_config.json").read_text().replace(
        f'"base_model_name_or_path": "{tiny_model_folder}"', ""
    )


def test_replies_are_pefts_and_do_not_depend_on_the_batch(tiny_model: Any, tiny_model_folder: Path) -> None:
    tokenizer = Tokenizer.load(tiny_model_folder)
    torch.manual_seed(2)
    model, _ = add_prompt(tiny_model, tokens=6)
    use_generation_attention(model)
    random = np.random.default_rng(2)
    prompts = [random.integers(0, 400, length).astype(np.int32) for length in (9, 31, 2, 17, 17, 5, 40, 1)]
    stops = sorted(tokenizer.stop_ids)
    expected = []
    for prompt in prompts:
        ids = prompt.tolist()
        for _ in range(12):
            with torch.no_grad():
                ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
            if ids[-1] in stops:
                break
        expected.append(tokenizer.decode([token_id for token_id in ids[len(prompt) :] if token_id not in stops]))
    assert len(set(expected)) > 4

    for batch in (1, 3, 8):
        found = greedy_replies(model, tokenizer, prompts, max_new_tokens=12, batch_prompts=batch)
        assert [reply.text for reply in found] == expected
    with model.disable_adapter():
        bare = greedy_replies(model, tokenizer, prompts, max_new_tokens=12, batch_prompts=8)
    assert bare == greedy_replies(without_prompt(model), tokenizer, prompts, max_new_tokens=12, batch_prompts=8)
    assert [reply.text for reply in bare] != expected

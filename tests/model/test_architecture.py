"""What a model is, is tried on it: its head, its attention, whether documents share a row, whether it draws noise."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from rich.console import Console
from torch.nn.functional import cross_entropy
from transformers import AttentionInterface

from tests.support.tiny_kinds import tiny_kind
from tutelage.errors import ConfigError
from tutelage.model.adapters.lora import add_lora
from tutelage.model.architecture import TRIED_TOKENS, Architecture, architecture_of
from tutelage.model.attention import packed
from tutelage.model.attention.packed import document_attention
from tutelage.model.layers import decoder_layers, decoder_of
from tutelage.model.loss import row_loss
from tutelage.model.trial import require_trainable
from tutelage.pack import pack_rows
from tutelage.report.console.progress import Screen
from tutelage.train.announcement import announce_architecture
from tutelage.types import Example

Documents = Callable[..., list[Example]]


def gradients_of(model: Any) -> dict[str, torch.Tensor]:
    """Taken off the model; some kinds carry weights that a decoder alone does not use."""
    taken = {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
    model.zero_grad(set_to_none=True)
    return taken


def own_loss(model: Any, examples: Sequence[Example]) -> torch.Tensor:
    """Summed loss by the model's own forward, untouched, one document after the other."""
    total = torch.zeros(())
    for example in examples:
        ids, weights = torch.from_numpy(example.ids).long(), torch.from_numpy(example.weights)
        logits = model(input_ids=ids[None]).logits[0].float()
        total = total + (cross_entropy(logits[:-1], ids[1:], reduction="none") * weights[1:]).sum()
    return total


def loss_as_trained(model: Any, architecture: Architecture, examples: Sequence[Example]) -> torch.Tensor:
    rows = pack_rows(examples, row_tokens=64, documents_isolated=architecture.documents_isolated)
    return torch.stack([row_loss(model, row, architecture=architecture)[0] for row in rows]).sum()


def assert_trains_to_its_own_loss(model: Any, examples: Sequence[Example]) -> Architecture:
    expected = own_loss(model, examples)
    expected.backward()
    expected_gradients = gradients_of(model)
    architecture = architecture_of(model)
    found = loss_as_trained(model, architecture, examples)
    found.backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    gradients = gradients_of(model)
    assert gradients.keys() == expected_gradients.keys()
    for name, value in gradients.items():
        scale = max(float(expected_gradients[name].abs().max()), 1e-3)
        assert float((value - expected_gradients[name]).abs().max()) <= 1e-4 * scale, name
    return architecture


def test_r1_a_head_that_no_list_knows_is_the_models_own(documents: Documents) -> None:
    model = tiny_kind("falcon_h1", num_hidden_layers=1, lm_head_multiplier=0.5)

    architecture = assert_trains_to_its_own_loss(model, documents((9, 4, 12), vocabulary=128))

    assert architecture.head == "own"


def test_r1_a_configuration_that_claims_a_scale_is_not_believed(tiny_model: Any, documents: Documents) -> None:
    tiny_model.config.logit_scale = 0.25

    assert assert_trains_to_its_own_loss(tiny_model, documents((9, 12))).head == "own"


def test_r1_a_bias_after_the_head_is_in_the_loss(documents: Documents) -> None:
    """BERT's head is a layer, a norm and a product, none of which the loss rebuilds."""
    architecture = assert_trains_to_its_own_loss(tiny_kind("bert"), documents((9, 12), vocabulary=128))

    assert (architecture.attention, architecture.head, architecture.documents_isolated) == ("documents", "own", True)


def test_r1_a_row_without_trained_tokens_costs_nothing_by_the_models_own_head(documents: Documents) -> None:
    model = tiny_kind("bert")
    architecture = architecture_of(model)
    (example,) = documents((9,), vocabulary=128)
    silent = Example(example.address, 0, example.ids, 0 * example.weights, ())

    total = loss_as_trained(model, architecture, [silent])
    total.backward()

    assert total.item() == 0.0


@pytest.mark.parametrize("kind", ["mamba", "bloom", "gptj", "codegen"])
def test_r7_kinds_without_our_attention_keep_their_own(kind: str, documents: Documents) -> None:
    architecture = assert_trains_to_its_own_loss(tiny_kind(kind), documents((9, 4, 12), vocabulary=128))

    assert not architecture.documents_isolated


def test_r8_a_layer_that_hands_nothing_on_keeps_its_own_attention(documents: Documents) -> None:
    model = tiny_kind("stablelm")

    architecture = assert_trains_to_its_own_loss(model, documents((9, 4, 12), vocabulary=128))

    assert not architecture.documents_isolated


def test_r8_positions_that_do_not_start_again_keep_documents_in_rows_of_their_own(documents: Documents) -> None:
    """BART counts positions over the row, whatever it is told: two documents cannot share one."""
    architecture = assert_trains_to_its_own_loss(tiny_kind("bart"), documents((9, 4, 12), vocabulary=128))

    assert not architecture.documents_isolated


@pytest.mark.parametrize(("noise", "attention"), [(0.0, "own"), (0.06, "documents")])
def test_a_noisy_model_has_its_documents_in_one_row(
    noise: float, attention: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gemma 3 of 270M in bf16: a row lies 6 % from itself before others, and 5.2 % from itself by our attention."""
    torch.manual_seed(0)
    model = tiny_kind("llama").bfloat16()
    decoder, plain = decoder_of(model), document_attention

    def forward(*, input_ids: torch.Tensor, **arguments: Any) -> Any:
        output = type(decoder).forward(decoder, input_ids=input_ids, **arguments)
        return (output[0] * (1 + noise),) if input_ids.shape[1] > TRIED_TOKENS else output

    def off_by_rounding(*arguments: Any, **named: Any) -> tuple[torch.Tensor, None]:
        return plain(*arguments, **named)[0] * 1.1, None

    decoder.forward = forward
    try:
        monkeypatch.setattr(packed, "document_attention", off_by_rounding)
        assert architecture_of(model).attention == attention
    finally:
        AttentionInterface.register(packed.NAME, plain)


def test_r8_a_model_that_reads_ahead_is_refused_in_one_sentence() -> None:
    with pytest.raises(ConfigError, match="depends on later tokens") as caught:
        architecture_of(tiny_kind("bert", is_decoder=False))

    assert "model_type bert" in str(caught.value.where)


def test_r8_a_forward_that_fails_is_refused_in_one_sentence(tiny_model: Any) -> None:
    tiny_model.model.layers[1].mlp.down_proj = torch.nn.Linear(3, 3)

    with pytest.raises(ConfigError, match="its own forward fails: mat1 and mat2"):
        architecture_of(tiny_model)


def test_r8_a_backward_pass_that_fails_is_refused_in_one_sentence(tiny_model: Any) -> None:
    class Refusing(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, given: torch.Tensor) -> torch.Tensor:
            return given.clone()

        @staticmethod
        def backward(ctx: Any, *upstream: torch.Tensor) -> torch.Tensor:
            raise NotImplementedError("no way back")

    tiny_model.model.norm.register_forward_hook(lambda _module, _given, output: Refusing.apply(output))
    architecture = architecture_of(tiny_model)

    with pytest.raises(ConfigError, match="does not train as it is: no way back"):
        require_trainable(tiny_model, architecture)


def test_r8_memory_that_runs_out_says_nothing_of_a_model(tiny_model: Any) -> None:
    architecture = architecture_of(tiny_model)

    def short_of_memory(*_given: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")

    tiny_model.model.norm.register_forward_pre_hook(short_of_memory)

    with pytest.raises(RuntimeError, match="can't allocate memory"):
        architecture_of(tiny_model)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        require_trainable(tiny_model, architecture)


def test_a_trial_leaves_no_trace(tiny_model: Any) -> None:
    tiny_model.train()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)

    architecture = architecture_of(tiny_model)
    require_trainable(tiny_model, architecture)

    assert torch.equal(torch.rand(3), expected)
    assert tiny_model.training
    assert all(parameter.grad is None for parameter in tiny_model.parameters())
    assert architecture == Architecture()


@pytest.mark.parametrize(("share", "noisy"), [(0.1, True), (0.0, False)])
def test_r3_dropout_is_read_from_the_model(share: float, noisy: bool) -> None:
    model = tiny_kind("gpt2", attn_pdrop=share, resid_pdrop=0.0, embd_pdrop=0.0)

    assert architecture_of(model).draws_noise is noisy


def test_r3_the_screen_says_what_was_tried() -> None:
    console = Console(file=io.StringIO(), width=200)

    announce_architecture(Screen(console), Architecture("own", "own", documents_isolated=False, draws_noise=True))

    said = console.file.getvalue()  # type: ignore[attr-defined] # a StringIO
    assert "each row holds one document" in said
    assert "dropout" in said
    assert "own code" in said


def test_r8_the_screen_says_that_beginnings_are_not_joined() -> None:
    console = Console(file=io.StringIO(), width=200)

    announce_architecture(Screen(console), Architecture(shares_prefixes=False))

    assert "beginnings that documents share are not joined" in console.file.getvalue()  # type: ignore[attr-defined] # a StringIO


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gpt_neox", "mamba", "bloom", "mpt", "bart"])
def test_r21_the_list_of_layers_is_found_whatever_its_name(kind: str) -> None:
    model = tiny_kind(kind)

    _, layers = decoder_layers(model)

    assert len(layers) == 2
    assert all(any(True for _ in layer.parameters()) for layer in layers)


@pytest.mark.parametrize("kind", ["llama4_text", "phimoe", "deepseek_v4"])
def test_r8_a_router_that_gives_no_product_has_no_pair(kind: str, documents: Documents) -> None:
    """Beside a linear layer that gives several tensors, or another width, a pair's product would not fit."""
    adapted, _ = add_lora(tiny_kind(kind), rank=2, alpha=2, dropout=0.0, targets="all-linear")

    architecture = architecture_of(adapted)
    require_trainable(adapted, architecture)

    loss_as_trained(adapted, architecture, documents((9, 4), vocabulary=128)).backward()
    assert gradients_of(adapted)


def test_r6_numbers_that_are_not_finite_are_refused_in_one_sentence(tiny_model: Any) -> None:
    tiny_model.model.norm.weight.data[0] = torch.nan

    with pytest.raises(ConfigError, match="not finite"):
        architecture_of(tiny_model)

"""The ramp of dropout over residual connections: what it touches, when, and by how much."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers

from tutelage.errors import ConfigError
from tutelage.model.adapters.lora import add_lora
from tutelage.model.attention.packed import use_packed_attention
from tutelage.model.residual_dropout import add_residual_dropout

SIZES = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
}
ARCHITECTURES: dict[str, Callable[[], Any]] = {
    "llama": lambda: transformers.LlamaConfig(**SIZES),
    "qwen3": lambda: transformers.Qwen3Config(**SIZES),
    "gemma3": lambda: transformers.Gemma3TextConfig(**SIZES),
    "olmo2": lambda: transformers.Olmo2Config(**SIZES),
    "glm4": lambda: transformers.Glm4Config(**SIZES),
    "granite": lambda: transformers.GraniteConfig(**SIZES, residual_multiplier=0.5),
    "cohere": lambda: transformers.CohereConfig(**SIZES),
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**SIZES),
    "phi3": lambda: transformers.Phi3Config(**SIZES),
    "mixtral": lambda: transformers.MixtralConfig(**SIZES, num_local_experts=2),
}


def tiny(kind: str) -> Any:
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(ARCHITECTURES[kind]())
    use_packed_attention(model)
    return model


def hidden(model: Any, ids_1R: torch.Tensor) -> torch.Tensor:
    tokens = ids_1R.shape[1]
    positions = torch.arange(tokens)[None]
    decoder = model.get_decoder()
    output = decoder(input_ids=ids_1R, position_ids=positions, document_tokens=(tokens,), use_cache=False)
    return output.last_hidden_state


IDS = torch.arange(1, 9)[None]


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_the_ramp_is_found_and_acts_in_training_only(kind: str) -> None:
    model = tiny(kind)
    model.eval()
    plain = hidden(model, IDS)

    shares = add_residual_dropout(model, last=0.3)

    assert shares == pytest.approx((0.0, 0.1, 0.2, 0.3))
    assert not model.training, "the proof leaves the mode as it was"
    assert torch.equal(hidden(model, IDS), plain)
    model.train()
    torch.manual_seed(1)
    dropped = hidden(model, IDS)
    torch.manual_seed(1)
    again = hidden(model, IDS)
    assert not torch.allclose(dropped, plain)
    assert torch.equal(dropped, again)


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_what_reaches_the_stream_is_dropped_and_scaled(kind: str) -> None:
    """Each branch's share of zeros is its layer's, and what stays is scaled so that the mean is kept."""
    model = tiny(kind)
    layers = model.get_decoder().layers
    names = ("self_attn", "mlp") if kind == "llama" else ("post_attention_layernorm", "post_feedforward_layernorm")
    before: dict[tuple[int, str], torch.Tensor] = {}
    after: dict[tuple[int, str], torch.Tensor] = {}

    def noting(place: tuple[int, str], store: dict[tuple[int, str], torch.Tensor]) -> Callable[..., None]:
        def note(_module: Any, _given: Any, output: Any) -> None:
            store[place] = (output[0] if isinstance(output, tuple) else output).detach()

        return note

    places = [(number, name) for number in range(4) for name in names]
    for number, name in places:
        layers[number].get_submodule(name).register_forward_hook(noting((number, name), before))
    shares = add_residual_dropout(model, last=0.6)
    for number, name in places:
        layers[number].get_submodule(name).register_forward_hook(noting((number, name), after))
    model.train()
    torch.manual_seed(0)
    hidden(model, torch.randint(1, 32, (1, 64)))

    for (number, name), dropped in after.items():
        kept = dropped != 0
        torch.testing.assert_close(dropped[kept], before[number, name][kept] / (1 - shares[number]))
        assert 1 - float(kept.float().mean()) == pytest.approx(shares[number], abs=0.05)


def test_no_dropout_at_the_last_layer_is_no_dropout_at_all() -> None:
    model, plain = tiny("llama"), tiny("llama")
    add_residual_dropout(model, last=0.0)
    assert torch.equal(hidden(model.train(), IDS), hidden(plain.train(), IDS))


def test_it_may_be_the_same_at_every_layer() -> None:
    model = tiny("llama")
    assert add_residual_dropout(model, last=0.2, rises=False) == (0.2,) * 4
    layers = model.get_decoder().layers
    assert all(layer.self_attn._forward_hooks and layer.mlp._forward_hooks for layer in layers)


def test_it_works_beside_adapters() -> None:
    model, _ = add_lora(tiny("llama"), rank=2, alpha=4, dropout=0.0, targets="all-linear")
    plain = hidden(model.train(), IDS)
    assert add_residual_dropout(model, last=0.5)[-1] == 0.5
    assert not torch.allclose(hidden(model, IDS), plain)


def test_an_architecture_that_adds_something_else_is_refused() -> None:
    class Wider(torch.nn.Module):
        """A layer with one more branch than its names tell."""

        def __init__(self, layer: Any) -> None:
            super().__init__()
            self.self_attn, self.mlp, self.inner = layer.self_attn, layer.mlp, layer

        def forward(self, hidden_states: torch.Tensor, *given: Any, **named: Any) -> torch.Tensor:
            return self.inner(hidden_states, *given, **named) + 0.5 * hidden_states

    model = tiny("llama")
    model.get_decoder().layers[1] = Wider(model.get_decoder().layers[1])

    with pytest.raises(ConfigError, match="laid out") as caught:
        add_residual_dropout(model, last=0.3)

    assert caught.value.where == "train.residual_dropout"
    assert all(not module._forward_hooks for module in model.modules())

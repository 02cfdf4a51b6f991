"""Every kind of `AutoModelForCausalLM`, tiny, saved and loaded: it trains to its own forward's loss, or is refused.

`python tests/model/test_every_kind.py` prints the table that stands in docs/models.md.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file
from torch.nn.functional import cross_entropy
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tests.support.tiny_kinds import VOCABULARY, facts, tiny_config, tiny_kind
from tutelage.errors import TutelageError
from tutelage.model.adapters.lora import add_lora
from tutelage.model.architecture import architecture_of, bare_model, native_inputs
from tutelage.model.attention.packed import use_generation_attention
from tutelage.model.fused.norm_and_mlp import reduce_saved_activations
from tutelage.model.load import load
from tutelage.model.loss import row_loss
from tutelage.model.precision import cast_model
from tutelage.model.trial import require_trainable
from tutelage.pack import pack_rows
from tutelage.types import Address, Example

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
SAME_SHARE = 1e-5
"""By which loss and gradient norm may differ from those of the model's own forward, in fp32."""

LENGTHS = (7, 21, 12)
KINDS = sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def lines_of_page() -> list[str]:
    return [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]


def daily_kinds() -> set[str]:
    """The first kind of each outcome, and those that `kinds.toml` names; the night takes all."""
    firsts = {line.split("|", 2)[2]: line.split("`")[1] for line in reversed(lines_of_page())}
    return {*firsts.values(), *facts()["daily"]}


def documents() -> list[Example]:
    random, made = np.random.default_rng(0), []
    for number, length in enumerate(LENGTHS, 1):
        weights = (random.random(length) < 0.5).astype(np.float32)
        weights[0], weights[-1] = 0.0, 1.0
        ids = random.integers(4, VOCABULARY - 8, length).astype(np.int32)
        made.append(Example(Address("made", number), 0, ids, weights, ()))
    return made


def gradient_norm(model: Any) -> float:
    """Of all gradients, which are taken off the model."""
    squares = [
        float(parameter.grad.double().square().sum()) for parameter in model.parameters() if parameter.grad is not None
    ]
    model.zero_grad(set_to_none=True)
    return sum(squares) ** 0.5


def of_own_forward(model: Any, examples: Sequence[Example]) -> tuple[float, float]:
    """Summed loss and gradient norm by the model's own code alone, one document after the other."""
    model = bare_model(model)
    use_generation_attention(model)
    total = torch.zeros(())
    for example in examples:
        ids, weights = torch.from_numpy(example.ids).long(), torch.from_numpy(example.weights)
        logits = model(input_ids=ids[None], **native_inputs(model, {})).logits[0].float()
        total = total + (cross_entropy(logits[:-1], ids[1:], reduction="none") * weights[1:]).sum()
    total.backward()
    return total.item(), gradient_norm(model)


def as_trained(model: Any, examples: Sequence[Example]) -> tuple[str, tuple[float, float]]:
    """What was tried on the model, in words, and summed loss and gradient norm as a run computes them."""
    architecture = architecture_of(model)
    require_trainable(model, architecture)
    total = 0.0
    for row in pack_rows(examples, row_tokens=64, documents_isolated=architecture.documents_isolated):
        loss, _ = row_loss(model, row, architecture=architecture)
        loss.backward()
        total += loss.item()
    rows = "packed" if architecture.documents_isolated else "one document"
    attention = "inside documents" if architecture.attention == "documents" else "its own"
    logits = {"product": "product", "own": "its own", "whole": "whole forward"}[architecture.head]
    return f"{rows} | {attention} | {logits}", (total, gradient_norm(model))


def compared(model: Any, *, lean: bool) -> tuple[str, bool]:
    """What was tried, and whether a run's loss and gradient norm are those of the model's own forward."""
    examples = documents()
    trained = deepcopy(model)
    if lean:
        reduce_saved_activations(trained)
    words, found = as_trained(trained, examples)
    expected = of_own_forward(model, examples)
    return words, all(abs(one - other) <= SAME_SHARE * abs(other) for one, other in zip(found, expected, strict=True))


def with_random_pairs(model: Any) -> Any:
    adapted, _ = add_lora(model, rank=2, alpha=4, dropout=0.0, targets="all-linear")
    random = torch.Generator().manual_seed(3)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data.copy_(0.05 * torch.randn(parameter.shape, generator=random))
    return adapted.eval()


def store(kind: str, folder: Path) -> None:
    """Save a tiny model; of a kind of which transformers makes none, config.json, and weights that are not its own."""
    if kind not in facts()["unmade"]:
        tiny_kind(kind).save_pretrained(folder)
        return
    tiny_config(kind).save_pretrained(folder)
    save_file({"weight": torch.zeros(1)}, folder / "model.safetensors", metadata={"format": "pt"})


def line_of(kind: str, folder: Path) -> str:
    """The kind's line of the table."""
    store(kind, folder)
    try:
        model, _ = load(folder)
        cast_model(model, "fp32")
        words, full = compared(model.eval(), lean=True)
    except TutelageError as error:
        found = f" ({error.found})" if error.found else ""
        return f"| `{kind}` | refused: {error.what}{found} |".replace(str(folder), "its folder")
    try:
        model, _ = load(folder)
        cast_model(model, "fp32")
        _, lora = compared(with_random_pairs(model), lean=False)
        pairs = "equal" if lora else "DIFFERENT"
    except TutelageError as error:
        pairs = f"refused: {error.what}"
    return f"| `{kind}` | {words} | {'equal' if full else 'DIFFERENT'} | {pairs} |"


@pytest.mark.parametrize(
    "kind", [kind if kind in daily_kinds() else pytest.param(kind, marks=pytest.mark.nightly) for kind in KINDS]
)
def test_every_kind_trains_to_its_own_loss_or_is_refused(kind: str, tmp_path: Path) -> None:
    line = line_of(kind, tmp_path)

    assert "DIFFERENT" not in line
    assert line in lines_of_page(), "python tests/model/test_every_kind.py prints the table of docs/models.md"


@pytest.mark.parametrize(("kind", "said"), facts()["unmade"].items())
def test_transformers_itself_makes_no_model_of_these_kinds(kind: str, said: str) -> None:
    with pytest.raises((ImportError, ValueError, AttributeError), match=re.escape(said)):
        tiny_kind(kind)


def test_the_page_has_a_line_for_every_kind_of_this_version() -> None:
    lines = lines_of_page()

    assert [line.split("`")[1] for line in lines] == KINDS
    assert set(facts()["daily"]) <= set(KINDS)
    assert f"transformers {transformers.__version__}" in PAGE.read_text(encoding="utf-8")
    trained = [line for line in lines if "equal" in line]
    assert len(trained) >= 100
    assert f"{len(trained)} of {len(lines)}" in PAGE.read_text(encoding="utf-8")


def _print(kinds: Sequence[str]) -> Iterator[str]:
    for kind in kinds:
        with tempfile.TemporaryDirectory() as folder:
            yield line_of(kind, Path(folder))


if __name__ == "__main__":
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    for printed in _print(sys.argv[1:] or KINDS):
        sys.stdout.write(f"{printed}\n")
        sys.stdout.flush()

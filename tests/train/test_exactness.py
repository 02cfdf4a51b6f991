"""Loss = sum over trained tokens / global count: how a step is cut into micro-batches changes no loss or slope."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from tests.support import ROOT
from tests.support.cli_process import launch
from tests.support.one_step import (
    BEFORE,
    DOCUMENTS,
    TOLERANCE,
    WAYS,
    Step,
    assert_same_step,
    documents_for,
    micro_batches,
    step_of,
)
from tutelage.errors import DependencyError
from tutelage.model.attention.packed import use_packed_attention
from tutelage.model.locate import model_folder
from tutelage.model.token_weights import TrainingLoss
from tutelage.types import Example

SCRIPT = ROOT / "tests/support/one_step_in_two.py"
LAYOUTS = list(itertools.product(((16, 1), (4, 4), (1, 16)), (True, False)))


@pytest.fixture(scope="module")
def tiny(tiny_model_folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_model_folder, local_files_only=True)


def embedded_model(**changed: Any) -> Any:
    try:
        folder = model_folder("smollm2-135m", log=lambda _text: None)
    except DependencyError as error:
        pytest.skip(f"the embedded model is not installed: {error.fix}")
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True, **changed)


@pytest.fixture
def smollm2() -> Any:
    return embedded_model()


@pytest.fixture
def smollm2_beginning() -> Any:
    """Its trained embeddings and first layers, whose activations are already as large as a trained model's are."""
    return embedded_model(num_hidden_layers=3)


def plain_step(model: Any, documents: list[Example], trained_tokens: int) -> Step:
    """The same step with transformers' own forward, one document at a time, and torch's cross-entropy."""
    model.set_attn_implementation("eager")
    model.zero_grad(set_to_none=True)
    total = 0.0
    for document in documents:
        ids, weights = torch.from_numpy(document.ids).long(), torch.from_numpy(document.weights)
        logits = model(input_ids=ids[None], use_cache=False).logits[0]
        summed = cross_entropy(logits[:-1], ids[1:].masked_fill(weights[1:] == 0, -100), reduction="sum")
        (summed / trained_tokens).backward()
        total += summed.item()
    gradients = {name: one.grad.clone() for name, one in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    norm = float(torch.nn.utils.get_total_norm(gradients.values()))
    return Step(total / trained_tokens, norm, gradients)


def steps_in_two(model: Any, out: Path) -> dict[str, tuple[Step, list[int]]]:
    """Each of `WAYS` in two processes, and the number of rows that each process took."""
    done = launch(str(SCRIPT), model.config.name_or_path, "4", str(out), torchrun=2)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    found = {}
    for name in WAYS:
        with safe_open(out / f"{name}.safetensors", framework="pt") as file:
            told = json.loads(file.metadata()["step"])
            gradients = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 # not a mapping
        found[name] = (Step(told["loss"], told["norm"], gradients), told["rows"])
    return found


@pytest.mark.parametrize("which", ["tiny", "smollm2_beginning", pytest.param("smollm2", marks=pytest.mark.nightly)])
def test_a_step_does_not_depend_on_its_micro_batches(
    which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    model = request.getfixturevalue(which)
    documents = documents_for(model)
    trained_tokens = sum(document.trained_tokens for document in documents)
    use_packed_attention(model)
    first: Step | None = None
    met: set[tuple[tuple[int, ...], ...]] = set()

    for (batch, accumulation), packed in LAYOUTS:
        rows = micro_batches(documents, batch, packed=packed)
        assert len(rows) == (accumulation if packed else DOCUMENTS)
        layout = tuple(row.document_tokens for row in rows)
        if layout in met:
            continue  # not packed, every layout is 16 rows of one document
        met.add(layout)
        found = step_of(model, rows, tmp_path / "record.jsonl", trained_tokens=trained_tokens)
        model.zero_grad(set_to_none=True)
        first = first or found
        assert_same_step(found, first)
    assert sorted(map(len, met)) == [1, 4, 16]


def test_two_processes_take_the_same_step(tiny: Any, tmp_path: Path) -> None:
    """Two micro-batches of four documents on each of two processes, against 16 documents at once on one."""
    documents = documents_for(tiny)
    use_packed_attention(tiny)
    expected = {}
    for loss in {loss for _, loss in WAYS.values()}:
        expected[loss] = step_of(
            tiny,
            micro_batches(documents, DOCUMENTS, packed=True),
            tmp_path / "record.jsonl",
            trained_tokens=sum(document.trained_tokens for document in documents),
            progress=BEFORE,
            training_loss=loss,
        )
        tiny.zero_grad(set_to_none=True)

    found = steps_in_two(tiny, tmp_path)

    assert {name: rows for name, (_, rows) in found.items()} == {
        "packed": [2, 2], "apart": [8, 8], "talr": [2, 2], "eaft": [8, 8],
    }  # fmt: skip
    for name, (step, _) in found.items():
        whole = expected[WAYS[name][1]]
        assert_same_step(step, whole)
        assert step.norm == pytest.approx(whole.norm, rel=TOLERANCE), "of the whole gradient, not of a share"
    assert len({step.loss for step in expected.values()}) == 1
    assert len({round(step.norm, 4) for step in expected.values()}) == 3


@pytest.mark.parametrize("loss", ["dft", "talr", "eaft"])
def test_weights_of_tokens_do_not_depend_on_micro_batches(tiny: Any, tmp_path: Path, loss: TrainingLoss) -> None:
    documents = documents_for(tiny)
    trained_tokens = sum(document.trained_tokens for document in documents)
    use_packed_attention(tiny)
    found = []
    for batch in (16, 4, 1):
        rows = micro_batches(documents, batch, packed=True)
        record = tmp_path / "record.jsonl"
        given: Any = {"trained_tokens": trained_tokens, "progress": BEFORE, "training_loss": loss}
        found.append(step_of(tiny, rows, record, **given))
        tiny.zero_grad(set_to_none=True)

    for step in found[1:]:
        assert_same_step(step, found[0])


def test_a_step_is_that_of_plain_transformers(tiny: Any, tmp_path: Path) -> None:
    documents = documents_for(tiny)
    trained_tokens = sum(document.trained_tokens for document in documents)
    expected = plain_step(tiny, documents, trained_tokens)
    use_packed_attention(tiny)

    rows = micro_batches(documents, 4, packed=True)

    assert_same_step(step_of(tiny, rows, tmp_path / "record.jsonl", trained_tokens=trained_tokens), expected)
    tiny.zero_grad(set_to_none=True)


def test_a_mean_of_means_would_be_seen(tiny: Any, tmp_path: Path) -> None:
    """The documents are such that the mistake this guards against is far beyond the tolerance."""
    documents = documents_for(tiny)
    record, rows = tmp_path / "record.jsonl", micro_batches(documents, 4, packed=True)
    use_packed_attention(tiny)
    expected = step_of(tiny, rows, record, trained_tokens=sum(document.trained_tokens for document in documents))
    tiny.zero_grad(set_to_none=True)

    parts = []
    for row in rows:
        parts.append(step_of(tiny, [row], record, trained_tokens=row.trained_tokens))
        tiny.zero_grad(set_to_none=True)
    mean = sum(one.loss for one in parts) / len(parts)
    gradients = {name: sum(one.gradients[name] for one in parts) / len(parts) for name in expected.gradients}

    assert abs(mean - expected.loss) > 100 * TOLERANCE * expected.loss
    for wrong in (Step(mean, expected.norm, expected.gradients), Step(expected.loss, expected.norm, gradients)):
        with pytest.raises(AssertionError):
            assert_same_step(wrong, expected)

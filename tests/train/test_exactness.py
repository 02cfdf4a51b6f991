"""Loss = sum over trained tokens / global count: how a step is cut into micro-batches changes no loss or slope."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from one_step import DOCUMENTS, TOLERANCE, Step, assert_same_step, micro_batches, sixteen_documents, step_of
from tokenizers import Tokenizer
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM

from tutelage.errors import DependencyError
from tutelage.model.attention import isolate_documents
from tutelage.model.source import model_folder
from tutelage.types import Example

LAYOUTS = list(itertools.product(((16, 1), (4, 4), (1, 16)), (True, False)))
SENTENCES = Path(__file__).parents[2] / "datasets" / "general_train.jsonl"


@pytest.fixture(scope="module")
def tiny(tiny_model_folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_model_folder, local_files_only=True)


@pytest.fixture(scope="module")
def smollm2() -> Any:
    try:
        folder = model_folder("smollm2-135m", say=lambda _text: None)
    except DependencyError as error:
        pytest.skip(f"the embedded model is not installed: {error.fix}")
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)


def documents_for(model: Any) -> list[Example]:
    """Sentences, three to a text: on random ids a trained model's large activations cost fp32 another digit."""
    rows = [json.loads(line)["messages"] for line in SENTENCES.read_text(encoding="utf-8").splitlines()]
    said = [message["content"] for row in rows for message in row]
    texts = [" ".join(said[at : at + 6]) for at in range(0, 6 * DOCUMENTS, 6)]
    tokenizer = Tokenizer.from_file(str(Path(model.config.name_or_path) / "tokenizer.json"))
    return sixteen_documents([one.ids for one in tokenizer.encode_batch(texts)])


def plain_step(model: Any, documents: list[Example], trained_tokens: int) -> Step:
    """The same step with transformers' own forward, one document at a time, and torch's cross-entropy."""
    model.set_attn_implementation("eager")
    model.zero_grad(set_to_none=True)
    total = 0.0
    for one in documents:
        ids, weights = torch.from_numpy(one.ids).long(), torch.from_numpy(one.weights)
        logits = model(input_ids=ids[None], use_cache=False).logits[0]
        summed = cross_entropy(logits[:-1], ids[1:].masked_fill(weights[1:] == 0, -100), reduction="sum")
        (summed / trained_tokens).backward()
        total += summed.item()
    gradients = {name: one.grad.clone() for name, one in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    norm = float(torch.nn.utils.get_total_norm(gradients.values()))
    return Step(total / trained_tokens, norm, gradients)


@pytest.mark.parametrize("which", ["tiny", pytest.param("smollm2", marks=pytest.mark.slow)])
def test_a_step_does_not_depend_on_its_micro_batches(
    which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    model = request.getfixturevalue(which)
    documents = documents_for(model)
    trained_tokens = sum(one.trained_tokens for one in documents)
    isolate_documents(model)
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


def test_a_step_is_that_of_plain_transformers(tiny: Any, tmp_path: Path) -> None:
    documents = documents_for(tiny)
    trained_tokens = sum(one.trained_tokens for one in documents)
    expected = plain_step(tiny, documents, trained_tokens)
    isolate_documents(tiny)

    rows = micro_batches(documents, 4, packed=True)

    assert_same_step(step_of(tiny, rows, tmp_path / "record.jsonl", trained_tokens=trained_tokens), expected)
    tiny.zero_grad(set_to_none=True)


def test_a_mean_of_means_would_be_seen(tiny: Any, tmp_path: Path) -> None:
    """The documents are such that the mistake this guards against is far beyond the tolerance."""
    documents = documents_for(tiny)
    record, rows = tmp_path / "record.jsonl", micro_batches(documents, 4, packed=True)
    isolate_documents(tiny)
    expected = step_of(tiny, rows, record, trained_tokens=sum(one.trained_tokens for one in documents))
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

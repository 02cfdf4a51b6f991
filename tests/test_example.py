"""The one-page example says what it promises: short, and the same loss as the whole house."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from tests.support.cli_process import launch
from tutelage import formats
from tutelage.builders.renderer import renderer_for
from tutelage.config import RenderSettings
from tutelage.ledger import Ledger
from tutelage.model.embedded import embedded_models
from tutelage.model.locate import model_folder
from tutelage.pack import pack_rows
from tutelage.render import examples

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "sft_in_one_page.py"
BATCH = 4
TRAIN = "datasets/support/train.jsonl"
EMBEDDED = embedded_models()["smollm2-135m"]["package"]


def first_loss_of_the_house(rows: int) -> float:
    import torch

    from tutelage.model.attention.packed import use_packed_attention
    from tutelage.model.load import load
    from tutelage.model.loss import row_loss
    from tutelage.model.precision import cast_model

    folder = model_folder("smollm2-135m")
    ledger = Ledger()
    read = formats.read([str(ROOT / TRAIN)], ledger=ledger, max_rows=rows)
    proven = [one for _, row in examples(read, renderer_for(folder, RenderSettings()), ledger) for one in row]
    assert len(proven) == rows
    model, _ = load(folder)
    cast_model(model, "fp32")
    use_packed_attention(model)
    total, count = 0.0, 0
    with torch.inference_mode():
        for row in pack_rows(proven, row_tokens=2048):
            summed, tokens = row_loss(model, row)
            total, count = total + summed.item(), count + tokens
    return total / count


def test_it_stays_one_page_and_needs_only_torch_and_transformers():
    text = EXAMPLE.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 120
    imported = re.findall(r"^(?:from|import) (\w+)(.*)", text, re.MULTILINE)
    assert {name for name, _ in imported} - set(sys.stdlib_module_names) == {"torch", "transformers", "tutelage"}
    assert [rest.split("#")[0].strip() for name, rest in imported if name == "tutelage"] == [
        ".model.locate import model_folder"
    ]


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec(EMBEDDED) is None, reason=f"the embedded model's package {EMBEDDED} is not installed"
)
def test_its_first_loss_is_that_of_the_whole_house(tmp_path: Path):
    """Its own code, with smaller batches."""
    text, changed = re.subn(
        r"^BATCH_EXAMPLES = \d+$", f"BATCH_EXAMPLES = {BATCH}", EXAMPLE.read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    assert changed == 1
    script = tmp_path / EXAMPLE.name
    script.write_text(text, encoding="utf-8")

    done = launch(str(script), "--steps", "1")

    assert done.returncode == 0, done.stderr[-2000:]
    first = re.search(r"^step 1/1  loss ([\d.]+)$", done.stdout, re.MULTILINE)
    assert first is not None, done.stdout
    assert float(first[1]) == pytest.approx(first_loss_of_the_house(BATCH), abs=1e-3)
    assert done.stdout.count("\nwanted  {") == 3

"""The model's loss on control tokens: told apart from its loss on text, and judged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tutelage.audit.template_loss import PROBE_CONVERSATION, TemplateLoss, loss_finding, template_loss
from tutelage.builders.renderer import renderer_for
from tutelage.config import RenderSettings
from tutelage.model.load import load


def test_losses_are_those_of_the_served_conversation(tiny_model_folder: Path) -> None:
    renderer = renderer_for(tiny_model_folder, RenderSettings())
    model, _ = load(tiny_model_folder)
    measured = template_loss(model, renderer)
    assert measured is not None
    ids = torch.from_numpy(renderer.serve(PROBE_CONVERSATION)).long()
    with torch.inference_mode():
        logits = model(input_ids=ids[None]).logits[0, :-1].float()
    losses = -logits.log_softmax(-1).gather(1, ids[1:, None])[:, 0]
    for token in ("<|im_start|>", "<|im_end|>"):
        here = ids[1:] == renderer.tokenizer.special_tokens[token]
        assert measured.control[token] == pytest.approx(losses[here].mean().item(), rel=1e-4)
    control = torch.isin(ids[1:], torch.tensor(list(renderer.tokenizer.special_tokens.values())))
    assert measured.control_mean == pytest.approx(losses[control].mean().item(), rel=1e-4)
    assert measured.text_mean == pytest.approx(losses[~control].mean().item(), rel=1e-4)


def test_a_template_without_control_tokens_has_nothing_to_measure(tiny_model_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "bare.jinja"
    path.write_text("{% for m in messages %}{{ m.content + '\\n' }}{% endfor %}", "utf-8")
    model, _ = load(tiny_model_folder)
    assert template_loss(model, renderer_for(tiny_model_folder, RenderSettings(template=str(path)))) is None


@pytest.mark.parametrize(
    ("loss", "key", "severity"),
    [(1.62, "control_tokens_expected", "info"), (13.08, "control_tokens_unexpected", "error")],
)
def test_what_the_measured_losses_mean(loss: float, key: str, severity: str) -> None:
    """Both numbers are of SmolLM2-135M-Instruct: with its own control tokens, and with reserved ones in their place."""
    finding = loss_finding(TemplateLoss({"<|im_start|>": loss}, loss, 2.4))
    assert (finding.key, finding.severity) == (key, severity)
    assert f"{loss:.2f}" in finding.evidence

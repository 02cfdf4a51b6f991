"""A model that reads rows: its losses are those of transformers' own forward, and what is wrong is said at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tutelage.builders import curation, scoring_model
from tutelage.builders.scoring_model import LocalModel, open_scoring_model
from tutelage.curate.scoring_model import ModelRequest, ReplyLosses, Unread
from tutelage.errors import DependencyError, SourceNotFoundError, TemplateError
from tutelage.types import Address, Conversation, Message

torch.set_num_threads(1)
DIALOG = ("Where is order 4711?", "The old shop has lost the blue lamp.", "And two tickets, please?", "Nobody knows.")


def request(name: Path | str, **named: Any) -> ModelRequest:
    return ModelRequest("curate.model_scores", str(name), **({"precision": "fp32"} | named))


def row(*texts: str, number: int = 1, weights: tuple[float | None, ...] = ()) -> Conversation:
    roles = ("user", "assistant") * len(texts)
    given = weights or (None,) * len(texts)
    messages = tuple(
        Message(role, text, weight=weight)
        for role, text, weight in zip(roles, texts, given, strict=False)  # type: ignore[arg-type] # two roles of them
    )
    return Conversation(messages, Address("rows", number))


def losses_of(model: LocalModel, *rows: Conversation) -> list[ReplyLosses]:
    found = model.losses(rows)
    return [answer for answer in found if isinstance(answer, ReplyLosses)]


@pytest.fixture
def model(tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalModel:
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))
    return open_scoring_model(request(tiny_model_folder))


def witness(folder: Path, texts: tuple[str, ...]) -> tuple[float, float]:
    """Both losses by transformers alone: each reply behind what a server would give, and behind an opening."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    totals, tokens = [0.0, 0.0], 0
    for place in range(1, len(texts), 2):
        roles = ("user", "assistant") * len(texts)
        turns = [{"role": role, "content": text} for role, text in zip(roles, texts[:place], strict=False)]
        served = tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        reply = tokenizer(served + texts[place] + "<|im_end|>", add_special_tokens=False)["input_ids"]
        prompt = tokenizer(served, add_special_tokens=False)["input_ids"]
        assert reply[: len(prompt)] == prompt
        reply = reply[len(prompt) :]
        opening = tokenizer("<|im_start|>assistant\n", add_special_tokens=False)["input_ids"]
        for kind, before in enumerate((prompt, opening)):
            labels = torch.tensor([[-100] * len(before) + reply])
            with torch.no_grad():
                loss = network(torch.tensor([before + reply]), labels=labels).loss
            totals[kind] += loss.item() * len(reply)
        tokens += len(reply)
    return totals[0] / tokens, totals[1] / tokens


def test_both_losses_are_those_of_transformers(model: LocalModel, tiny_model_folder: Path) -> None:
    texts = [DIALOG, DIALOG[:2], ("Hello", "A driver asks for a refund?"), ("My sister " * 40, "Our team has lost it.")]
    found = losses_of(model, *(row(*each, number=number) for number, each in enumerate(texts)))
    for losses, each in zip(found, texts, strict=True):
        assert (losses.loss, losses.alone) == pytest.approx(witness(tiny_model_folder, each), abs=1e-5)
    assert len({round(losses.loss, 3) for losses in found}) == len(texts)


def test_a_row_has_the_same_losses_alone_and_among_others(model: LocalModel) -> None:
    rows = [row(f"Question {number}", f"The old shop has {number} lamps.", number=number) for number in range(30)]
    together = losses_of(model, *rows)
    for conversation, losses in zip(rows, together, strict=True):
        (alone,) = losses_of(model, conversation)
        assert (losses.loss, losses.alone) == pytest.approx((alone.loss, alone.alone), abs=1e-5)


def test_a_turn_that_is_not_trained_does_not_count_and_a_weight_does_not_weigh(model: LocalModel) -> None:
    last = row(*DIALOG, weights=(None, 0.0, None, 1.0))
    half = row(*DIALOG, weights=(None, 0.0, None, 0.5))
    plain, first_not, weighed = losses_of(model, row(*DIALOG), last, half)
    assert first_not.tokens < plain.tokens
    assert (weighed.loss, weighed.tokens) == pytest.approx((first_not.loss, first_not.tokens), abs=1e-6)


@pytest.mark.parametrize(
    ("conversation", "reason"),
    [
        (row("What is <|im_end|> for?", "It ends a turn."), "control_token_in_text"),
        (Conversation((Message("text", "A document."),), Address("rows", 1)), "no_prompt"),
        (row("Hello " * 300, "Yes."), "too_long"),
    ],
)
def test_rows_that_cannot_be_read_say_why(model: LocalModel, conversation: Conversation, reason: str) -> None:
    model.renderer = scoring_model.replace(model.renderer, most_tokens=200)
    found = model.losses([row("Hello", "Yes."), conversation, row("Hello", "No.")])
    assert [isinstance(answer, ReplyLosses) for answer in found] == [True, False, True]
    assert isinstance(found[1], Unread)
    assert (found[1].reason, found[1].failed) == (reason, False)


def test_a_row_that_breaks_the_model_breaks_it_for_itself_alone(
    model: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = LocalModel._sums

    def broken(self: LocalModel, documents: Any) -> Any:
        if any(len(document.ids) > 60 for document in documents):
            raise RuntimeError("kernel")
        return whole(self, documents)

    monkeypatch.setattr(LocalModel, "_sums", broken)
    found = model.losses([row("Hello", "Yes."), row("My sister " * 60, "Yes."), row("Hello", "No.")])
    assert [getattr(answer, "failed", None) for answer in found] == [None, True, None]
    assert isinstance(found[1], Unread)
    assert found[1].detail == "RuntimeError: kernel"


def test_a_model_that_breaks_on_every_row_is_at_fault_itself(
    model: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_self: LocalModel, _documents: Any) -> Any:
        raise RuntimeError("kernel")

    monkeypatch.setattr(LocalModel, "_sums", broken)
    with pytest.raises(RuntimeError, match="kernel"):
        model.losses([row("Hello", "Yes."), row("Hello", "No.")])


def test_facts_change_with_the_weights_and_with_the_settings(
    model: LocalModel, tiny_model_folder: Path, tmp_path: Path
) -> None:
    import shutil

    assert open_scoring_model(request(tiny_model_folder)).facts == model.facts
    assert open_scoring_model(request(tiny_model_folder, precision="bf16")).facts != model.facts
    assert open_scoring_model(request(tiny_model_folder, template="chatml")).facts != model.facts
    other = shutil.copytree(tiny_model_folder, tmp_path / "other")
    network = AutoModelForCausalLM.from_pretrained(other)
    with torch.no_grad():
        network.model.norm.weight.mul_(1.5)
    network.save_pretrained(other)
    assert open_scoring_model(request(other)).facts != model.facts


def test_positions_of_the_model_bound_what_is_read(model: LocalModel) -> None:
    assert model.renderer.most_tokens == 1024


@pytest.mark.parametrize("template", [None, "chatml"])
def test_a_model_without_a_template_needs_the_name_of_one(
    write_model_folder: Callable[..., Path], tiny_model_folder: Path, tmp_path: Path, template: str | None
) -> None:
    folder = write_model_folder(tmp_path / "bare", template=None)
    for file in ("config.json", "model.safetensors"):
        (folder / file).write_bytes((tiny_model_folder / file).read_bytes())
    if template is not None:
        assert open_scoring_model(request(folder, template=template)).renderer.template.name == "the format 'chatml'"
        return
    with pytest.raises(TemplateError, match="no chat template") as error:
        open_scoring_model(request(folder))
    assert "curate.model_scores.template=chatml" in str(error.value.fix)


def test_a_model_that_is_not_there_is_named() -> None:
    with pytest.raises(SourceNotFoundError, match="There is no model"):
        open_scoring_model(request("./no/such/model"))


def test_without_torch_the_install_line_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curation, "find_spec", lambda name: None if name == "torch" else name)
    with pytest.raises(DependencyError, match="needs torch") as error:
        curation._open_model(request("smollm2-135m"))
    assert "pip install 'tutelage[train]'" in str(error.value.fix)


def test_vectors_are_weighted_means_of_the_last_hidden_states(model: LocalModel, tiny_model_folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_folder)
    network = AutoModelForCausalLM.from_pretrained(tiny_model_folder, dtype=torch.float32).eval()
    texts = [DIALOG, ("Hello", "Yes.")]
    found = model.vectors([row(*each) for each in texts])
    for vector, each in zip(found, texts, strict=True):
        roles = ("user", "assistant") * len(each)
        turns = [{"role": role, "content": text} for role, text in zip(roles, each, strict=False)]
        ids = tokenizer.apply_chat_template(turns, tokenize=True, return_tensors="pt", return_dict=True)["input_ids"]
        with torch.no_grad():
            states = network(ids, output_hidden_states=True).hidden_states[-1][0]
        counts = torch.arange(1, len(states) + 1, dtype=torch.float32)
        expected = (states * counts[:, None]).sum(0) / counts.sum()
        assert vector == pytest.approx(expected.numpy(), abs=1e-5)


def test_vectors_are_of_the_first_tokens_of_a_long_row_and_of_documents_too(model: LocalModel) -> None:
    model.renderer = scoring_model.replace(model.renderer, most_tokens=50)
    long, longer, document, empty = model.vectors(
        [
            row("Hello " * 300, "Yes."),
            row("Hello " * 400, "No."),
            Conversation((Message("text", "A document."),), Address("rows", 1)),
            Conversation((Message("text", ""),), Address("rows", 2)),
        ]
    )
    assert long == pytest.approx(longer)
    assert not isinstance(document, Unread)
    assert document.shape == (64,)
    assert isinstance(empty, Unread)

"""Runs in a process of its own, and imports nothing of ours: what a user of an exported folder will load and see.

Given the path of a JSON file it loads the folder with transformers (and an adapter with PEFT), computes what it is
asked, and writes the answers as JSON; each finished prompt is a line on standard output. `proof.py` beside it asks.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open


def main() -> None:
    """Answer the request whose path is the one argument."""
    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if request["threads"]:
        torch.set_num_threads(request["threads"])
    model = _loaded(request)
    inner = model.get_base_model() if request["adapter"] else model
    with torch.no_grad(), safe_open(request["reference"], framework="pt") as reference:
        answers = {
            "dtype": str(next(p.dtype for p in inner.parameters() if p.is_floating_point())).removeprefix("torch."),
            "stops": _as_list(model.generation_config.eos_token_id),
            "sampling": _sampling(model.generation_config),
            "tokenizer": _tokenizer_answers(request),
            "tensors": _tensor_answers(inner, request, reference),
            "prompts": _prompt_answers(model, request, reference),
        }
    Path(request["answers"]).write_text(json.dumps(answers), encoding="utf-8")


def _loaded(request: dict[str, Any]) -> Any:
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    arguments: dict[str, Any] = {
        "dtype": "auto",
        "local_files_only": True,
        "use_safetensors": True,
        "trust_remote_code": request["trust_remote_code"],
    }
    if request["four_bit"]:
        stated = dict(request["four_bit"])
        compute = getattr(torch, stated.pop("bnb_4bit_compute_dtype"))
        arguments["quantization_config"] = BitsAndBytesConfig(bnb_4bit_compute_dtype=compute, **stated)
    model = AutoModelForCausalLM.from_pretrained(request["model"], **arguments)
    if not request["four_bit"]:
        model.to(request["device"])
    if request["adapter"]:
        from peft import PeftModel

        serving = model.generation_config
        model = PeftModel.from_pretrained(model, request["adapter"])
        stops = json.loads((Path(request["adapter"]) / "generation_config.json").read_text(encoding="utf-8"))
        serving.eos_token_id = stops["eos_token_id"]
    return model.eval()


def _as_list(ids: Any) -> list[int]:
    return sorted(ids) if isinstance(ids, list) else [] if ids is None else [ids]


def _sampling(generation: Any) -> dict[str, float]:
    """What of the folder's settings makes its replies others than the likeliest."""
    usual = {"temperature": 1.0, "top_k": 50, "top_p": 1.0, "min_p": None, "repetition_penalty": 1.0}
    stated = {name: getattr(generation, name, None) for name in usual}
    return {name: value for name, value in stated.items() if value is not None and value != usual[name]}


def _tokenizer_answers(request: dict[str, Any]) -> dict[str, Any]:
    """Which conversations the folder's own template and tokenizer make other ids of; and which added tokens miss."""
    from transformers import AutoTokenizer

    folder = request["adapter"] or request["model"]
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    clock = datetime.datetime.fromisoformat(request["date"])
    different = []
    for number, conversation in enumerate(request["conversations"]):
        finished, expected = conversation.get("finished", False), conversation["ids"]
        ids = tokenizer.apply_chat_template(
            conversation["messages"],
            tools=conversation.get("tools"),
            add_generation_prompt=not finished,
            tokenize=True,
            return_dict=False,
            strftime_now=clock.strftime,
            **request["template_arguments"],
        )
        if list(ids)[: len(expected) if finished else None] != expected:
            different.append({"conversation": number, "ids": list(ids)[:20], "expected": expected[:20]})
    missing = [
        token
        for token, token_id in request["added_tokens"].items()
        if tokenizer.encode(token, add_special_tokens=False) != [token_id]
    ]
    return {"different": different, "missing": missing, "conversations": len(request["conversations"])}


def _tensor_answers(inner: Any, request: dict[str, Any], reference: Any) -> dict[str, Any]:
    """Layers that compute something else, each with how far it is off; and tensors that are not bit for bit equal."""
    probed, exact = request["probed"], dict(request["exact"])
    errors, against_rounded = {}, {}
    for name in probed:
        found = _probe_outputs(inner, name, reference)
        errors[name] = _share_off(found, reference.get_tensor(f"out:{name}"))
        if f"rounded:{name}" in reference.keys():  # noqa: SIM118 not a mapping
            against_rounded[name] = _share_off(found, reference.get_tensor(f"rounded:{name}"))
    inside = tuple(f"{name}." for name in probed)
    wrong = {}
    for name, parameter in inner.named_parameters(remove_duplicate=False):
        if (
            not parameter.is_floating_point()
            or name in probed
            or name.startswith(inside)
            or ".original_module." in name
        ):
            continue
        expected = exact.pop(_outside_wrappers(name), None)
        if expected is None:
            wrong[name] = "not expected"
        elif digest(parameter) != expected:
            wrong[name] = "other numbers"
    return {
        "errors": errors,
        "against_rounded": against_rounded,
        "wrong": wrong | dict.fromkeys(exact, "missing"),
        "exact": len(request["exact"]),
    }


def _outside_wrappers(name: str) -> str:
    """The name of a tensor in the plain model, whatever PEFT has put around it."""
    return name.replace(".modules_to_save.default", "").replace(".base_layer", "")


def _probe_outputs(inner: Any, name: str, reference: Any) -> torch.Tensor:
    """What a layer, or a tensor of experts, computes of its probes."""
    if f"in:{name}" not in reference.keys():  # noqa: SIM118 not a mapping
        products: torch.Tensor = inner.get_parameter(name).detach().float().cpu() @ reference.get_tensor(f"by:{name}")
        return products
    layer = inner.get_submodule(name)
    dtypes = {parameter.dtype for parameter in layer.parameters() if parameter.is_floating_point()}
    inputs = reference.get_tensor(f"in:{name}").to(next(layer.parameters()).device)
    found: torch.Tensor = layer.float()(inputs).cpu()
    if len(dtypes) == 1:
        layer.to(dtypes.pop())
    return found


def _share_off(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The length of the difference over that of what is expected."""
    if found.shape != expected.shape or not bool(found.isfinite().all()):
        return float("inf")
    return float((found.double() - expected.double()).norm() / expected.double().norm().clamp_min(1e-30))


def digest(tensor: torch.Tensor) -> str:
    """SHA-256 of its numbers, widened to fp32, which loses nothing."""
    numbers = tensor.detach().to("cpu", torch.float32).contiguous().view(-1).view(torch.uint8)
    return hashlib.sha256(numbers.numpy().data).hexdigest()


def _prompt_answers(model: Any, request: dict[str, Any], reference: Any) -> list[dict[str, Any]]:
    replies = _greedy(model, request)
    answers = []
    for number, prompt in enumerate(request["prompts"]):
        expected = reference.get_tensor(f"logits:{number}")
        ids = torch.tensor([prompt["ids"] + prompt["reply"][: len(expected) - 1]], device=model.device)
        found = model(input_ids=ids).logits[0, -len(expected) :].float().cpu()
        answers.append({**compared(expected, found), "reply": replies[number]})
        print(number, flush=True)  # noqa: T201 a line for the process that waits
    return answers


def compared(expected: torch.Tensor, found: torch.Tensor) -> dict[str, Any]:
    """KL(expected || found) in nats, summed over tokens, and the largest differences of a logit and of a gap.

    A gap is that between the two best of the expected logits, which says whether the likeliest token changes.

    Args:
        expected: [tokens, V].
        found: the same, or of another width, which is infinitely far away.
    """
    if expected.shape != found.shape or not bool(found.isfinite().all()):
        return dict.fromkeys(("kl", "logit_difference", "gap_difference"), float("inf")) | {"tokens": len(expected)}
    log_expected, log_found = expected.double().log_softmax(dim=-1), found.double().log_softmax(dim=-1)
    divergence = (log_expected.exp() * (log_expected - log_found)).sum(dim=-1).clamp_min(0)
    difference = float((expected - found).abs().max())
    two_best = expected.topk(2, dim=-1).indices
    gaps = [logits.gather(-1, two_best).diff(dim=-1) for logits in (expected, found)]
    return {
        "kl": float(divergence.sum()),
        "tokens": len(expected),
        "logit_difference": difference,
        "gap_difference": float((gaps[0] - gaps[1]).abs().max()),
    }


def _greedy(model: Any, request: dict[str, Any]) -> list[list[int]]:
    """The likeliest reply to each prompt by transformers' own `generate`, without the stop token."""
    stops = _as_list(model.generation_config.eos_token_id)
    pad = stops[0] if stops else 0
    replies: list[list[int]] = []
    prompts, together = [prompt["ids"] for prompt in request["prompts"]], request["prompts_together"]
    for start in range(0, len(prompts), together):
        batch = prompts[start : start + together]
        width = max(map(len, batch))
        ids = torch.tensor([[pad] * (width - len(prompt)) + prompt for prompt in batch], device=model.device)
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in batch], device=model.device)
        output = model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=False,
            repetition_penalty=1.0,
            max_new_tokens=request["max_new_tokens"],
            pad_token_id=pad,
        )
        new = output[:, width:] if output.shape[1] > width else output
        replies += [_until(row, stops) for row in new.tolist()]
    return replies


def _until(ids: list[int], stops: list[int]) -> list[int]:
    return next((ids[:place] for place, token in enumerate(ids) if token in stops), ids)


if __name__ == "__main__":
    main()

"""The proof that an exported folder is the model that was trained: loaded and asked in a process of its own.

`reference.py` and `expected_tensors.py` beside it say what must come out, `fresh_process.py` says what does.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tutelage.errors import SaveError
from tutelage.export import fresh_process
from tutelage.export.expected_tensors import ExpectedTensors
from tutelage.export.reference import NEW_TOKENS, Difference, Reference

LOGIT_FACTOR = 4.0
"""A logit may differ by so many times the largest difference that is noise: the largest of as many others, drawn
anew, seldom is more than twice as large. Our choice; `docs/export.md` has what was measured."""
KL_FACTOR = 4.0
"""The same of the mean divergence, which is about the square of a difference and is a mean: our choice."""
LEAST = {
    "float32": Difference(1e-9, 1e-4, 5e-5),
    "bfloat16": Difference(1e-6, 1e-2, 5e-3),
    "float16": Difference(1e-7, 1e-3, 5e-4),
}
"""Where the noise is less than this, as where both compute the very same, these are the limits. Our choice."""
LAYER_FACTOR = 1.5
"""A layer may be off by so many times what rounding moves its weights. Our choice: eight probes say that share within
a tenth."""
ROUNDED_FACTOR = 0.1
"""Of what rounding moves a layer's weights, so much may it be off from our own sum of its pairs, rounded once. Both
round the same sum, but for the order it is taken in: fp32 sums that differ by 2^-20 of a weight lie on two sides of a
border of bfloat16 for one weight in 4,096 or fewer, which moves the layer by a twentieth of its rounding."""
LAYER_LEAST = 1e-5
FOUR_BIT_LAYERS = 2.0**-6
"""Off by this: a layer of 4 bits computes in bfloat16, whose products keep 8 bits."""
ERROR_LINES = 12


@dataclass(frozen=True, slots=True)
class Asked:
    """What the process of its own is told.

    Attributes:
        model: the folder with whole weights: the export, or the base of an adapter.
        adapter: the folder of an adapter; None for a whole model.
        four_bit: how the base of an adapter is loaded in 4 bits; None: it is not.
        device: computes.
        trust_remote_code: the model's own code may run.
        date: that the template is told.
        template_arguments: that the run was trained with.
        conversations: `messages` with the `ids` of their served prompt; or, where `finished` is true, with those that
            the finished conversation begins with.
        added_tokens: with their ids.
        stops: ids that end a reply.
        threads: that it computes with; 0: as it likes.
    """

    model: Path
    adapter: Path | None
    four_bit: Mapping[str, Any] | None
    device: str
    trust_remote_code: bool
    date: str
    template_arguments: Mapping[str, Any]
    conversations: Sequence[Mapping[str, Any]]
    added_tokens: Mapping[str, int]
    stops: Sequence[int]
    threads: int = 0


@dataclass(frozen=True, slots=True)
class Proof:
    """What was measured, and against which limits.

    Attributes:
        dtype: that the folder computes in.
        prompts: how many of each kind.
        tokens: whose distributions were compared.
        found: how far the folder is from the run's model.
        noise: what of it would be noise.
        limits: what was allowed.
        moved: how far the run's model is from its base on the same tokens; None where that was not measured.
        same_replies: likeliest replies that are the same.
        ties: replies that part where the two best logits lie closer than the noise.
        flips: replies that part elsewhere, each with its prompt, place and gap.
        layers: how far each probed layer is off, as a share of the length of its output.
        layer_limits: what was allowed for each.
        against_rounded: how far layers of plain pairs are off from the same sum, rounded here; a tenth of what rounding
            moves is allowed.
        exact_tensors: that are the same bit for bit.
        wrong_tensors: that are not, and why.
        template: conversations of which the folder's own template and tokenizer make the same ids.
        sampling: what of the folder's generation settings draws tokens.
        problems: what is wrong, the causes first; empty where the folder is proven.
    """

    dtype: str
    prompts: Mapping[str, int]
    tokens: int
    found: Difference
    noise: Difference
    limits: Difference
    moved: Difference | None
    same_replies: int
    ties: int
    flips: Sequence[Mapping[str, Any]]
    layers: Mapping[str, float]
    layer_limits: Mapping[str, float]
    against_rounded: Mapping[str, float]
    exact_tensors: int
    wrong_tensors: Mapping[str, str]
    template: int
    sampling: Mapping[str, float]
    problems: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        """The content of `proof.json`."""
        return {"proven": not self.problems, **asdict(self)}


def answers_of(asked: Asked, reference: Reference, expected: ExpectedTensors, *, done: Callable[[int], None]) -> Any:
    """Load the folder in a process of its own, and ask it all.

    Raises:
        SaveError: it cannot be loaded there, or does not answer.
    """
    with tempfile.TemporaryDirectory(prefix="proof-") as scratch:
        folder = Path(scratch)
        logits = {f"logits:{number}": tensor for number, tensor in enumerate(reference.logits)}
        save_file({**logits, **expected.probes}, folder / "reference.safetensors")
        request = {
            **asdict(asked),
            "model": str(asked.model),
            "adapter": None if asked.adapter is None else str(asked.adapter),
            "reference": str(folder / "reference.safetensors"),
            "answers": str(folder / "answers.json"),
            "probed": sorted(expected.rounding),
            "exact": dict(expected.exact),
            "prompts": [
                {"ids": prompt.tolist(), "reply": reply}
                for prompt, reply in zip(reference.prompts, reference.replies, strict=True)
            ],
            "prompts_together": reference.together,
            "max_new_tokens": NEW_TOKENS,
        }
        (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
        _run(folder / "request.json", asked, done)
        return json.loads((folder / "answers.json").read_text(encoding="utf-8"))


def _run(request: Path, asked: Asked, done: Callable[[int], None]) -> None:
    """Start it from its file, without the folder of the file among those that modules are looked for in (-P)."""
    errors = request.with_name("errors.txt")
    with errors.open("wb") as stream:
        process = subprocess.Popen(  # noqa: S603 our own file, and one that we wrote
            [sys.executable, "-P", fresh_process.__file__, str(request)],
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
        )
        try:
            assert process.stdout is not None
            for _ in process.stdout:
                done(1)
            status = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
    if status != 0:
        with errors.open(encoding="utf-8", errors="replace") as text:
            last = [line.strip() for line in deque(text, ERROR_LINES) if line.strip()]
        raise SaveError(
            "What was written cannot be loaded in a process of its own, so it was deleted",
            where=str(asked.adapter or asked.model),
            found=last[-1][:300] if last else f"a process that ended with status {status}",
            expected="a folder that transformers loads",
            fix="see whether `tutelage check --model` says more of the base; leave the proof out with --prompts 0",
        )


def judged(
    answers: Mapping[str, Any],
    asked: Asked,
    reference: Reference,
    expected: ExpectedTensors,
    *,
    noise: Difference,
    moved: Difference | None,
    prompts: Mapping[str, int],
    dtype: torch.dtype,
) -> Proof:
    """Hold the answers against the reference, and what may be off against what is noise in `dtype`."""
    parts = answers["prompts"]
    tokens = sum(part["tokens"] for part in parts)
    found = Difference(
        sum(part["kl"] for part in parts) / max(tokens, 1),
        max((part["logit_difference"] for part in parts), default=0),
        max((part["gap_difference"] for part in parts), default=0),
    )
    name_of_dtype = str(dtype).removeprefix("torch.")
    least = LEAST[name_of_dtype]
    limits = Difference(
        max(KL_FACTOR * noise.kl, least.kl), max(LOGIT_FACTOR * noise.logit, least.logit), max(noise.gap, least.gap)
    )
    same, ties, flips = _replies_compared(parts, reference, tie=limits.gap)
    layer_least = FOUR_BIT_LAYERS if asked.four_bit else LAYER_LEAST
    layer_limits = {name: LAYER_FACTOR * share + layer_least for name, share in expected.rounding.items()}
    layers, wrong = answers["tensors"]["errors"], answers["tensors"]["wrong"]
    against_rounded = answers["tensors"]["against_rounded"]
    rounded_limits = {name: ROUNDED_FACTOR * expected.rounding[name] + LAYER_LEAST for name in against_rounded}
    tokenizer = answers["tokenizer"]
    problems = [
        *_problems_of_layers(layers, layer_limits, wrong),
        *_problems_of_layers(against_rounded, rounded_limits, {}, by="another order of sums"),
        *_problems_of_replies(found, limits, flips),
        *_problems_of_tokens(answers, asked),
    ]
    return Proof(
        dtype=name_of_dtype,
        prompts=dict(prompts),
        tokens=tokens,
        found=found,
        noise=noise,
        limits=limits,
        moved=moved,
        same_replies=same,
        ties=ties,
        flips=flips,
        layers=layers,
        layer_limits=layer_limits,
        against_rounded=against_rounded,
        exact_tensors=answers["tensors"]["exact"] - len(wrong),
        wrong_tensors=wrong,
        template=tokenizer["conversations"] - len(tokenizer["different"]),
        sampling=answers["sampling"],
        problems=problems,
    )


def _problems_of_layers(
    layers: Mapping[str, float], limits: Mapping[str, float], wrong: Mapping[str, str], *, by: str = "rounding"
) -> Iterator[str]:
    yield from (f"{name}: {why}" for name, why in wrong.items())
    for name, share in sorted(layers.items(), key=lambda item: -item[1]):
        if not share <= limits[name]:  # also where it is no number
            yield f"{name}: its outputs are off by {share:.2g} of their length, at most {limits[name]:.2g} is {by}"


def _problems_of_replies(difference: Difference, limits: Difference, flips: Sequence[Any]) -> Iterator[str]:
    if not difference.logit <= limits.logit:  # also where it is no number
        yield f"the logits differ by {difference.logit:.3g}, at most {limits.logit:.3g} is noise"
    if not difference.kl <= limits.kl:
        yield f"KL {difference.kl:.3g} nats a token, at most {limits.kl:.3g} is noise"
    if flips:
        yield f"{len(flips)} replies part where the two best logits are no tie"


def _problems_of_tokens(answers: Mapping[str, Any], asked: Asked) -> Iterator[str]:
    for entry in answers["tokenizer"]["different"]:
        place = f"conversation {entry['conversation']}"
        yield f"{place}: the template makes other ids: {entry['ids']}, not {entry['expected']}"
    yield from (f"the token {token!r} is no token any more" for token in answers["tokenizer"]["missing"])
    if answers["stops"] != sorted(asked.stops):
        yield f"stops {answers['stops']}, not {sorted(asked.stops)}"


def _replies_compared(
    parts: Sequence[Mapping[str, Any]], reference: Reference, *, tie: float
) -> tuple[int, int, list[dict[str, Any]]]:
    """How many replies are the same, how many part at a tie, and those that part elsewhere.

    At a tie the two best logits lie closer than noise has been seen to move two such logits against each other.
    """
    same, ties, flips = 0, 0, []
    for number, (part, reply) in enumerate(zip(parts, reference.replies, strict=True)):
        found = part["reply"]
        if found == reply:
            same += 1
            continue
        place = next((at for at, pair in enumerate(zip(found, reply, strict=False)) if pair[0] != pair[1]), None)
        place = min(len(found), len(reply)) if place is None else place
        gap = reference.gaps[number][place]
        if gap < tie:
            ties += 1
        else:
            flips.append({"prompt": number, "token": place, "gap": gap})
    return same, ties, flips


def require_proven(proof: Proof, folder: Path) -> None:
    """Refuse what is not proven.

    Raises:
        SaveError: that is so; it names what drifts.
    """
    if not proof.problems:
        return
    more = f"; and {len(proof.problems) - 3} more" if len(proof.problems) > 3 else ""
    raise SaveError(
        "What was written is not the model that was trained, so it was deleted",
        where=str(folder),
        found="; ".join(proof.problems[:3]) + more,
        expected=f"KL up to {proof.limits.kl:.2g} and logits within {proof.limits.logit:.2g}, the noise of "
        f"{proof.dtype}, and every tensor as it was trained",
        fix="report it: this is a fault of ours or of a library; --prompts 0 writes the folder without a proof",
    )

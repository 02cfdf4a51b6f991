"""The usual rule of thumb, beside the engine's own figures, with what it leaves out.

Source: Rajbhandari et al. 2020 (ZeRO), section 3.1, counts 2 bytes a weight, 2 a gradient and Adam's state apart; the
rule as it is usually told takes all of them in the precision of the weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from tutelage.plan.workload import METHODS, Method

DIFFERENCES = (
    "it keeps gradients and both of Adam's moments in bf16; this engine keeps fp32 masters, gradients and moments: "
    "2 + 4 + 4 + 8 = 18 bytes for each trained parameter where it computes in bf16, 4 + 4 + 8 = 16 where in fp32",
    "it counts no activations, logits or workspace, and neither the process nor what its allocator wastes",
    "it takes an adapter or a prompt for nothing",
    "for QLoRA it adds a rough 70 % to half a byte for each weight: wide embeddings and norms, scales, the rest",
)
QLORA_ROOM = 1.7
"""6 GB is told for 7B where the 4-bit weights alone are 3.5: a factor, without a derivation behind it."""


@dataclass(frozen=True, slots=True)
class RuleOfThumb:
    """Bytes by method as the rule has them."""

    size_bytes: dict[Method, int]

    def text(self, method: Method) -> str:
        """How the rule comes to its figure."""
        return {
            "full": "2 bytes x parameters, and three times that for gradients and Adam",
            "lora": "2 bytes x parameters",
            "qlora": f"0.5 byte x parameters x {QLORA_ROOM}",
            "prompt": "2 bytes x parameters",
        }[method]


def rule_of_thumb(parameters: int) -> RuleOfThumb:
    """The rule for a model of that size."""
    sizes = {"full": 8.0, "lora": 2.0, "qlora": 0.5 * QLORA_ROOM, "prompt": 2.0}
    return RuleOfThumb({method: round(parameters * sizes[method]) for method in METHODS})

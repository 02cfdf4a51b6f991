"""Which turns of a row are trained: its assistant turns of some weight."""

from __future__ import annotations

from typing import Literal

from tutelage.render.required_text import Unproven
from tutelage.types import Conversation

SMALLEST_WEIGHT, LARGEST_WEIGHT = 1e-6, 1e6
"""A weight below the smallest is taken for 0; fp32 gradients have no use for one beyond the largest."""


def trained_messages(conversation: Conversation, turns: Literal["all", "last"]) -> list[int]:
    """The indices of the turns to train: "all" of them, or the "last" one only.

    Raises:
        Unproven: a weight is out of range, or there is no turn to train.
    """
    for index, message in enumerate(conversation.messages):
        if message.weight is not None and not 0 <= message.weight <= LARGEST_WEIGHT:
            raise Unproven("weight_out_of_range", f"message {index}: weight {message.weight}, beyond {LARGEST_WEIGHT}")
    trained = [
        index
        for index, message in enumerate(conversation.messages)
        if message.role == "assistant" and (message.weight is None or message.weight >= SMALLEST_WEIGHT)
    ]
    if not trained:
        raise Unproven("nothing_to_train", "no assistant turn with a weight above 0")
    return trained[-1:] if turns == "last" else trained

"""Whose words the tokens of an Example are: a message's, the tool list's, or the template's own.

The template itself says where each character that it writes comes from (`ChatTemplate.trace`); a token has the role
that most of its characters have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutelage.render.chat_template import tracing
from tutelage.render.chat_template.tracing import Source, Traced
from tutelage.render.rendered_row import RenderedRow
from tutelage.render.renderer import Renderer
from tutelage.render.required_text import Unproven
from tutelage.types import Conversation, Example

ROLES = ("system", "user", "assistant", "tool", "text", "tool list", "documents", "template")
"""Where tokens come from. `text` is a document learned whole; `template` is all that stands in no message."""

CODES = {name: code for code, name in enumerate(ROLES)}
UNKNOWN = np.int8(-1)
OUTSIDE_MESSAGES = {"tools": "tool list", "documents": "documents"}

Codes = NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class TokenRoles:
    """The role of each token.

    Attributes:
        codes: int8 [S], indices into ROLES.
        traced: False where the example's text is not what the template writes for this row in one piece; then trained
            tokens that could not be traced count as the assistant's and all others as the template's.
    """

    codes: Codes
    traced: bool


def token_roles(conversation: Conversation, example: Example, renderer: Renderer) -> TokenRoles:
    """Trace the finished turn; where the example's ids leave it, the served prompt and the reply, each on its own."""
    if conversation.is_text:
        return TokenRoles(np.full(len(example.ids), CODES["text"], dtype=np.int8), traced=True)
    codes = np.full(len(example.ids), UNKNOWN, dtype=np.int8)
    turn = example.turns[-1]
    row = RenderedRow(renderer.as_proven(conversation), renderer.template, renderer.form)
    finished = _trace(row, turn.message + 1, generation_prompt=False)
    if finished is not None:
        _assign_roles(codes, example, renderer, finished, conversation)
    if np.any(codes[:-1] == UNKNOWN):
        prompt = _trace(row, turn.message, generation_prompt=True)
        if prompt is not None:
            _assign_roles(codes, example, renderer, prompt, conversation)
        if prompt is not None and finished is not None and finished.text.startswith(prompt.text):
            _assign_roles(
                codes, example, renderer, finished, conversation, at=turn.prompt_end, text_from=len(prompt.text)
            )
    unassigned = codes == UNKNOWN
    codes[unassigned] = CODES["template"]  # among them a stop token that the template does not write and we append
    traced = not unassigned[:-1].any()
    if not traced:
        codes[unassigned & (example.weights != 0)] = CODES["assistant"]
    return TokenRoles(codes, traced)


def role_counts(roles: TokenRoles) -> dict[str, int]:
    """Tokens of each role, in the order of ROLES, those that have none left out."""
    counts = np.bincount(roles.codes, minlength=len(ROLES))
    return {name: int(count) for name, count in zip(ROLES, counts, strict=True) if count}


def _trace(row: RenderedRow, messages: int, *, generation_prompt: bool) -> Traced | None:
    try:
        traced = row.trace(messages, generation_prompt=generation_prompt)
    except Unproven:
        return None  # some templates refuse a conversation that ends without a reply to it
    return traced if traced.followed else None


def _assign_roles(
    codes: Codes,
    example: Example,
    renderer: Renderer,
    traced: Traced,
    conversation: Conversation,
    *,
    at: int = 0,
    text_from: int = 0,
) -> None:
    """Give roles to the tokens from `at` that the text from `text_from` encodes to, as far as the ids agree."""
    encoded = renderer.tokenizer.fast.encode(traced.text[text_from:], add_special_tokens=False)
    compared_tokens = min(len(encoded.ids), len(codes) - at)
    agrees = np.asarray(encoded.ids[:compared_tokens], dtype=np.int32) == example.ids[at : at + compared_tokens]
    agreed_tokens = compared_tokens if agrees.all() else int(np.argmin(agrees))
    if agreed_tokens == 0:
        return
    template_codes = [CODES["template"]] * len((tracing.JSON, tracing.PYTHON, tracing.TEMPLATE_TEXT))
    source_codes = np.array([_code(source, conversation) for source in traced.sources] + template_codes, dtype=np.int8)
    character_codes = source_codes[traced.source[text_from:]]  # sources below 0, the template's own, count from the end
    majority_codes = majority(character_codes, encoded.offsets[:agreed_tokens])
    codes[at : at + agreed_tokens] = np.where(
        codes[at : at + agreed_tokens] == UNKNOWN, majority_codes, codes[at : at + agreed_tokens]
    )


def majority(character_codes: Codes, spans: Sequence[tuple[int, int]]) -> Codes:
    """For each span of characters the code that most of them have; of equals the first of ROLES.

    Args:
        character_codes: int8 [characters].
        spans: start and end of each token; an empty one is the template's.
    """
    bounds = np.asarray(spans, dtype=np.int64).reshape(-1, 2)
    cumulative = np.zeros((len(ROLES), len(character_codes) + 1), dtype=np.int32)
    np.cumsum(character_codes == np.arange(len(ROLES), dtype=np.int8)[:, None], axis=1, out=cumulative[:, 1:])
    counts = cumulative[:, bounds[:, 1]] - cumulative[:, bounds[:, 0]]
    codes: Codes = np.argmax(counts, axis=0).astype(np.int8)
    codes[bounds[:, 0] == bounds[:, 1]] = CODES["template"]
    return codes


def _code(source: Source, conversation: Conversation) -> int:
    if source.message is None:
        return CODES[OUTSIDE_MESSAGES.get(source.field.partition("[")[0], "template")]
    # The name of the role in a turn's header is the template's: nobody wrote it into the message.
    return CODES["template" if source.field == "role" else conversation.messages[source.message].role]

"""`response_format`, or a call to be made -> what holds a reply to it, by llguidance: which tokens may come next."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from tutelage.generate.requests import Grammar
from tutelage.render import Tokenizer
from tutelage.serve.problems import Problem, bad_field
from tutelage.serve.request_fields import ResponseFormat

BITS = 32
"""Tokens in a word of llguidance's masks."""
INSTALL = "pip install 'tutelage[serve]'"


class GrammarMaker:
    """Makes grammars for one vocabulary.

    Args:
        tokenizer: of the model; its stop tokens end a reply.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._vocabulary: Any = None
        self._lock = threading.Lock()

    def of_format(self, wanted: ResponseFormat | None) -> Callable[[], Grammar] | None:
        """What makes a grammar for each reply; None where a reply may be any text.

        Raises:
            Problem: the schema cannot be held to, or llguidance is not there.
        """
        if wanted is None or wanted.type == "text":
            return None
        schema: dict[str, Any] = {"type": "object"}
        if wanted.type == "json_schema":
            if wanted.json_schema is None:
                raise bad_field(
                    "response_format.json_schema", "Missing required parameter: 'response_format.json_schema'."
                )
            schema = wanted.json_schema.schema_ or {}
        llguidance = _llguidance("response_format")
        try:
            grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema))
        except ValueError as error:
            raise _bad_schema("response_format", str(error)) from None
        return self._maker(llguidance, grammar, "response_format")

    def of_lark(self, text: str, field: str) -> Callable[[], Grammar]:
        """What makes a grammar that is written in llguidance's Lark.

        Args:
            text: of the grammar.
            field: of the request, which asks for it.

        Raises:
            Problem: a schema in it cannot be held to, or llguidance is not there.
        """
        llguidance = _llguidance(field)
        return self._maker(llguidance, llguidance.LLMatcher.grammar_from_lark(text), field)

    def _maker(self, llguidance: Any, grammar: str, field: str) -> Callable[[], Grammar]:
        vocabulary = self._known_vocabulary(llguidance)
        if problem := llguidance.LLMatcher.validate_grammar(grammar, vocabulary):
            raise _bad_schema(field, problem)
        return lambda: _Held(llguidance.LLMatcher(vocabulary, grammar, log_level=0), self._tokenizer)

    def _known_vocabulary(self, llguidance: Any) -> Any:
        with self._lock:
            if self._vocabulary is None:
                self._vocabulary = llguidance.LLTokenizer(
                    self._tokenizer.fast.to_str(), eos_token=sorted(self._tokenizer.stop_ids)
                )
            return self._vocabulary


class _Held:
    """One reply, held to a grammar."""

    def __init__(self, matcher: Any, tokenizer: Tokenizer) -> None:
        self._matcher, self._stops = matcher, sorted(tokenizer.stop_ids)

    def restrict(self, logits_V: torch.Tensor) -> None:
        """Set the logits of tokens that may not come next to minus infinity; at its end only stop tokens are left."""
        allowed_V = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8), bitorder="little")
        hidden_V = torch.ones(len(logits_V), dtype=torch.bool)
        known = min(len(allowed_V), len(logits_V))
        hidden_V[:known] = torch.from_numpy(allowed_V[:known] == 0)
        if self._matcher.is_stopped() or bool(hidden_V.all()):
            hidden_V[:] = True
            hidden_V[self._stops] = False
        logits_V.masked_fill_(hidden_V.to(logits_V.device), float("-inf"))

    def take(self, token: int) -> None:
        """Note a token of the reply."""
        if not self._matcher.is_stopped():
            self._matcher.consume_token(token)


def _llguidance(field: str) -> Any:
    try:
        import llguidance
    except ModuleNotFoundError:
        raise bad_field(field, f"'{field}' needs the package llguidance on the server: {INSTALL}.") from None
    return llguidance


def _bad_schema(field: str, reason: str) -> Problem:
    return bad_field(field, f"The schema cannot be held to: {' '.join(reason.split())[:300]}.")

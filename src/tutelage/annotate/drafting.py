"""A model's draft of a reply, for a person to revise."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from tutelage.annotate.asked import AskedPrompt
from tutelage.errors import EndpointError
from tutelage.synthesize.generator import Generator, Reply, Request, Sampling

SAMPLING = Sampling(temperature=0.7, top_p=1.0, presence_penalty=0.0, max_tokens=256)
"""Our choice: one likely reply, not the likeliest, which small models repeat themselves in."""


@dataclass(slots=True)
class Drafting:
    """Asks one model, for one person at a time."""

    generator: Generator
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def name(self) -> str:
        """Of the model."""
        return self.generator.name

    def draft(self, prompt: AskedPrompt) -> str:
        """A reply to a prompt.

        Raises:
            EndpointError: there is none, or the model cannot be asked.
            TutelageError: of a local model, of the kind that fits.
        """
        replies: list[Reply] = []
        messages = tuple({"role": turn.role, "content": turn.content or ""} for turn in prompt.messages)
        request = Request(f"draft/{prompt.key}", messages, SAMPLING)
        with self._lock:
            ended = self.generator.generate([request], lambda _request, reply: replies.append(reply))
        text = replies[0].text if replies else None
        if text is None or not text.strip():
            why = ended or (replies[0].trouble if replies else "") or "it says nothing"
            raise EndpointError(f"{self.name} gave no draft: {why}", fix="write the text without one")
        return text

"""How a reply starts and ends, what it repeats, and what divides it or is left out."""

from __future__ import annotations

from tutelage.evaluate.instructions.instruction import Instruction, Phrase

_QUOTES = (('"', '"'), ("“", "”"))
_COMMAS = frozenset(",،、，﹐﹑､")
"""The Latin, Arabic and ideographic ones, full width, small and half width."""


class EndChecker(Instruction):
    """Nothing but closing double quotation marks stands behind the phrase, which may be in any case."""

    end_phrase: Phrase

    def _follows(self, reply: str) -> bool:
        return reply.strip().strip('"').casefold().endswith(self.end_phrase.strip().casefold())


class Quotation(Instruction):
    """The whole reply stands in double quotation marks."""

    def _follows(self, reply: str) -> bool:
        text = reply.strip()
        return len(text) > 1 and (text[0], text[-1]) in _QUOTES


class NoComma(Instruction):
    """No comma of any script."""

    def _follows(self, reply: str) -> bool:
        return _COMMAS.isdisjoint(reply)


class RepeatPrompt(Instruction):
    """The reply begins with the prompt, in any case."""

    prompt_to_repeat: Phrase

    def _follows(self, reply: str) -> bool:
        return reply.strip().casefold().startswith(self.prompt_to_repeat.strip().casefold())


class TwoResponses(Instruction):
    """Two different answers with six asterisks between them; six more may stand before and behind both."""

    def _follows(self, reply: str) -> bool:
        parts = [part.strip() for part in reply.split("******")]
        answers = [part for part in parts if part]
        return all(parts[1:-1]) and len(answers) == 2 and answers[0] != answers[1]

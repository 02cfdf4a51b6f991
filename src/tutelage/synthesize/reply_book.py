"""Replies kept as they come, a line each, so that a synthesis that was killed pays for none twice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tutelage.errors import SaveError, cause_of, remedy
from tutelage.synthesize.generator import Generator, Reply, Request, as_json
from tutelage.system.line_log import append_line
from tutelage.system.seals import numbered_lines, sealed_line


class EndedError(Exception):
    """The generator answers no more, for a reason that is no fault: what was asked so far is kept."""


class ReplyBook:
    """The replies of one generator, in a file.

    A request that came to nothing is kept, too: asked again it might be answered, and all prompts that were made
    after it would be others. A line carries its own hash; half a line, as a killed process leaves it, was not written.

    Args:
        path: of the file.
        generator: who is asked what is not there yet.

    Raises:
        SaveError: the file is there and cannot be read.
    """

    def __init__(self, path: Path, generator: Generator) -> None:
        self.path, self.generator = path, generator
        self.known: dict[str, Reply] = {}
        self.tokens = 0
        self.requests = 0
        self.asked = 0
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise SaveError(
                "The replies so far cannot be read", where=str(path), found=cause_of(error),
                fix="see to the right to read them, or choose another folder with -o",
            ) from error  # fmt: skip
        for line in numbered_lines(data):
            if line.content is not None:
                key = line.content.pop("key")
                self.known[key] = Reply(**line.content)

    def ask(self, requests: Sequence[Request]) -> list[Reply]:
        """The reply to each request, from the file where it is there.

        Raises:
            EndedError: not all could be asked.
            EndpointError: the generator does not answer.
            SaveError: a reply cannot be kept.
        """
        keys = [request.key(self.generator.name) for request in requests]
        missing = [request for request, key in zip(requests, keys, strict=True) if key not in self.known]
        ended = self.generator.generate(missing, self._keep) if missing else None
        if ended is not None:
            raise EndedError(ended)
        replies = [self.known[key] for key in keys]
        self.requests += len(replies)
        self.tokens += sum(reply.tokens for reply in replies)
        return replies

    def _keep(self, request: Request, reply: Reply) -> None:
        key = request.key(self.generator.name)
        try:
            append_line(self.path, sealed_line({"key": key, **as_json(reply)}).encode())
        except OSError as error:
            raise SaveError(
                "A reply could not be saved; those before it are", where=str(self.path), found=cause_of(error),
                fix=remedy(error, elsewhere="choose another folder with -o"),
            ) from error  # fmt: skip
        self.known[key] = reply
        self.asked += 1

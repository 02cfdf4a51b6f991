"""Asks a person in a browser, on a page of this machine."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast, get_args

from tutelage.errors import SaveError
from tutelage.evaluate.pairwise.rating import Rating, Said
from tutelage.report.html.offline import own_parts, template
from tutelage.system.page_server import NOTHING, TEXT, PageAnswer, PageRequest, serve_pages


@dataclass(slots=True)
class RatingPage:
    """The page and what its buttons do, for one request at a time.

    Attributes:
        rating: of the rater.
        finished: set when the rater stops, as where all is rated.
        failure: a verdict that could not be saved; the page says so, and asks again.
        longest_body: bytes of the longest form.
    """

    rating: Rating
    finished: threading.Event = field(default_factory=threading.Event)
    failure: SaveError | None = None
    longest_body: int = 4096
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stopped: bool = False

    def shown(self) -> str:
        """The page as it is now."""
        with self._lock:
            question = None
            try:
                question = None if self._stopped else self.rating.question()
            except SaveError as error:  # of the tie of two equal replies
                self.failure, self._stopped = error, True
            return template("rating_page.html").render(
                question=question,
                is_over=self._stopped,
                rater=self.rating.rater,
                done=self.rating.done,
                total=self.rating.total,
                can_undo=self.rating.can_undo,
                problem=str(self.failure or ""),
                **own_parts(style=("page.css", "rating_page.css"), script=("rating_page.js",), has_forms=True),
            )

    def press(self, button: str, key: str) -> bool:
        """Do what a button of the question about this pair does; False where the page has no such button or pair."""
        with self._lock:
            self.failure = None
            try:
                if button == "quit":
                    self._stopped = True
                elif button == "undo":
                    self.rating.undo()
                elif button in get_args(Said) and (pair := self.rating.by_key(key)) is not None:
                    self.rating.say(pair, cast(Said, button))
                else:
                    return False
            except SaveError as error:
                self.failure = error
            return True

    @property
    def is_over(self) -> bool:
        """Whether the page that was shown last asks nothing more."""
        return self._stopped

    def answer(self, request: PageRequest) -> PageAnswer:
        """The page, or the press of a button."""
        if request.method == "GET" and not request.name:
            text = self.shown()
            # Behind the last page, which is with the browser by then.
            return PageAnswer(text, sent=self.finished.set) if self.is_over else PageAnswer(text)
        if request.method == "POST" and request.name == "say":
            fields = request.form()
            if self.press(fields.get("say", ""), fields.get("pair", "")):
                return PageAnswer(location="")
            return PageAnswer("no such button\n", 400, TEXT)
        return NOTHING


def rate_in_browser(rating: Rating, *, port: int = 0, announce: Callable[[str], None]) -> None:
    """Serve the page until the rater stops there, or by Ctrl-C; nothing is lost either way.

    Args:
        rating: of the rater.
        port: to listen on; 0 takes a free one.
        announce: told the address, which holds a secret: without it nothing is shown and no verdict is taken.

    Raises:
        ConfigError: the port cannot be had.
        SaveError: the last thing that was said could not be saved.
    """
    page = RatingPage(rating)
    serve_pages(page, page.finished, port=port, announce=announce)
    if page.failure is not None:
        raise page.failure

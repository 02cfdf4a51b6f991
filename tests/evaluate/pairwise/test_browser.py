from __future__ import annotations

import http.client
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest

from tests.support.compared_replies import pairing, replies
from tests.support.written_run import PageReader
from tutelage.errors import ConfigError, SaveError
from tutelage.evaluate.pairwise.browser import RatingPage, rate_in_browser
from tutelage.evaluate.pairwise.pairs import pair_replies
from tutelage.evaluate.pairwise.rating import Rating
from tutelage.evaluate.pairwise.verdicts import VerdictFile

PAIRS = pairing(3).pairs


def rating(folder: Path) -> Rating:
    return Rating(PAIRS, VerdictFile.open(folder), "anna")


class Browser:
    """One that follows redirects and fills the page's form."""

    def __init__(self, url: str) -> None:
        self.parts = urlsplit(url)

    def send(
        self, method: str, path: str, body: str | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, str]:
        connection = http.client.HTTPConnection(str(self.parts.hostname), self.parts.port, timeout=10)
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        if response.status == 303:
            assert response.headers["Location"] == self.parts.path
            return self.send("GET", self.parts.path)
        return response.status, text

    def load(self) -> str:
        status, text = self.send("GET", self.parts.path)
        assert status == 200
        return text

    def press(self, button: str, key: str | None = None) -> tuple[int, str]:
        if key is None:
            fields = [attributes for tag, attributes in PageReader(self.load()).elements if tag == "input"]
            key = str(fields[0]["value"])
        return self.send("POST", self.parts.path + "say", urlencode({"say": button, "pair": key}))


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[tuple[Browser, threading.Thread]]:
    addresses: queue.SimpleQueue[str] = queue.SimpleQueue()
    serving = threading.Thread(
        target=rate_in_browser, args=(rating(tmp_path),), kwargs={"announce": addresses.put}, daemon=True
    )
    serving.start()
    browser = Browser(addresses.get(timeout=10))
    yield browser, serving
    if serving.is_alive():
        browser.press("quit", "")
        serving.join(timeout=10)
    assert not serving.is_alive()


def test_three_buttons_rate_three_pairs_and_end_it(opened: tuple[Browser, threading.Thread], tmp_path: Path):
    browser, serving = opened
    for number, button in enumerate(("left", "tie", "right"), start=1):
        assert f"{number} of 3" in browser.load()
        status, text = browser.press(button)
        assert status == 200
    assert "Everything is rated" in text
    assert "close this page" not in text
    assert "3 of 3" in browser.press("undo", "")[1]
    browser.press("right")
    assert "close this page" in browser.press("quit", "")[1]
    serving.join(timeout=10)
    assert not serving.is_alive()
    kept = VerdictFile.open(tmp_path).verdicts
    assert [verdict.pair for verdict in kept] == [PAIRS[number].key for number in (0, 1, 2, 2, 2)]
    assert [verdict.choice == verdict.left for verdict in kept] == [True, False, False, False, False]
    assert kept[1].choice == "tie"


def test_take_back_and_stop(opened: tuple[Browser, threading.Thread], tmp_path: Path):
    browser, serving = opened
    browser.press("left")
    assert "3 of 3" in browser.press("skip")[1]
    assert "2 of 3" in browser.press("undo")[1]
    assert "What you said is saved" in browser.press("quit")[1]
    serving.join(timeout=10)
    assert [verdict.choice for verdict in VerdictFile.open(tmp_path).verdicts][1:] == ["skip", "undone"]


def test_an_answer_to_an_earlier_page_is_of_its_own_pair(opened: tuple[Browser, threading.Thread], tmp_path: Path):
    browser, _ = opened
    browser.press("left")
    browser.press("tie", PAIRS[0].key)
    held = VerdictFile.open(tmp_path).of("person", "anna")
    assert {key: verdict.choice for (key, _), verdict in held.items()} == {PAIRS[0].key: "tie"}
    assert "2 of 3" in browser.load()


def test_without_the_address_nothing_is_shown_and_nothing_taken(
    opened: tuple[Browser, threading.Thread], tmp_path: Path
):
    browser, _ = opened
    for path in ("/", "/say", "/wrong/", "/wrong/say", browser.parts.path[:-1], browser.parts.path + "x"):
        for method in ("GET", "POST"):
            status, text = browser.send(method, path, urlencode({"say": "left", "pair": PAIRS[0].key}))
            assert status == 404
            assert "short" not in text
    for host in ("evil.example", "evil.example:80", f"{browser.parts.hostname}.evil.example"):
        assert browser.send("GET", browser.parts.path, headers={"Host": host})[0] == 404
    assert browser.send("GET", browser.parts.path, headers={"Host": "localhost:1234"})[0] == 200  # through a tunnel
    assert VerdictFile.open(tmp_path).verdicts == []


def test_a_form_that_the_page_did_not_make_does_nothing(opened: tuple[Browser, threading.Thread], tmp_path: Path):
    browser, _ = opened
    assert browser.press("left", "no such pair")[0] == 400
    assert browser.press("burn", PAIRS[0].key)[0] == 400
    assert browser.send("POST", browser.parts.path + "say", "x" * 5000)[0] == 413
    assert browser.send("POST", browser.parts.path + "say", headers={"Content-Length": "-1"})[0] == 413
    assert VerdictFile.open(tmp_path).verdicts == []


def test_the_page_asks_nobody_else_and_runs_no_script_but_its_own(tmp_path: Path):
    reply = '<script>alert(1)</script><img src="http://evil.example/x">'
    pairs = pair_replies(replies("old", reply), replies("new", "")).pairs
    page = RatingPage(Rating(pairs, VerdictFile.open(tmp_path), "<b>anna</b>")).shown()
    found = PageReader(page)
    assert [tag for tag, _ in found.elements].count("script") == 1
    assert not {"img", "link", "iframe", "b"} & {tag for tag, _ in found.elements}
    assert "src" not in {name for _, attributes in found.elements for name in attributes}
    (policy,) = [a["content"] for _, a in found.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in str(policy)
    assert "form-action 'self'" in str(policy)
    assert "says nothing" in page
    assert "&lt;script&gt;alert(1)" in page


def test_the_page_never_says_whose_reply_it_is(tmp_path: Path):
    page = RatingPage(rating(tmp_path)).shown()
    visible = page.partition("<body")[2].partition("<script>")[0]
    assert "short" in visible
    assert not {"old", "new"} & set(visible.replace(":", " ").split())


def test_what_cannot_be_saved_is_said_and_asked_again(
    tmp_path: Path, files_at_most: Callable[[int], AbstractContextManager[None]]
):
    page = RatingPage(rating(tmp_path))
    page.shown()
    with files_at_most(0):
        assert page.press("left", PAIRS[0].key)
        shown = page.shown()
    assert "could not be saved" in shown
    assert "1 of 3" in shown
    assert isinstance(page.failure, SaveError)
    page.press("left", PAIRS[0].key)
    assert "could not be saved" not in page.shown()
    assert page.failure is None


def test_a_port_that_is_taken_is_told(opened: tuple[Browser, threading.Thread], tmp_path: Path):
    browser, _ = opened
    with pytest.raises(ConfigError, match="port"):
        rate_in_browser(rating(tmp_path), port=int(browser.parts.port or 0), announce=lambda _: None)

"""Prompts to write about, a workspace in a folder, and the page as a browser would send its forms."""

from __future__ import annotations

import http.client
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from tests.support.cli_process import environment
from tests.support.written_run import PageReader
from tutelage.annotate.asked import asked_prompts
from tutelage.annotate.events import EventLog
from tutelage.annotate.pages import WritingPages
from tutelage.annotate.workspace import Workspace
from tutelage.ledger import Ledger
from tutelage.system.page_server import Pages, serve_pages

PROMPTS: list[dict[str, Any]] = [
    {"prompt": "first question"},
    {
        "messages": [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "second"},
            {"role": "assistant", "content": "said before"},
            {"role": "user", "content": "and now?"},
        ]
    },
    {"instruction": "third", "output": "an old answer"},
    {"prompt": "fourth <script>alert(1)</script>"},
]


def write_prompts(folder: Path, rows: list[dict[str, Any]] = PROMPTS) -> Path:
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def workspace(folder: Path, **how: Any) -> Workspace:
    """What was written in `folder`, as a start of the program finds it."""
    asked = asked_prompts([str(write_prompts(folder))], ledger=Ledger())
    return Workspace(asked.prompts, EventLog.open(folder / "out"), **how)


@dataclass
class Page:
    """One page that is open: its form's hidden fields, and what is typed in it."""

    url: str
    html: str

    def fields(self) -> dict[str, str]:
        inputs = [attributes for tag, attributes in PageReader(self.html).elements if tag == "input"]
        return {str(each["name"]): str(each.get("value") or "") for each in inputs if each.get("name")}

    @property
    def text(self) -> str:
        """In the text area."""
        return self.html.split('spellcheck="true">\n')[1].split("</textarea>")[0]


class Annotator:
    """One person's browser."""

    def __init__(self, url: str, name: str) -> None:
        self.parts, self.name = urlsplit(url), name

    def send(self, method: str, path: str, body: str | bytes | None = None) -> tuple[int, str]:
        connection = http.client.HTTPConnection(str(self.parts.hostname), self.parts.port, timeout=10)
        connection.request(method, path, body, {})
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        if response.status == 303:
            return self.send("GET", str(response.headers["Location"]))
        return response.status, text

    def open(self, name: str = "write", **query: str) -> Page:
        url = f"{self.parts.path}{name}?{urlencode({'as': self.name, **query})}"
        status, html = self.send("GET", url)
        assert status == 200, html
        return Page(url, html)

    def type(self, page: Page, text: str) -> int:
        """What the page sends while somebody types."""
        fields = page.fields()
        after = int(fields["after"]) if fields["after"] else None
        body = {name: fields[name] for name in ("as", "prompt", "page", "began")} | {"text": text, "after": after}
        status, answer = self.send("POST", self.parts.path + "draft", json.dumps(body))
        assert status == 200, answer
        return int(json.loads(answer)["number"])

    def press(self, page: Page, button: str, **fields: str) -> tuple[int, str]:
        body = urlencode({**page.fields(), **fields, "do": button})
        return self.send("POST", self.parts.path + "submit", body)


@contextmanager
def served(pages: Pages, finished: threading.Event) -> Iterator[str]:
    """The address of the pages while the block runs."""
    addresses: queue.SimpleQueue[str] = queue.SimpleQueue()
    serving = threading.Thread(
        target=serve_pages, args=(pages, finished), kwargs={"announce": addresses.put}, daemon=True
    )
    serving.start()
    try:
        yield addresses.get(timeout=10)
    finally:
        finished.set()
        serving.join(timeout=10)
    assert not serving.is_alive()


@contextmanager
def forked(folder: Path) -> Iterator[tuple[int, str]]:
    """The pages of a folder served by a child of this process, with its id and address; killed behind the block."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            pages = WritingPages(workspace(folder), folder / "out")
            serve_pages(
                pages,
                pages.finished,
                announce=lambda url: print(url, file=os.fdopen(writing, "w"), flush=True),
                remembered=folder / ".address.json",
            )
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as told:
        url = told.readline().strip()
    try:
        yield child, url
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(child, 0)


@contextmanager
def started(folder: Path, *more: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The program in a process of its own, and its address; it is killed behind the block."""
    command = [sys.executable, "-m", "tutelage", "demonstrate", "prompts.jsonl", "-o", "out", *more]
    with subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        try:
            url = next((line.strip() for line in process.stderr if line.startswith("http://")), "")
            assert url, f"ended with {process.poll()}"
            yield process, url
        finally:
            if process.poll() is None:
                os.kill(process.pid, 9)

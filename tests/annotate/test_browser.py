"""The page in a real browser, and the program killed under it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.annotation import started, write_prompts

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-quic",
)  # fmt: skip

pytestmark = [
    pytest.mark.nightly,  # a browser and three starts of the program; tests/annotate/test_pages.py has the rest
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt install chromium"),
]


@pytest.fixture
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


def test_typing_autosave_kill_reload_two_tabs_and_submit(browser: Any, tmp_path: Path):
    write_prompts(tmp_path)
    from playwright.sync_api import expect

    faults: list[str] = []
    page = browser.new_page()
    page.on("pageerror", lambda error: faults.append(str(error)))
    with started(tmp_path) as (process, url):
        page.goto(url)
        page.fill("#as", "anna")
        page.keyboard.press("Enter")
        page.wait_for_selector("#text")
        page.keyboard.type("typed before the end")
        expect(page.locator("#status")).to_contain_text("Saved ")
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    page.keyboard.type(", and after it")  # nobody answers
    expect(page.locator(".problem")).to_contain_text("does not answer")
    with started(tmp_path) as (process, _):
        expect(page.locator(".problem")).to_be_hidden(timeout=20_000)  # by itself
        page.reload()
        assert page.input_value("#text") == "typed before the end, and after it"
        other = browser.new_page()
        other.goto(page.url)
        other.fill("#text", "in the other tab")
        expect(other.locator("#status")).to_contain_text("Saved ")
        page.fill("#text", "in the first tab")
        expect(page.locator("#status")).to_contain_text("Saved ")
        third = browser.new_page()
        third.goto(page.url)
        assert third.input_value("#text") == "in the first tab"
        assert third.locator("details.version .text").all_text_contents() == ["in the other tab"]
        page.keyboard.press("Control+Enter")
        expect(page.locator(".prompt")).to_contain_text("be brief")
        page.keyboard.type("closed while it was typed")
        page.close()  # before the pause behind the last key is over
        other.keyboard.press("Escape")
        other.keyboard.press("u")
        expect(other.locator("#text")).to_have_value("in the first tab")
        other.keyboard.press("Control+Enter")
        expect(other.locator(".prompt")).to_contain_text("be brief")
        expect(other.locator("#text")).to_have_value("closed while it was typed")
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(20) == 0
    (line,) = (tmp_path / "out" / "demonstrations.jsonl").read_text("utf-8").splitlines()
    assert json.loads(line)["messages"][-1]["content"] == "in the first tab"
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{22}/", url)
    assert faults == []

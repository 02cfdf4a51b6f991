from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.support.annotation import Annotator, forked, served, workspace, write_prompts
from tests.support.written_run import PageReader
from tutelage import formats
from tutelage.annotate.drafting import Drafting
from tutelage.annotate.guidelines import read_guidelines
from tutelage.annotate.pages import WritingPages
from tutelage.errors import ConfigError
from tutelage.ledger import Ledger
from tutelage.synthesize.generator import Reply, Request, Save


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    pages = WritingPages(workspace(tmp_path), tmp_path / "out")
    with served(pages, pages.finished) as address:
        yield address


def rows_of(folder: Path) -> list[Any]:
    """What training reads from the folder."""
    return list(formats.read([str(folder / "out")], ledger=Ledger()))


def test_what_is_written_and_submitted_is_a_row_that_training_reads(url: str, tmp_path: Path):
    anna = Annotator(url, "anna")
    page = anna.open()
    assert "first question" in page.html
    anna.type(page, "my rep")
    status, html = anna.press(page, "submit", text="my reply\r\nof two lines", seconds="12")
    assert status == 200
    assert "said before" in html
    assert "be brief" in html
    anna.press(anna.open(), "submit", text="now")
    first, second = rows_of(tmp_path)
    assert [(message.role, message.content) for message in first.messages] == [
        ("user", "first question"),
        ("assistant", "my reply\nof two lines"),
    ]
    assert [(message.role, message.weight) for message in second.messages] == [
        ("system", None),
        ("user", None),
        ("assistant", 0.0),  # what the row said before is context
        ("user", None),
        ("assistant", None),
    ]


def test_the_reply_of_a_row_is_there_to_be_revised(url: str, tmp_path: Path):
    anna = Annotator(url, "anna")
    for _ in range(2):
        anna.press(anna.open(), "skip", reason="not now")
    page = anna.open()
    assert page.text == "an old answer"
    anna.press(page, "submit", text="a new answer")
    (line,) = (tmp_path / "out" / "demonstrations.jsonl").read_text("utf-8").splitlines()
    assert json.loads(line)["metadata"]["began"] == "row"


def test_two_pages_keep_both_texts(url: str):
    anna = Annotator(url, "anna")
    one, two = anna.open(), anna.open()
    anna.type(one, "from the first")
    anna.type(two, "from the second")
    shown = anna.open()
    assert shown.text == "from the second"
    assert "from the first" in shown.html
    anna.press(one, "submit", text="from the first, done")
    anna.press(two, "submit", text="from the second, done")
    again = anna.open("write", prompt=one.fields()["prompt"])
    assert again.text == "from the second, done"
    assert "from the first, done" in again.html


def test_a_page_loaded_again_goes_on_from_its_text_and_shows_no_second_one(url: str):
    anna = Annotator(url, "anna")
    anna.type(anna.open(), "begun")
    again = anna.open()
    anna.type(again, "begun and gone on")
    last = anna.open()
    assert last.text == "begun and gone on"
    assert "in another window" not in last.html


def test_many_people_at_once_write_different_prompts_and_nothing_is_lost(tmp_path: Path):
    write_prompts(
        tmp_path, [{"prompt": f"question {number}"} for number in range(24 + 6)]
    )  # who is done holds one more
    from tutelage.annotate.asked import asked_prompts
    from tutelage.annotate.events import EventLog
    from tutelage.annotate.workspace import Workspace

    asked = asked_prompts([str(tmp_path / "prompts.jsonl")], ledger=Ledger())
    pages = WritingPages(Workspace(asked.prompts, EventLog.open(tmp_path / "out")), tmp_path / "out")

    def write_four(name: str) -> list[str]:
        person = Annotator(address, name)
        said = []
        for number in range(4):
            page = person.open()
            person.type(page, f"{name} begins")
            person.press(page, "submit", text=f"{name} {number}")
            said.append(f"{name} {number}")
        return said

    with served(pages, pages.finished) as address, ThreadPoolExecutor(6) as pool:
        said = [text for texts in pool.map(write_four, "abcdef") for text in texts]
    rows = rows_of(tmp_path)
    assert sorted(row.messages[-1].content for row in rows) == sorted(said)
    assert len({row.messages[0].content for row in rows}) == 24


def test_a_killed_program_loses_nothing_and_the_open_page_goes_on(tmp_path: Path):
    with forked(tmp_path) as (process, url):
        anna = Annotator(url, "anna")
        anna.press(anna.open(), "submit", text="handed in")
        page = anna.open()
        anna.type(page, "half a sente")
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    assert [row.messages[-1].content for row in rows_of(tmp_path)] == ["handed in"]
    with forked(tmp_path) as (process, url_again):
        assert url_again == url
        assert anna.open().text == "half a sente"
        anna.type(page, "half a sentence, and on")  # in the page that was open all the time
        anna.press(page, "submit", text="half a sentence, and on.")
    assert [row.messages[-1].content for row in rows_of(tmp_path)] == ["handed in", "half a sentence, and on."]
    assert (tmp_path / ".address.json").stat().st_mode & 0o077 == 0


def test_flag_needs_a_reason_undo_brings_the_text_back_and_later_puts_off(url: str):
    anna = Annotator(url, "anna")
    page = anna.open()
    assert anna.press(page, "flag")[0] == 400
    assert "and now?" in anna.press(page, "later")[1]
    page = anna.open()
    assert "first question" in page.html
    anna.press(page, "submit", text="oh no")
    assert "oh no" in anna.press(anna.open(), "undo")[1]
    anna.press(page, "flag", reason="spells a password")
    assert "spells a password" in anna.open("list").html


def test_search_finds_prompts_and_what_was_written(url: str):
    anna = Annotator(url, "anna")
    anna.press(anna.open(), "submit", text="about Éclairs")
    assert "1 prompts" in anna.open("list", q="éclairs FIRST").html
    assert "0 prompts" in anna.open("list", q="éclairs third").html


def test_ratings_are_of_others_and_progress_counts_them(url: str):
    anna, ben = Annotator(url, "anna"), Annotator(url, "ben")
    anna.press(anna.open(), "submit", text="a text to rate", seconds="30")
    assert "Nothing to rate" in anna.open("rate").html
    page = ben.open("rate")
    assert "a text to rate" in page.html
    assert "anna" not in page.html.replace('value="anna"', "")
    path = ben.parts.path + "score"
    assert ben.send("POST", path, urlencode({**page.fields(), "score": "8"}))[0] == 400
    assert "Nothing to rate" in ben.send("POST", path, urlencode({**page.fields(), "score": "6"}))[1]
    assert "0.5" in ben.open("progress").html


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("draft", "{", 400),
        ("draft", "[]", 400),
        ("draft", '{"as": "anna", "prompt": "none", "text": "x", "page": "p"}', 400),
        ("draft", '{"prompt": "none"}', 400),
        ("submit", "as=anna&do=submit&prompt=none&text=x", 400),
        ("submit", "do=undo", 400),
        ("burn", "", 404),
    ],
)
def test_forms_that_no_page_made_do_nothing(url: str, tmp_path: Path, path: str, body: str, status: int):
    anna = Annotator(url, "anna")
    assert anna.send("POST", anna.parts.path + path, body)[0] == status
    assert anna.send("POST", f"/{'x' * 22}/{path}", body)[0] == 404
    assert not (tmp_path / "out").exists()


def test_an_empty_text_is_no_demonstration_and_half_a_character_is_replaced(url: str, tmp_path: Path):
    anna = Annotator(url, "anna")
    page = anna.open()
    assert anna.press(page, "submit", text=" \n ")[0] == 400
    fields = page.fields()
    body = {name: fields[name] for name in ("as", "prompt", "page", "began")} | {"text": "a\ud800b\x00", "after": None}
    assert anna.send("POST", anna.parts.path + "draft", json.dumps(body))[0] == 200
    assert anna.open().text == "a\ufffdb\ufffd"
    assert workspace(tmp_path).lost == 0


def test_the_page_runs_no_script_but_its_own_whatever_is_in_the_texts(url: str):
    anna = Annotator(url, "<b>\"anna'</b>")
    for _ in range(3):
        anna.press(anna.open(), "submit", text='<img src="http://evil.invalid/x">')
    for name in ("write", "list", "progress"):
        html = anna.open(name).html
        tags = [tag for tag, _ in PageReader(html).elements]
        assert tags.count("script") == 1
        assert not {"img", "link", "iframe", "b"} & set(tags)
        (policy,) = [a["content"] for _, a in PageReader(html).elements if a.get("http-equiv")]
        assert "default-src 'none'" in str(policy)
        assert "connect-src 'self'" in str(policy)


def test_guidelines_are_markdown_without_html_of_their_own(tmp_path: Path):
    path = tmp_path / "rules.md"
    path.write_text("# Be\n*kind* <script>x</script> [a](javascript:x)\n\n|a|b|\n|-|-|\n|1|2|\n", "utf-8")
    html = str(read_guidelines(path))
    assert "<h1>Be</h1>" in html
    assert "<em>kind</em>" in html
    assert "<table>" in html
    assert "<script>" not in html
    assert "href" not in html
    plain = tmp_path / "rules.txt"
    plain.write_text("# not <b>", "utf-8")
    assert str(read_guidelines(plain)) == '<p class="text"># not &lt;b&gt;</p>'
    with pytest.raises(ConfigError, match="cannot be read"):
        read_guidelines(tmp_path / "none.md")


class Drafter:
    name = "some-model"

    def __init__(self, *texts: str | None) -> None:
        self.texts, self.asked = list(texts), []

    def generate(self, requests: Sequence[Request], save: Save) -> str | None:
        for request in requests:
            self.asked.append([message["role"] for message in request.messages])
            save(request, Reply(self.texts.pop(0), 1, "it is tired"))
        return None


def test_a_draft_of_a_model_is_asked_for_once_and_marked(tmp_path: Path):
    drafter = Drafter(None, "a model\u2019s words")
    pages = WritingPages(workspace(tmp_path), tmp_path / "out", drafting=Drafting(drafter))
    with served(pages, pages.finished) as url:
        anna = Annotator(url, "anna")
        page = anna.open()
        assert "Draft of some-model" in page.html
        path, body = anna.parts.path + "suggest", urlencode(page.fields())
        status, text = anna.send("POST", path, body)
        assert (status, "it is tired" in text) == (502, True)
        for _ in range(2):
            status, text = anna.send("POST", path, body)
            assert (status, json.loads(text)) == (200, {"began": "model some-model", "text": "a model\u2019s words"})
        anna.press(page, "submit", text="better words", began="model some-model")
    assert drafter.asked == [["user"], ["user"]]
    (line,) = (tmp_path / "out" / "demonstrations.jsonl").read_text("utf-8").splitlines()
    assert json.loads(line)["metadata"]["began"] == "model some-model"

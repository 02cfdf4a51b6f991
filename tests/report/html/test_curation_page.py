"""The page of a curation: every text is text, the data can be read back, the same overview is the same bytes."""

from __future__ import annotations

import base64
import gzip
import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tutelage.config.curation import CurateSettings
from tutelage.curate.out_folder import HASHES, PAGE
from tutelage.curate.pipeline import curate
from tutelage.curate.request import CurationRequest
from tutelage.report.html import chart_library
from tutelage.report.html.curation_page import CurationPage
from tutelage.report.html.curation_steps import histograms
from tutelage.report.html.offline import BEGINNING

HOSTILE = "</script><script>alert(1)</script><!-- <img src=x onerror=alert(2)> \u2028 &amp; {{ 7*7 }} ]]> \" ' 🙂"
STEPS = ["normalize", "quality", "exact_duplicates", "consistency"]
needs_bokeh = pytest.mark.skipif(not chart_library.library_scripts(), reason="bokeh is not installed")


def conversation(prompt: str, reply: str) -> str:
    return json.dumps({"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": reply}]})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Rows that are hostile and twice there, refused, contradictory, and mended."""
    lines = [conversation(f"What is {number} and {number}?", f"It is {2 * number}.") for number in range(8)]
    lines += [conversation(f"{HOSTILE} says what?", f"It says {HOSTILE} and no more.")] * 3
    lines += [conversation("Say more?", "I am sorry, but as an AI language model I cannot.")]
    lines += [conversation(f"Which? {HOSTILE}", answer) for answer in ("Left.", "Right.")]
    lines += [conversation("Who is it?", f"It is Tom &amp; Jerry {number}.") for number in range(2)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def page_of(source: Path, out: Path, **changed: Any) -> str:
    settings = CurateSettings(steps=STEPS)
    curate(CurationRequest((str(source),), out, settings, **({"workers": 1} | changed)), page=CurationPage())
    return (out / PAGE).read_text(encoding="utf-8")


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="text/plain" id="data">([^<]*)</script>', page)
    assert found is not None
    data: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(found[1])))
    return data


class Elements(HTMLParser):
    """Names of elements, and text outside of scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[str] = []
        self.text = ""
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += [name for name, _ in attrs]
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside not in ("script", "style"):
            self.text += data


def test_a_hostile_row_is_text_wherever_it_stands(source: Path, tmp_path: Path) -> None:
    page = page_of(source, tmp_path / "out")
    elements = Elements(page)
    assert "img" not in elements.names
    assert not [name for name in elements.attributes if name.startswith("on")]
    assert elements.names.count("script") == 2 + len(chart_library.library_scripts())
    assert "alert(1)" in elements.text
    assert "{{ 7*7 }}" in elements.text
    hostile = [row for row in data_of(page)["rows"] if "alert(2)" in str(row)]
    assert all("<img src=x onerror=alert(2)>" in turns[0][1] for *_, turns in hostile)
    assert len(hostile) == 6  # one of three that is kept, as such and as an anchor, two that went, two that contradict


def test_the_data_of_the_map_can_be_read_back(source: Path, tmp_path: Path) -> None:
    data = data_of(page_of(source, tmp_path / "out"))
    numbers = data["map"]["rows"]
    assert len(numbers) == len(data["map"]["x"]) == len(data["map"]["y"]) == len(data["map"]["topics"])
    states = [data["rows"][number][1] for number in numbers]
    assert states.count("exact_duplicate") == 2
    assert states.count("refusal") == 1
    assert data["rows"][numbers[states.index("refusal")]][0] == f"{source}:12"
    for lengths in data["lengths"].values():
        assert len(lengths["edges"]) == len(lengths["before"]) + 1 == len(lengths["after"]) + 1
        assert sum(lengths["before"]) == pytest.approx(1, abs=1e-3)
        assert sum(lengths["after"]) == pytest.approx(1, abs=1e-3)


def test_every_part_is_there(source: Path, tmp_path: Path) -> None:
    text = Elements(page_of(source, tmp_path / "out")).text
    for words in (
        "13 of 16 rows are kept",
        "refusal",
        "exact_duplicates of",
        "html_entities",
        "not stated",
        "contradict: 1",
    ):
        assert words in text, words


def test_what_steps_chose_weighed_and_parted_is_shown(source: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    lines = [conversation(f"Name the number {number} in words.", "It is " + "so " * number) for number in range(1, 9)]
    other.write_text("\n".join(lines), encoding="utf-8")
    table = {
        "steps": ["select", "split", "mix"],
        "select": {"keep": 12, "method": "longest"},
        "split": {"train": 0.75, "validation": 0.25, "test": 0.0},
        "mix": {"weights": {str(other): 2.0}},
    }
    out = tmp_path / "out"
    settings = CurateSettings.model_validate(table)
    curate(CurationRequest((str(source), str(other)), out, settings, workers=1), page=CurationPage())
    elements = Elements((out / PAGE).read_text(encoding="utf-8"))
    chosen, mixed = (json.loads((out / f"{name}.json").read_text(encoding="utf-8")) for name in ("select", "mix"))
    assert (chosen["coverage"]["chosen"], chosen["coverage"]["following"]) == (12, 12)
    assert 0 < chosen["coverage"]["now"]["topics"] <= chosen["coverage"]["then"]["topics"] == 1
    text = " ".join(elements.text.replace("\u00a0", " ").split())
    assert "chosen 12" in text
    assert "with the next 12" in text
    assert "Split, cluster by cluster" in text
    assert f"{100 * mixed['sources'][str(other)]['share']:.1f} %" in text
    assert "Times each" in text


def test_scores_are_drawn_as_bars_of_their_rows() -> None:
    scored = {"histograms": {"ifd": {"edges": [0.0, 0.5, 1.0], "rows": [1, 4]}, "reply_loss": {}}}
    drawn, judged = histograms({"model_scores": scored, "judge": {"scores": {"quality": {"2": 3, "5": 1}}}})
    assert [(column.name, column.rows, column.height) for column in drawn.columns] == [
        ("0 to 0.5", 1, 0.25), ("0.5 to 1", 4, 1.0),
    ]  # fmt: skip
    assert (judged.name, judged.rows, judged.columns[1].height) == ("quality, by the judge", 4, 1 / 3)
    assert histograms({}) == []


def test_the_same_curation_gives_the_same_page(source: Path, tmp_path: Path) -> None:
    first = page_of(source, tmp_path / "one")
    assert page_of(source, tmp_path / "two", workers=2, chunk_rows=5) == first


def test_the_page_is_sealed_and_another_curation_replaces_it(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    page_of(source, out)
    assert PAGE in json.loads((out / HASHES).read_text(encoding="utf-8"))["files"]
    curate(CurationRequest((str(source),), out, CurateSettings(steps=STEPS), workers=1))
    assert not (out / PAGE).exists()
    assert page_of(source, out).startswith(BEGINNING)


@needs_bokeh
def test_no_script_but_the_page_s_own_may_run(source: Path, tmp_path: Path) -> None:
    page = page_of(source, tmp_path / "out")
    found = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert found is not None
    policy = html.unescape(found[1])
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-")
    script_policy = policy.split("script-src ")[1].split(";")[0].split()
    assert all(source.startswith("'sha256-") for source in script_policy)
    assert len(script_policy) == 1 + len(chart_library.library_scripts())


def test_without_the_chart_library_there_are_tables(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chart_library, "find_spec", lambda _name: None)
    page = page_of(source, tmp_path / "out")
    assert "pip install" in page
    assert 'id="map"' not in page
    assert "style-src 'sha256-" in html.unescape(page)
    assert "13 of 16 rows are kept" in page
    assert len(data_of(page)["rows"]) == 17


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium, which opens the page where there is one")
def test_a_browser_opens_a_row_and_runs_nothing_of_it(source: Path, tmp_path: Path) -> None:
    page = tmp_path / "out" / PAGE
    rows = data_of(page_of(source, tmp_path / "out"))["rows"]
    number = next(number for number, row in enumerate(rows) if "alert(2)" in str(row) and row[1] != "kept")
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    asked = ["chromium", *flags, "--virtual-time-budget=5000", "--dump-dom", f"{page.as_uri()}#row-{number}"]
    done = subprocess.run(asked, check=True, capture_output=True, timeout=120)
    reader = done.stdout.decode().split('<aside id="reader"')[1].split("</aside>")[0]
    assert f"{source}:" in reader
    assert "It says &lt;/script&gt;&lt;script&gt;alert(1)" in reader
    assert "<img" not in reader
    assert 'class="bk-' in done.stdout.decode() or not chart_library.library_scripts()


KEYS = """<script>setTimeout(() => {
  const map = document.getElementById("map-chart");
  const seen = ["ArrowRight", "ArrowRight", "ArrowLeft", "ArrowUp", "Enter"].map((key) => {
    map.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
    return document.getElementById("map-said").textContent;
  });
  document.title = JSON.stringify([seen, document.getElementById("reader-address").textContent]);
}, 2000);</script>"""


@needs_bokeh
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium, which opens the page where there is one")
def test_keys_go_over_the_map_and_open_a_row(source: Path, tmp_path: Path) -> None:
    page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page_of(source, tmp_path / "out"))
    file = tmp_path / "keys.html"
    file.write_text(page.replace("</body>", f"{KEYS}</body>"), encoding="utf-8")
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    asked = ["chromium", *flags, "--virtual-time-budget=8000", "--dump-dom", file.as_uri()]
    done = subprocess.run(asked, check=True, capture_output=True, timeout=120).stdout.decode()
    seen, opened = json.loads(html.unescape(done.split("<title>")[1].split("</title>")[0]))
    assert len(set(seen)) > 1, "an arrow goes to another point"
    assert seen[-1].startswith(f"{opened}, "), "Enter opens the row that was said"
    assert f"{source}:" in opened


@pytest.mark.skipif(shutil.which("node") is None, reason="node reads the script where there is one")
def test_the_script_can_be_read(tmp_path: Path) -> None:
    script = Path(chart_library.__file__).with_name("curation_page.js")
    subprocess.run(["node", "--check", str(script)], check=True, capture_output=True)

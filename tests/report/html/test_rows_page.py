from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.builders.renderer import renderer_for
from tutelage.config import RenderSettings
from tutelage.errors import ConfigError, SaveError
from tutelage.ledger import Ledger
from tutelage.render import Renderer
from tutelage.render.token_roles import ROLES
from tutelage.report.html.offline import BEGINNING
from tutelage.report.html.page import Fact
from tutelage.report.html.rows_page import RAW_CHARACTERS, PageRows, packed, render_rows, write_rows
from tutelage.types import Address, Conversation, Drop, Message, Proven

HOSTILE = (
    "</script><script>alert(1)</script><!-- <img src=x onerror=alert(2)> \u2028 &amp; {{ 7*7 }} ]]> \" ' 🙂 \x1b[31m"
)
ORIGIN = (Fact("Model", "tiny"), Fact("Chat template", HOSTILE))
OLD = BEGINNING + "old"
SCRIPTS = Path(__file__).resolve().parents[3] / "src/tutelage/report/html"


@pytest.fixture(scope="module")
def renderer(tiny_tokenizer_folder: Path) -> Renderer:
    return renderer_for(tiny_tokenizer_folder, RenderSettings(control_tokens="keep"))


def talk(file: str, number: int, *messages: Message) -> Conversation:
    return Conversation(messages, Address(file, number))


def gathered(renderer: Renderer, *conversations: Conversation, drops: tuple[Drop, ...] = ()) -> tuple[PageRows, Ledger]:
    """The rows as `see --html` hands them over; drops are heard first, as those of a reader are."""
    seen = PageRows(renderer)
    ledger = Ledger(listener=seen.hear)
    for drop in drops:
        ledger.enter()
        ledger.drop(drop)
    for conversation, outcome in zip(conversations, renderer.prove(conversations), strict=True):
        assert isinstance(outcome, Proven)
        ledger.enter()
        for change in outcome.changes:
            ledger.change(change)
        ledger.keep()
        seen.keep(conversation, outcome.examples)
    ledger.check()
    return seen, ledger


def unpacked(text: str) -> list[int]:
    """The other way of `packed`, written from the description alone."""
    numbers, value, shift = [], 0, 0
    for byte in base64.b64decode(text):
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            numbers.append(value)
            value, shift = 0, 0
    return numbers


def spread(runs: list[float]) -> list[float]:
    return [value for value, count in zip(runs[::2], runs[1::2], strict=True) for _ in range(int(count))]


@pytest.fixture
def page_of(tmp_path: Path, read_page: Callable[[Path], Any]) -> Callable[..., tuple[Any, dict[str, Any]]]:
    """The page of some rows, parsed, and the rows that it holds."""

    def page_of(seen: PageRows, ledger: Ledger, title: str = "rows.jsonl") -> tuple[Any, dict[str, Any]]:
        path = tmp_path / "rows.html"
        write_rows(path, seen, ledger, title=title, origin=ORIGIN)
        page = read_page(path)
        return page, json.loads(page.scripts["data"])

    return page_of


SPLIT = (("user", "a"), ("assistant", "  b"), ("user", "c"), ("assistant", "d"))
"""The tokenizer merges the spaces of the first reply with the line end before it, and a server cannot."""

MIXED = (
    talk("a.jsonl", 2, Message("user", "hi"), Message("assistant", "yes 🙂")),
    talk("a.jsonl", 1, Message("user", HOSTILE), Message("assistant", HOSTILE, weight=0.5)),
    talk(
        "b.jsonl", 7, Message("user", "a"), Message("assistant", "  b"), Message("user", "c"), Message("assistant", "d")
    ),
)
DROPS = (
    Drop(Address("b.jsonl", 3), "bad_json", f"found {HOSTILE}"),
    Drop(Address("b.jsonl", 9), "no_reply", "no assistant turn"),
)


def test_the_page_holds_every_id_weight_and_turn(renderer: Renderer, page_of: Callable[..., Any]) -> None:
    _, data = page_of(*gathered(renderer, *MIXED, drops=DROPS))
    by_address = {data["files"][row[0]] + row[1]: row for row in data["rows"]}
    for conversation, outcome in zip(MIXED, renderer.prove(MIXED), strict=True):
        sequences = by_address[str(conversation.address)][3]
        assert len(sequences) == len(outcome.examples)
        for example, (tokens, length, trained, turns, weights, roles, traced) in zip(
            outcome.examples, sequences, strict=True
        ):
            places = unpacked(tokens)
            assert [data["ids"][place] for place in places] == example.ids.tolist()
            assert "".join(data["texts"][place] for place in places) == renderer.tokenizer.decode(example.ids.tolist())
            assert spread(weights) == example.weights.tolist()
            assert (length, trained, traced) == (len(example.ids), example.trained_tokens, 1)
            assert len(spread(roles)) == length
            assert turns == [
                number for turn in example.turns for number in (turn.message, turn.prompt_end, turn.reply_end, 1)
            ]


def test_rows_stand_in_the_order_of_their_files(renderer: Renderer, page_of: Callable[..., Any]) -> None:
    _, data = page_of(*gathered(renderer, *MIXED, drops=DROPS))
    assert [data["files"][row[0]] + row[1] for row in data["rows"]] == [
        "b.jsonl:3", "b.jsonl:7", "b.jsonl:9", "a.jsonl:1", "a.jsonl:2",
    ]  # fmt: skip


def test_dropped_and_changed_rows_say_why(renderer: Renderer, page_of: Callable[..., Any]) -> None:
    page, data = page_of(*gathered(renderer, *MIXED, drops=DROPS))
    rows = {data["files"][row[0]] + row[1]: row for row in data["rows"]}
    reason, detail, raw = rows["b.jsonl:3"][3:]
    assert (data["reasons"][reason], detail, raw) == ("bad_json", f"found {HOSTILE}", "")
    ((change, said),) = rows["b.jsonl:7"][2]
    assert data["reasons"][change] == "split"
    assert said.startswith("2 sequences")
    assert "5 rows in = 3 kept + 2 dropped" in page.text
    assert "✗ dropped: bad_json 1" in page.text
    assert "changed: split 1" in page.text


def test_a_dropped_line_is_shown_as_it_lies_in_the_file(
    renderer: Renderer, page_of: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{{\n{HOSTILE}\n{'x' * 2000}\n", "utf-8")
    drops = [Drop(Address(str(path), number), "bad_json", "") for number in (1, 3)]
    _, data = page_of(*gathered(renderer, drops=tuple(drops)))
    assert [row[5] for row in data["rows"]] == ["{", "x" * RAW_CHARACTERS + " ..."]


def test_the_summary_is_the_sum_of_the_rows(renderer: Renderer, page_of: Callable[..., Any]) -> None:
    page, data = page_of(*gathered(renderer, *MIXED, drops=DROPS))
    sequences = [sequence for row in data["rows"] if isinstance(row[3], list) for sequence in row[3]]
    exact = [float(value) for value, _ in page.exact]
    assert exact == [
        len(sequences),
        sum(sequence[1] for sequence in sequences),
        sum(sequence[2] for sequence in sequences),
    ]
    by_role = dict.fromkeys(ROLES, 0)
    for one in sequences:
        for code in spread(one[5]):
            by_role[ROLES[int(code)]] += 1
    for role, tokens in by_role.items():
        share = f"{100 * tokens / exact[1]:.1f}\u00a0%"
        assert (f"{role} {share} {tokens:,}" in page.text) == (tokens > 0), role


def test_everything_from_the_rows_is_escaped(
    renderer: Renderer, tmp_path: Path, read_page: Callable[[Path], Any], page_of: Callable[..., Any]
) -> None:
    seen, ledger = gathered(renderer, *MIXED, drops=DROPS)
    ledger.note(HOSTILE)
    page, data = page_of(seen, ledger, title=HOSTILE)
    assert [tag for tag, _ in page.elements].count("script") == 2
    assert not [tag for tag, _ in page.elements if tag in ("img", "iframe", "object", "embed", "link", "base")]
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert page.text.count("alert(1)") >= 3
    text = (tmp_path / "rows.html").read_text(encoding="utf-8")
    block = text.split('id="data">')[1].split("</script>")[0]
    assert not set(block) & set("<>&\u2028\u2029")
    assert json.loads(block) == data


def test_half_characters_do_not_stop_the_page(renderer: Renderer, tmp_path: Path) -> None:
    seen, ledger = gathered(renderer, drops=(Drop(Address("\udcff.jsonl", 1), "bad_json", "x \ud800"),))
    size = write_rows(tmp_path / "rows.html", seen, ledger, title="\udcff.jsonl", origin=())
    content = (tmp_path / "rows.html").read_bytes()
    assert len(content) == size
    assert b"x \\ud800" in content


def test_the_page_is_whole_in_itself(renderer: Renderer, tmp_path: Path, page_of: Callable[..., Any]) -> None:
    page, _ = page_of(*gathered(renderer, *MIXED, drops=DROPS))
    for tag, attributes in page.elements:
        assert "src" not in attributes, tag
        assert "style" not in attributes, tag
        href = attributes.get("href")
        assert href is None or href.startswith("#"), href
    policy = next(a["content"] for tag, a in page.elements if tag == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    for name in ("rows_page.html", "rows_page.css", "rows_data.js", "rows_page.js"):
        addresses = re.findall(r"https?://[\w./]+|@import|url\(|fetch\(|innerHTML", (SCRIPTS / name).read_text("utf-8"))
        assert set(addresses) <= {"http://www.w3.org/2000/svg"}, name  # the name of a vocabulary, never fetched


def test_every_control_has_a_name_and_ids_are_unique(renderer: Renderer, page_of: Callable[..., Any]) -> None:
    page, _ = page_of(*gathered(renderer, *MIXED))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    roles = {attributes.get("role") for _, attributes in page.elements}
    assert {"listbox", "search", "status"} <= roles
    script = (SCRIPTS / "rows_page.js").read_text("utf-8")
    assert set(re.findall(r'element\("([\w-]+)"\)', script)) <= set(ids)


@pytest.mark.parametrize("drops", [(), DROPS])
def test_no_kept_rows_still_make_a_page(
    renderer: Renderer, page_of: Callable[..., Any], drops: tuple[Drop, ...]
) -> None:
    page, data = page_of(*gathered(renderer, drops=drops))
    assert f"{len(drops)} rows in = 0 kept + {len(drops)} dropped" in page.text
    assert len(data["rows"]) == len(drops)


def test_the_same_rows_give_the_same_page(renderer: Renderer) -> None:
    first, second = (
        render_rows(*gathered(renderer, *MIXED, drops=DROPS), title="rows", origin=ORIGIN) for _ in range(2)
    )
    assert first == second


def test_a_page_takes_the_place_of_the_old_one_in_one_move(
    renderer: Renderer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.html"
    path.write_text(OLD, "utf-8")

    def full(source: Any, target: Any) -> None:
        assert path.read_text("utf-8") == OLD
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(SaveError, match="could not be written") as caught:
        write_rows(path, *gathered(renderer, *MIXED), title="rows", origin=())
    assert caught.value.found == "No space left on device"
    assert [path.name for path in tmp_path.iterdir()] == ["rows.html"]
    assert path.read_text("utf-8") == OLD


def test_a_folder_is_no_place_for_a_page(renderer: Renderer, tmp_path: Path) -> None:
    rows = gathered(renderer, *MIXED)
    with pytest.raises(ConfigError, match="this is a folder") as caught:
        write_rows(tmp_path, *rows, title="rows", origin=())
    assert caught.value.fix == f"--html {tmp_path / 'rows.html'}"
    with pytest.raises(ConfigError, match="is not there"):
        write_rows(tmp_path / "nowhere" / "rows.html", *rows, title="rows", origin=())
    assert list(tmp_path.iterdir()) == []


@given(st.lists(st.integers(0, 2**28 - 1), max_size=50))
def test_numbers_are_packed_and_come_back(numbers: list[int]) -> None:
    content = packed(np.asarray(numbers, dtype=np.int64))
    assert unpacked(base64.b64encode(content).decode()) == numbers
    assert len(content) == sum(max(1, (number.bit_length() + 6) // 7) for number in numbers)


@pytest.mark.skipif(shutil.which("node") is None, reason="node, which runs the page's script here, is not installed")
def test_the_script_unpacks_what_was_packed(renderer: Renderer, page_of: Callable[..., Any]) -> None:
    seen, ledger = gathered(renderer, *MIXED, drops=DROPS)
    page, _ = page_of(seen, ledger)
    driver = """
    const content = require("fs").readFileSync(0, "utf8");
    globalThis.document = { getElementById: () => ({ textContent: content }) };
    const rows = eval(require("fs").readFileSync(process.argv[1], "utf8") + "; packedRows");
    const out = [];
    for (let index = 0; index < rows.length; index += 1) {
      const row = rows.row(index);
      out.push({ address: row.address, drop: row.drop && rows.reasons[row.drop.reason], search: rows.searchText(index),
        sequences: row.sequences.map((one) => { const { tokens, weights, text } = one.unpack();
          return { ids: Array.from(tokens, (token) => rows.ids[token]), weights: Array.from(weights), text,
            turns: one.turns.map((turn) => [turn.message, turn.from, turn.to, turn.stops]) }; }) });
    }
    console.log(JSON.stringify(out));
    """
    ran = subprocess.run(
        ["node", "-e", driver, str(SCRIPTS / "rows_data.js")],
        input=page.scripts["data"], capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    rows = {row["address"]: row for row in json.loads(ran.stdout)}
    assert rows["b.jsonl:3"]["drop"] == "bad_json"
    assert "alert(1)" in rows["b.jsonl:3"]["search"]
    for conversation, outcome in zip(MIXED, renderer.prove(MIXED), strict=True):
        row = rows[str(conversation.address)]
        for example, sequence in zip(outcome.examples, row["sequences"], strict=True):
            assert sequence["ids"] == example.ids.tolist()
            assert sequence["weights"] == example.weights.tolist()
            assert sequence["text"] == renderer.tokenizer.decode(example.ids.tolist())
            assert sequence["text"].lower() in row["search"]
            assert sequence["turns"] == [
                [turn.message, turn.prompt_end, turn.reply_end, True] for turn in example.turns
            ]

from __future__ import annotations

import json
import os
import re
from xml.etree import ElementTree

import pytest

from tutelage.errors import SaveError, SourceNotFoundError
from tutelage.report import write
from tutelage.report.html.page import script_json

HOSTILE = (
    '</script><script>alert(1)</script>" onmouseover="alert(2)\' javascript:alert(3) '
    "<img src=x onerror=y> \u2028 &amp; {{ 7*7 }}"
)


def words(page):
    return page.text.replace("\u00a0", " ").replace("\u2212", "-")


def test_the_figures_are_those_of_the_result(run, read_page):
    page = read_page(write(run))
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    exact = {float(value) for value, _ in page.exact}
    for side in ("before", "after"):
        for key in ("exact_match", "valid_json", "heldout_loss", "general"):
            assert result[side][key] in exact
    for key in (
        "elapsed_seconds",
        "steps",
        "tokens_per_second",
        "trained_tokens",
        "total_tokens",
        "peak_bytes",
        "seed",
    ):
        assert result[key] in exact
    rows = {
        key: [cell.replace("\u00a0", " ").replace("\u2212", "-") for cell in row]
        for key, row in page.score_rows.items()
    }
    assert rows["exact_match"] == ["Whole-row exact match", "0.0 %", "81.0 %", "+81.0 points", "▲ better"]
    assert rows["heldout_loss"] == ["Held-out loss", "2.310", "0.120", "-2.190", "▲ better"]
    assert rows["general"][1:3] == ["41.3 %", "38.8 %"]
    assert rows["general"][4] == "▼ worse"
    assert rows["field-urgent"] == ["Field urgent", "not measured", "50.0 %", "unknown", "– not judged"]


def test_a_run_that_was_resumed_says_how_often(run, rewrite, read_page):
    assert "Resumed" not in words(read_page(write(run)))
    rewrite("result.json", resumed=2, elapsed_seconds=7384.0)

    page = "".join(words(read_page(write(run))).split())

    assert "Resumedtwice" in page
    assert "Time2h03min" in page


def test_shares_have_their_intervals_and_verdicts(run, rewrite, read_page):
    change = {
        "range": {"low": -0.039, "high": 0.145}, "fixed": 8, "broken": 4, "p_value": 0.39, "adjusted_p": 1.0,
        "verdict": "not shown", "smallest_detectable": 0.145,
    }  # fmt: skip
    share = {"items": 80, "before": {"low": 0.311, "high": 0.522}, "after": {"low": 0.357, "high": 0.571}}
    lost = {**change, "verdict": "lost", "range": {"low": -0.4, "high": -0.1}}
    shares = {"general": {**share, "change": change}, "exact_match": {**share, "change": lost}}
    rewrite("result.json", uncertainty={"level": 0.95, "margin": 0.05, "power": 0.8, "shares": shares, "fields": {}})

    page = read_page(write(run))

    rows = {
        key: [cell.replace("\u00a0", " ").replace("\u2212", "-") for cell in row]
        for key, row in page.score_rows.items()
    }
    assert rows["general"] == [
        "General set", "41.3 % 31.1 to 52.2 %", "38.8 % 35.7 to 57.1 %", "-2.6 points -3.9 to +14.5",
        "? not shown 8 fixed, 4 broken of 80 items; they would show 14.5 points or more",
    ]  # fmt: skip
    assert rows["exact_match"][-1] == "▼ lost 8 fixed, 4 broken of 80 items"
    assert rows["heldout_loss"][-1] == "▲ better"
    assert "95 % interval (Wilson" in words(page)
    assert "Holm's adjustment for 2 changes" in words(page)
    assert "Missing, damaged or at odds" not in page.text


def test_the_page_opens_with_the_outcome_in_one_sentence(run, read_page):
    assert "Whole-row exact match 0.0 % → 81.0 %; held-out loss 2.310 → 0.120; general set 41.3 % → 38.8 %." in words(
        read_page(write(run))
    )


def test_a_whole_run_shows_every_part(run, read_page):
    page = read_page(write(run))
    text = words(page)
    for expected in (
        "labels, small",
        "1,000 rows in = 988 kept + 12 dropped",
        "same as train.jsonl:12",
        "trained 57,213 (24.2 %)",
        "best: step 20",
        "heldout.jsonl:1",
        '✗ order: "K4812", wanted "K4821"',
        "2 of 4 tokens trained",
        "2,442,240 (1.8 %)",
        "2.47 GiB",
        "3 min 24 s",
        "a3" * 32,
        "5f2c1de0",
        "torch",
        "epochs = 3",
    ):
        assert expected in text
    assert "Missing, damaged or at odds" not in text
    charts = [attributes["data-chart"] for tag, attributes in page.elements if tag == "figure"]
    assert charts == ["loss", "learning-rate", "gradient-norm", "speed", "peak-memory"]
    assert os.path.getsize(run / "report.html") < 400_000


def test_everything_from_the_files_is_escaped(run, rewrite, read_page):
    rewrite(
        "result.json",
        name=HOSTILE,
        model=HOSTILE,
        device=HOSTILE,
        versions={HOSTILE: HOSTILE},
        data_sha256={HOSTILE: HOSTILE},
        before={"fields": {HOSTILE: 0.5}, HOSTILE: 1},
        examples=[
            dict.fromkeys(("address", "prompt", "reference", "before", "after"), HOSTILE),
            {"reference": json.dumps({HOSTILE: HOSTILE}), "after": json.dumps({HOSTILE: 1})},
        ],
    )
    rewrite(
        "ledger.json",
        dropped={HOSTILE: 12},
        notes=[HOSTILE],
        samples={HOSTILE: [{"address": HOSTILE, "detail": HOSTILE}]},
    )
    token = {"text": HOSTILE, "id": 1, "weight": 1, "stop": True}
    (run / "rows.json").write_text(json.dumps([{"address": HOSTILE, "tokens": [token]}]))
    (run / "settings.toml").write_text(HOSTILE, encoding="utf-8")
    (run / "record.jsonl").write_text(json.dumps({"step": 1, "loss": HOSTILE}) + "\n")
    path = write(run)
    page = read_page(path)
    assert [tag for tag, _ in page.elements].count("script") == 2
    assert not [tag for tag, _ in page.elements if tag in ("img", "iframe", "object", "embed", "link", "base", "form")]
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert page.text.count("alert(1)") >= 15
    assert HOSTILE in page.text


def test_the_page_is_whole_in_itself(run, read_page):
    path = write(run)
    page = read_page(path)
    for tag, attributes in page.elements:
        assert "src" not in attributes, tag
        href = attributes.get("href")
        assert href is None or href.startswith("#"), href
        assert "style" not in attributes, tag
    assert not re.search(r"https?://|@import|url\(", path.read_text(encoding="utf-8"))


def test_links_lead_somewhere_and_ids_are_unique(run, read_page):
    page = read_page(write(run))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.elements:
        for name in ("href", "aria-labelledby"):
            if attributes.get(name):
                assert attributes[name].removeprefix("#") in ids


def test_only_the_pages_own_script_and_style_may_run(run, read_page):
    page = read_page(write(run))
    policy = next(a["content"] for tag, a in page.elements if tag == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy


def test_every_drawing_is_well_formed_xml(run):
    drawings = re.findall(r"<svg.*?</svg>", write(run).read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(drawings) == 7
    for drawing in drawings:
        ElementTree.fromstring(drawing)


def test_readings_for_the_script_are_json_for_every_chart(run, read_page):
    page = read_page(write(run))
    readings = json.loads(page.scripts["readings"])
    assert set(readings) == {a["data-chart"] for tag, a in page.elements if tag == "figure"}
    assert readings["loss"][-1][1].startswith("step 30: loss ")


def test_script_json_cannot_leave_its_block():
    text = str(script_json([HOSTILE, "<!--", "]]>"]))
    assert not set(text) & set("<>&\u2028\u2029")
    assert json.loads(text)[0] == HOSTILE


@pytest.mark.parametrize("name", ["record.jsonl", "result.json", "ledger.json", "rows.json", "settings.toml"])
def test_a_missing_file_is_named_and_the_rest_is_shown(run, read_page, name):
    (run / name).unlink()
    page = read_page(write(run))
    assert f"{name} is not there yet" in page.text
    assert ("a3" * 32 in page.text) == (name != "result.json")


def test_an_empty_folder_gives_a_page_that_says_so(tmp_path, read_page):
    page = read_page(write(tmp_path))
    assert "The run has no result yet: 0 steps recorded." in page.text
    assert "No step is recorded yet." in page.text


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ("", "No step is recorded yet."),
        ('{"step": 1, "loss": NaN}\n', "No step has a figure that can be drawn."),
        ('{"step": 1, "loss": 2.5}\n', "last training loss 2.500"),
        ('{"step": 1, "loss": 2.5}\n{"step": 2, "loss": NaN}\n', "No finite loss at step 2"),
        ('{"step": 4, "heldout_loss": 0.5}\n', "lowest held-out loss 0.500"),
        ('{"step": 1, "loss": 2.5}\n{"step": 2, "lo', "still writing"),
    ],
)
def test_a_run_in_progress_has_a_page(run, read_page, record, expected):
    (run / "result.json").unlink()
    (run / "record.jsonl").write_text(record)
    assert expected in words(read_page(write(run)))


def test_books_that_do_not_balance_are_said_so(rewrite, read_page):
    text = words(read_page(write(rewrite("ledger.json", rows_kept=980))))
    assert "1,000 rows in ≠ 980 kept + 12 dropped" in text
    assert "8 rows are not accounted for" in text


def test_files_that_disagree_are_named(rewrite, read_page):
    page = read_page(write(rewrite("result.json", dropped={"duplicate": 1})))
    assert "count the dropped rows differently" in page.text


def test_long_lists_are_cut_and_what_is_left_is_counted(rewrite, read_page):
    one = {"address": "heldout.jsonl:1", "prompt": "p", "reference": "r", "before": "b", "after": "r"}
    page = read_page(write(rewrite("result.json", examples=[one] * 100)))
    assert "70 more are in result.json" in page.text
    assert sum(tag == "details" and a.get("class") == "example" for tag, a in page.elements) == 30


def test_half_characters_are_shown_by_their_code(run, rewrite):
    (run / "result.json").write_text('{"name": "x \\ud800 y"}')
    assert b"x \\ud800 y" in write(run).read_bytes()


def test_the_same_files_give_the_same_page(run):
    first = write(run).read_bytes()
    assert write(run).read_bytes() == first


def test_the_page_takes_the_place_of_the_old_one_in_one_move(run, monkeypatch):
    target = write(run)
    before = target.read_bytes()
    moves = []

    def watch(source, destination):
        moves.append((os.fspath(source), os.fspath(destination)))
        assert target.read_bytes() == before
        assert os.path.getsize(source) == len(before)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", watch)
    with pytest.raises(SaveError, match="could not be written") as caught:
        write(run)
    assert caught.value.found == "No space left on device"
    assert target.read_bytes() == before
    assert moves[0][1] == str(target)
    assert os.path.dirname(moves[0][0]) == str(run)
    assert not [path for path in run.iterdir() if path.suffix == ".tmp"]


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(SourceNotFoundError):
        write(tmp_path / "nowhere")


def test_rows_show_line_ends_and_the_stop_token(run):
    html = write(run).read_text(encoding="utf-8")
    assert '<span><i title="11">Hello</i><i title="12">↵\n</i></span>' in html
    assert '<mark><i title="13">yes</i><b class="stop" title="2">&lt;end&gt;</b></mark>' in html


def moved_items(**changed):
    item = {"id": "facts-001", "capability": "facts", "prompt": "How many hours?", "reference": "24", "before": "24",
            "after": HOSTILE}  # fmt: skip
    return {
        "lost": {"facts": ["facts-001", "facts-002"]},
        "gained": {"code": ["code-1"]},
        "lost_items": [item | changed],
    }


def test_lost_items_are_shown_with_both_replies_and_the_others_counted(run, rewrite, read_page):
    rewrite("result.json", transitions=moved_items(prompt="long " * 300))

    page = read_page(write(run))

    assert "2 lost (right before, wrong after), 1 gained. The ids of all are in result.json." in words(page)
    assert "1 more lost items are not shown." in words(page)
    assert "500 more characters are not shown." in words(page)
    assert "facts-001" in page.text
    assert HOSTILE in page.text
    assert [tag for tag, _ in page.elements].count("script") == 2


def test_a_run_that_does_not_say_which_items_moved_has_no_such_part(run, rewrite, read_page):
    assert "item by item" not in read_page(write(run)).text
    rewrite("result.json", transitions=None)
    assert "item by item" not in read_page(write(run)).text
    rewrite("result.json", transitions={"lost": {}, "gained": {}, "lost_items": []})
    assert "No item was lost, and none gained." in read_page(write(run)).text

from __future__ import annotations

import io
from pathlib import Path

import pytest

from tests.support.compared_replies import judged, pairing, replies, said
from tests.support.written_run import PageReader
from tutelage.errors import ConfigError
from tutelage.evaluate.pairwise.page import MOST_PAIRS, comparison_page
from tutelage.evaluate.pairwise.pairs import Pairing, pair_replies
from tutelage.evaluate.pairwise.results import result_of
from tutelage.evaluate.pairwise.summary import table, title
from tutelage.evaluate.pairwise.verdicts import Verdict, VerdictFile
from tutelage.report.console.measures import Drawn
from tutelage.report.console.terminal import Terminal
from tutelage.report.html.comparison_page import (
    ComparisonPage,
    RaterLine,
    render_comparison,
    shares,
    write_comparison,
)

MADE = pairing(4)
KEYS = [pair.key for pair in MADE.pairs]


def page_of(made: Pairing, file: VerdictFile) -> ComparisonPage:
    return comparison_page(made, file, result_of(made, file))


def test_the_page_has_every_rater_and_what_each_said(tmp_path: Path):
    file = VerdictFile.open(tmp_path)
    said(file, KEYS[2], "b")
    said(file, KEYS[2], "a", rater="ben")
    judged(file, KEYS[3], "b", "none")
    page = page_of(MADE, file)
    assert [(line.name, line.level) for line in page.raters] == [
        ("people", 0),
        ("anna", 1),
        ("ben", 1),
        ("judge m", 0),
    ]
    assert [pair.outcome for pair in page.pairs] == ["not of one mind", "B is better", "", ""]
    assert [opinion.words for opinion in page.pairs[0].opinions] == ["B is better", "A is better"]
    assert [opinion.words for opinion in page.pairs[1].opinions] == ["B is better", "no verdict"]
    reader = PageReader(render_comparison(page))
    text = " ".join(reader.texts)
    for word in ("people", "anna", "ben", "judge m", "not of one mind", "Agreement of 2 raters"):
        assert word in text


def test_a_judges_reason_is_shown_and_so_is_an_answer_without_a_verdict(tmp_path: Path):
    file = VerdictFile.open(tmp_path)
    for side, choice, answer in (("a", "b", '{"reason": "it is true", "verdict": "2"}'), ("b", "none", "Hm.")):
        file.append(
            Verdict(pair=KEYS[0], kind="judge", rater="m", left=side, choice=choice, request=side, answer=answer)  # type: ignore[arg-type] # letters of the test
        )
    opinions = page_of(MADE, file).pairs[0].opinions
    assert [(opinion.rater, opinion.reason) for opinion in opinions] == [
        ("judge m, A first", "it is true"),
        ("judge m, B first", "Hm."),
    ]


def test_nothing_said_is_a_page_too():
    html = render_comparison(page_of(MADE, VerdictFile(Path("nowhere"))))
    assert "Nobody has said anything yet" in html


def test_texts_are_escaped_and_nothing_is_loaded(tmp_path: Path):
    made = pair_replies(replies("<i>", "<script>x</script>"), replies("b", "\x00\x1b[2J\u202e"))
    reader = PageReader(render_comparison(page_of(made, VerdictFile.open(tmp_path))))
    assert not {"script", "i", "img", "link"} & {tag for tag, _ in reader.elements}


def test_many_pairs_are_cut_and_counted(tmp_path: Path):
    made = pairing(MOST_PAIRS + 3)
    file = VerdictFile.open(tmp_path)
    said(file, made.pairs[-1].key, "a")
    page = page_of(made, file)
    assert (len(page.pairs), page.pairs_left_out) == (MOST_PAIRS, 3)
    assert page.pairs[0].outcome == "A is better"


def test_parts_of_a_bar_fill_it():
    line = RaterLine("x", 0, better_b=3, ties=4, better_a=5, win_rate="", interval="", p_value="", verdict="")
    assert shares(line) == [("b", 0.0, 25.0), ("tie", 25.0, 33.333), ("a", 58.333, 41.667)]
    assert {length for _, _, length in shares(RaterLine("x", 0, 0, 0, 0, "", "", "", ""))} == {0.0}


def test_a_file_that_is_no_page_of_ours_stays(tmp_path: Path):
    target = tmp_path / "page.html"
    page = page_of(MADE, VerdictFile.open(tmp_path))
    assert write_comparison(target, page) == len(target.read_bytes())
    write_comparison(target, page)
    target.write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError):
        write_comparison(target, page)
    assert target.read_text(encoding="utf-8") == "mine"


def test_the_interval_stands_in_a_terminal_of_80_columns(tmp_path: Path):
    file = VerdictFile.open(tmp_path)
    judged(file, KEYS[0], "b", "b", model="a-model-with-a-long-name-20260101")
    out = io.StringIO()
    result = result_of(MADE, file)
    Terminal(file=out, width=80).print(Drawn(table(result), title=title(result)))
    assert "(21–100)" in out.getvalue()
    assert max(map(len, out.getvalue().splitlines())) <= 80

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tutelage.report.html.token_view import MOST_TOKENS, MOST_TOKENS_OF_A_ROW, view_row, view_rows, visible
from tutelage.runs.reading import RenderedRow, Token


def row(*weights):
    return RenderedRow("train.jsonl:1", tuple(Token(f"t{i}", i, weight, False) for i, weight in enumerate(weights)))


def test_neighbours_of_one_kind_share_a_run():
    view = view_row(row(0, 0, 1, 1, 0.5, 0), most_tokens=99)
    assert [(run.trained, run.partly, len(run.pieces)) for run in view.runs] == [
        (False, False, 2),
        (True, False, 2),
        (True, True, 1),
        (False, False, 1),
    ]
    assert view.trained_tokens == 3
    assert view.runs[2].pieces[0].title == "4, weight 0.5"


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0]), max_size=60), st.integers(1, 40))
def test_no_token_is_lost_or_counted_twice(weights, most):
    view = view_row(row(*weights), most_tokens=most)
    assert sum(len(run.pieces) for run in view.runs) + view.hidden_tokens == view.tokens == len(weights)
    assert view.trained_tokens == sum(weight != 0 for weight in weights)


def test_a_page_holds_only_so_many_tokens_and_says_what_is_left():
    rows = [row(*[1.0] * 3 * MOST_TOKENS_OF_A_ROW)] * 24
    views, left_out = view_rows(rows)
    assert sum(view.tokens - view.hidden_tokens for view in views) == MOST_TOKENS
    assert len(views) + left_out == 24


def test_what_shows_nothing_is_named():
    assert visible("a\n\tb\r") == "a↵\n⇥\tb␍"
    assert visible("\u2028\u202e\u200b\x00\ud800") == "‹U+2028›‹U+202E›‹U+200B›‹U+0000›‹U+D800›"
    assert visible("می\u200cخواهم 👩\u200d🔧 é") == "می\u200cخواهم 👩\u200d🔧 é"

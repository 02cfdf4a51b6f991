from __future__ import annotations

import datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.annotation import PROMPTS, workspace, write_prompts
from tutelage.annotate.asked import AskedPrompt
from tutelage.annotate.edits import edit_between, edited
from tutelage.annotate.events import FILE_NAME
from tutelage.annotate.workspace import HELD_HOURS, Workspace, utc_now
from tutelage.errors import SaveError


@given(before=st.text(max_size=30), after=st.text(max_size=30))
def test_an_edit_makes_the_text_that_it_was_taken_from(before: str, after: str):
    edit = edit_between(before, after)
    assert edited(before, edit) == after
    assert 0 <= edit.at <= edit.at + edit.cut <= len(before)


def test_an_edit_holds_what_changed_alone():
    assert edit_between("one two three", "one too three").text == "o"


def submit(space: Workspace, person: str, prompt: AskedPrompt, text: str = "written") -> None:
    space.submit(person, prompt, page="p", text=text, after=None, began="", seconds=60.0)


def assigned(space: Workspace, person: str) -> AskedPrompt:
    prompt = space.assign(person)
    assert prompt is not None
    return prompt


def test_two_people_get_different_prompts_until_none_is_left(tmp_path: Path):
    space = workspace(tmp_path)
    given_out = []
    for number in range(len(PROMPTS)):
        person = ("anna", "ben")[number % 2]
        given_out.append(assigned(space, person).key)
        submit(space, person, assigned(space, person))
    assert len(set(given_out)) == len(PROMPTS)
    assert space.assign("anna") is None
    assert space.left() == 0


def test_the_same_prompt_stays_until_it_is_done_also_after_a_restart(tmp_path: Path):
    prompt = assigned(workspace(tmp_path), "anna")
    assert assigned(workspace(tmp_path), "anna") == prompt
    assert assigned(workspace(tmp_path), "ben") != prompt


def test_a_prompt_that_was_left_goes_to_others_the_next_day(tmp_path: Path):
    first = assigned(workspace(tmp_path), "anna")
    later = utc_now() + datetime.timedelta(hours=HELD_HOURS + 1)
    assert assigned(workspace(tmp_path, now=lambda: later), "ben") == first


def test_overlap_asks_so_many_people_and_no_person_twice(tmp_path: Path):
    space = workspace(tmp_path, overlap=2)
    assert space.left() == 2 * len(PROMPTS)
    for person in ("anna", "ben", "eva"):
        while (prompt := space.assign(person)) is not None:
            submit(space, person, prompt)
    assert {space.written(prompt.key) for prompt in space.prompts} == {2}
    assert space.count("eva", "submit") == 0


def test_a_share_of_the_overlap_is_drawn_by_the_prompt(tmp_path: Path):
    write_prompts(tmp_path, rows := [{"prompt": f"question {number}"} for number in range(400)])
    from tutelage.annotate.asked import asked_prompts
    from tutelage.annotate.events import EventLog
    from tutelage.ledger import Ledger

    asked = asked_prompts([str(tmp_path / "prompts.jsonl")], ledger=Ledger())
    space = Workspace(asked.prompts, EventLog.open(tmp_path / "out"), 3, 0.1)
    wanted = [space.wanted(prompt.key) for prompt in asked.prompts]
    assert set(wanted) == {1, 3}
    assert 20 <= wanted.count(3) <= 60
    assert len(wanted) == len(rows)


def test_skipped_is_not_asked_again_and_goes_to_another_flagged_to_nobody(tmp_path: Path):
    space = workspace(tmp_path)
    skipped = assigned(space, "anna")
    space.leave("anna", skipped, "skip", "no idea")
    flagged = assigned(space, "anna")
    space.leave("anna", flagged, "flag", "an address in it")
    assert assigned(space, "anna").key not in (skipped.key, flagged.key)
    assert assigned(space, "ben") == skipped
    assert space.flag(flagged.key) == "an address in it"
    assert space.left() == len(PROMPTS) - 1
    assert workspace(tmp_path).flag(flagged.key) == "an address in it"


def test_every_revision_is_kept_and_the_last_can_be_taken_back_over_restarts(tmp_path: Path):
    space = workspace(tmp_path)
    prompt = assigned(space, "anna")
    submit(space, "anna", prompt, "one")
    submit(space, "anna", prompt, "two")
    for expected in ("one", None):
        space = workspace(tmp_path)
        assert space.undo("anna") == prompt
        revision = space.work("anna", prompt.key).revision
        assert (None if revision is None else revision.text) == expected
    assert [revision.text for revision in space.work("anna", prompt.key).revisions] == ["one", "two"]
    assert space.undo("anna") is None


def test_drafts_of_two_pages_are_both_kept_and_the_one_gone_on_from_is_not_shown_twice(tmp_path: Path):
    space = workspace(tmp_path)
    prompt = assigned(space, "anna")
    first = space.draft("anna", prompt, page="a", text="hello", after=None, began="")
    space.draft("anna", prompt, page="b", text="hello you", after=first, began="")
    assert [draft.text for draft in open_drafts(space, prompt)] == ["hello you"]
    space.draft("anna", prompt, page="a", text="hello there", after=None, began="")  # the first page types on
    assert [draft.text for draft in open_drafts(workspace(tmp_path), prompt)] == ["hello there", "hello you"]


def open_drafts(space: Workspace, prompt: AskedPrompt) -> list:
    drafts = space.work("anna", prompt.key).drafts.values()
    return [draft for draft in drafts if not draft.is_settled]


@pytest.mark.parametrize("texts", [["a" * n for n in range(1, 130)], ["", "x", "", "y" * 5000, "y" * 4999]])
def test_a_text_that_grows_is_the_same_after_a_restart_and_costs_little(tmp_path: Path, texts: list[str]):
    space = workspace(tmp_path)
    prompt = assigned(space, "anna")
    for text in texts:
        space.draft("anna", prompt, page="a", text=text, after=None, began="")
    draft = workspace(tmp_path).work("anna", prompt.key).newest_draft
    assert draft is not None
    assert draft.text == texts[-1]
    assert sum(len(text) for text in texts) < 60_000


def test_half_a_line_and_a_damaged_one_cost_no_more_than_themselves(tmp_path: Path):
    space = workspace(tmp_path)
    prompt = assigned(space, "anna")
    for text in ("one", "one two", "one two three"):
        space.draft("anna", prompt, page="a", text=text, after=None, began="")
    submit(space, "anna", prompt, "handed in")
    path = tmp_path / "out" / FILE_NAME
    lines = path.read_bytes().split(b"\n")
    damaged = next(number for number, line in enumerate(lines) if b'" two"' in line)
    lines[damaged] = lines[damaged].replace(b" two", b" 2wo")
    path.write_bytes(b"\n".join(lines) + b'{"kind": "subm')
    again = workspace(tmp_path)
    assert again.log.damaged == [damaged + 1, len(lines)]
    assert again.lost == 1
    revision = again.work("anna", prompt.key).revision
    assert revision is not None
    assert revision.text == "handed in"
    submit(again, "anna", assigned(again, "anna"), "more")  # behind the half line
    assert len(workspace(tmp_path).standing()) == 2


def test_what_was_written_about_a_prompt_that_is_gone_is_kept(tmp_path: Path):
    space = workspace(tmp_path)
    prompt = assigned(space, "anna")
    submit(space, "anna", prompt)
    asked = workspace(tmp_path).prompts[1:]
    from tutelage.annotate.events import EventLog

    later = Workspace(asked, EventLog.open(tmp_path / "out"))
    (standing,) = later.standing()
    assert standing.prompt.messages == prompt.messages
    assert assigned(later, "anna").key != prompt.key


def test_a_disk_that_refuses_leaves_the_state_as_it_was(tmp_path: Path):
    space = workspace(tmp_path)
    prompt = assigned(space, "anna")
    space.log.path.unlink()
    space.log.path.mkdir()
    with pytest.raises(SaveError):
        submit(space, "anna", prompt)
    assert space.standing() == []


def test_who_rates_is_given_texts_with_one_rating_first_and_none_of_their_own(tmp_path: Path):
    space = workspace(tmp_path)
    for prompt in space.prompts[:3]:
        submit(space, "anna", prompt)
    assert space.next_to_rate("anna") is None
    first = space.next_to_rate("ben")
    assert first is not None
    space.rate("ben", space.prompts[1], "anna", 1, 5)
    given_out = []
    for _ in range(3):
        rated = space.next_to_rate("eva")
        assert rated is not None
        given_out.append(rated.prompt)
        space.rate("eva", rated.prompt, "anna", 1, 5)
    assert given_out == [space.prompts[1], space.prompts[0], space.prompts[2]]
    assert space.next_to_rate("eva") is None

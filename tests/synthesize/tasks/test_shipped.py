"""The tasks of the repository: every template renders every row of its table, or the row is dropped with a reason."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage import config
from tutelage.config.synthesis import TaskSettings
from tutelage.errors import SourceNotFoundError
from tutelage.synthesize.tasks import Task, read_task, read_tasks
from tutelage.synthesize.tasks.held_out import held_out_rows
from tutelage.synthesize.tasks.overlap import overlaps
from tutelage.synthesize.tasks.rendering import OPTIONS, Renderer, choices_of, straight_pair
from tutelage.synthesize.tasks.request import Division
from tutelage.synthesize.tasks.table import TaskRow, table_files, table_source, task_rows
from tutelage.types import Address, Drop

ROOT = Path(__file__).resolve().parents[3]
MATERIAL = ROOT.parent / "shared/material/data"
MARKS = re.compile(r"\{\{|\{%|<\|endoftext\|>")
TASKS = {task.name: task for task in read_tasks([str(ROOT / "recipes/flan/tasks")])}


def table_of(task: Task) -> str:
    try:
        return table_source(task, str(MATERIAL) if MATERIAL.is_dir() else str(ROOT))
    except SourceNotFoundError:
        pytest.skip("the collection of published files is not here")


def test_there_are_at_least_fourteen_tasks_in_seven_clusters() -> None:
    assert len(TASKS) >= 14
    assert len({task.file.cluster for task in TASKS.values()}) >= 7


@pytest.mark.parametrize("name", TASKS)
def test_a_task_says_what_it_is_and_asks_in_several_ways(name: str) -> None:
    task = TASKS[name]
    assert (task.path.stem, bool(task.file.license), bool(task.file.origin)) == (name, True, True)
    assert 5 <= len(task.templates) <= 12
    assert len(task.templates) - len(task.straight) <= 3
    inputs = [template.input.text for template in task.templates]
    assert len(set(inputs)) == len(inputs)


@pytest.mark.parametrize("name", TASKS)
def test_every_template_renders_every_row_or_the_row_says_what_is_missing(name: str) -> None:
    task = TASKS[name]
    rows = list(task_rows(task, table_files(table_of(task), lambda _note: None)))
    usable = [row for row in rows if isinstance(row, TaskRow)]
    filtered = [row for row in rows if isinstance(row, Drop) and row.reason == "filtered"]
    assert len(usable) >= 0.95 * (len(rows) - len(filtered))
    for row in rows:
        if isinstance(row, Drop):
            assert row.reason in {"missing_value", "no_match", "unknown_label", "filtered"}
    for row in Random(0).sample(usable, min(300, len(usable))):
        for template in task.templates:
            asked, reply = straight_pair(task, row, template)
            assert asked.strip()
            assert reply.strip()
            if not MARKS.search(" ".join(map(str, row.values.values()))):
                assert not MARKS.search(asked + reply)
            if choices := choices_of(task, row):
                assert (OPTIONS in asked or "OPTIONS:" in asked) != template.turns_around
                assert template.turns_around or reply.strip() in [choice.strip() for choice in choices]


@pytest.mark.parametrize("name", TASKS)
def test_most_rows_can_be_held_out(name: str) -> None:
    task, settings = TASKS[name], TaskSettings(held_out_items=100)
    out = held_out_rows(task, table_of(task), settings, 0, Renderer(task, settings, 0))
    assert len(out.conversations) == min(100, out.rows - sum(out.dropped.values()) + out.dropped["not_drawn"]) or (
        len(out.conversations) >= 50
    )
    assert out.as_dict()["kept"] > 0
    if out.kind != "reference":
        assert len(out.items) == len(out.conversations) + out.written


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(lambda text: text.strip())


@pytest.mark.parametrize("name", TASKS)
@given(data=st.data())
def test_any_text_in_a_column_renders(name: str, data: st.DataObject) -> None:
    """Whatever a table holds: text of rows is never read as a template."""
    task = TASKS[name]
    lists = {column for column, facts in task.file.columns.items() if facts.every is not None}
    values = {
        column: data.draw(st.lists(TEXTS, min_size=2, max_size=5)) if column in lists else data.draw(TEXTS)
        for column in task.file.columns
    }
    row = TaskRow(Address("a", 1), values)
    for template in task.templates:
        if any(column in template.input.names | template.target.names for column in lists):
            continue  # lists that belong together are of one length only in real rows
        asked, _ = straight_pair(task, row, template)
        for column in template.input.names & values.keys():
            value = values[column]
            if isinstance(value, str) and "tojson" not in template.input.text and ".strip()" not in template.input.text:
                assert value.strip() in asked


def test_the_recipe_is_one_that_both_commands_accept() -> None:
    path = ROOT / "recipes/flan.toml"
    assert config.load(path).evaluate.general == ["flan/evaluation.jsonl"]
    settings = config.load_curation(path, sources=["-"])
    clusters = {task.file.cluster for task in TASKS.values()}
    assert set(settings.synthesize.tasks.hold_out) <= clusters


def test_the_same_problems_from_two_publishers_are_found(tmp_path: Path) -> None:
    """GSM8K's own file, and FLAN's with other columns and other answers."""
    text = TASKS["gsm8k"].text.replace('"gsm8k"', '"other"').replace("math word problems", "school")
    text = text.replace("gsm8k_train.jsonl", "flan_cot_gsm8k.tsv").replace('question = "question"', 'question = "0"')
    text = re.sub(r"(?m)^answer = .*", 'answer = "1"', text)
    path = tmp_path / "other.toml"
    path.write_text(re.sub(r"(?m)^rationale = \{.*", 'rationale = "2"', text), encoding="utf-8")
    other = read_task(path)
    tables = {task.name: table_of(task) for task in (other, TASKS["gsm8k"], TASKS["aqua"])}
    settings = TaskSettings(hold_out=["school"])
    found = overlaps(Division((TASKS["gsm8k"], TASKS["aqua"]), (other,), tables), settings, 0, max_rows=400)
    assert [(overlap.trained, overlap.held_out_rows) for overlap in found] == [("gsm8k", 400)]
    assert all(ours.number == theirs.number for ours, theirs, _ in found[0].pairs)


def test_the_task_of_the_page_renders_our_own_table(tmp_path: Path) -> None:
    page = (ROOT / "docs/synthesize.md").read_text(encoding="utf-8")
    text = next(block for block in re.findall(r"```toml\n(.*?)```", page, re.DOTALL) if "[[templates]]" in block)
    path = tmp_path / "support_category.toml"
    path.write_text(text, encoding="utf-8")
    task = read_task(path)
    rows = list(task_rows(task, table_files(table_source(task, str(ROOT)), print)))
    assert len(rows) == 500
    for row in rows:
        assert isinstance(row, TaskRow)
        assert row.values["answer"] in choices_of(task, row)
        assert straight_pair(task, row, task.templates[1])[1] == row.values["message"].rstrip()

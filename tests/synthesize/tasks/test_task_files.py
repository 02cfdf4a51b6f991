"""Task files: what is wrong with one is said at once, with its place; a row's own faults cost that row."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.synthesize.tasks.conftest import TASK, town_rows
from tutelage.errors import ConfigError, DataError, SourceNotFoundError
from tutelage.synthesize.tasks import read_task, read_tasks
from tutelage.synthesize.tasks.table import TaskRow, table_files, table_source, task_rows
from tutelage.types import Drop

Write = Callable[..., Path]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("{{ text }}\\nIs", "{{ txt }}\\nIs", 'templates 1: names "txt", which is no column; did you mean "text"?'),
        ("Say something {{ answer }}", "Say something {{ options_list }}", 'templates 3: names "options_list"'),
        ('target = "{{ text }}"', 'target = "{{ text"', "templates 3, target:"),
        ('rationale = "why"', 'rationale = "reason"', 'rationale: names "reason"'),
        ('choices = ["good", "bad"]', 'choices = "options"', 'choices: names "options"'),
        ('cluster = "sentiment"', 'clutser = "sentiment"', 'clutser: is not known; did you mean "cluster"?'),
        ('text = "text"', 'text = {column = "text", patern = "a"}', 'did you mean "pattern"?'),
        ('text = "text"', 'text = {column = "text", pattern = "("}', "is no regular expression"),
        ('text = "text"', 'text = {column = "text", value = "a"}', "needs one of column and value"),
        ('why = "why"', 'why = {value = "{{ answer }}"}', 'columns.why.value: names "answer"'),
        ('license = "CC-BY-NC-4.0"', 'keep = ["lable == 1"]', 'keep: names "lable"'),
        ('name = "town_mood"', "name = 3", "name: Input should be a valid string"),
        ("[columns]", "[columns", "is not valid TOML"),
    ],
)
def test_a_wrong_task_file_is_refused_with_the_place(write_task: Write, old: str, new: str, said: str) -> None:
    assert old in TASK
    with pytest.raises(ConfigError) as caught:
        read_task(write_task(TASK.replace(old, new)))
    assert said in str(caught.value)
    assert "town_mood.toml" in str(caught.value)


def test_all_problems_of_a_file_are_in_one_error(write_task: Write) -> None:
    text = TASK.replace("{{ text }}\\nIs", "{{ txt }}\\nIs").replace('rationale = "why"', 'rationale = "reason"')
    with pytest.raises(ConfigError, match="2 problems"):
        read_task(write_task(text))


def test_a_file_of_turned_templates_alone_asks_for_no_answer(write_task: Write) -> None:
    head, templates = TASK.split("[[templates]]", 1)
    turned = templates.split("[[templates]]")[-1]
    with pytest.raises(ConfigError, match="at least one must ask for the answer"):
        read_task(write_task(head + "[[templates]]" + turned))


def test_two_tasks_of_one_name_are_refused(write_task: Write) -> None:
    paths = [str(write_task()), str(write_task(name="other.toml"))]
    with pytest.raises(ConfigError, match="Two tasks are called town_mood"):
        read_tasks(paths)


@pytest.mark.parametrize("inside", ["text.__class__.__mro__", "text.nothing", "text.join(3)", "1 // 0"])
def test_no_template_reaches_python_or_passes_over_what_is_not_there(
    write_task: Write, write_rows: Write, inside: str
) -> None:
    text = TASK.replace("{{ text }}\\nIs", "{{ " + inside + " }}\\nIs")
    task = read_task(write_task(text))
    write_rows(town_rows(1))
    row = next(task_rows(task, table_files(table_source(task, None), print)))
    assert isinstance(row, TaskRow)
    from tutelage.synthesize.tasks.rendering import straight_pair

    with pytest.raises(DataError, match="does not fit a row"):
        straight_pair(task, row, task.templates[0])


def test_a_column_that_a_row_lacks_ends_it_with_task_row_and_field(write_task: Write, write_rows: Write) -> None:
    rows: list[dict[str, Any]] = town_rows(3)
    del rows[1]["why"]
    table = write_rows(rows)
    task = read_task(write_task())
    with pytest.raises(DataError) as caught:
        list(task_rows(task, table_files(str(table), print)))
    assert "town_mood" in caught.value.what
    assert caught.value.where == f"{table}:2"
    assert caught.value.expected == '"why", for "why"'


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"text": ""}, "missing_value"),
        ({"text": None}, "missing_value"),
        ({"text": "  \n"}, "missing_value"),
        ({"label": 2}, "unknown_label"),
        ({"label": None}, "missing_value"),
    ],
)
def test_a_value_that_is_missing_costs_its_row(
    write_task: Write, write_rows: Write, change: dict[str, Any], reason: str
) -> None:
    rows = town_rows(2)
    table = write_rows([rows[0] | change, rows[1]])
    first, second = task_rows(read_task(write_task()), table_files(str(table), print))
    assert isinstance(first, Drop)
    assert first.reason == reason
    assert isinstance(second, TaskRow)


def test_columns_are_edited_in_the_order_of_the_page(write_task: Write, write_rows: Write) -> None:
    columns = r"""
[columns]
text = {column = ["turns", 0, "content"], replace = [['<[^>]*>', '\1'], ['\s+', " "]]}
letters = {column = "options", every = '\(([A-Z])\)'}
picked = {column = "reply", json = ["choice", 0]}
answer = {value = "{{ letters.index(picked) }}", labels = {0 = "good", 1 = "bad"}}
why = {column = "why", pattern = 'because (.*)', default = "none"}
"""
    head, rest = TASK.split("[columns]", 1)
    templates = "[[templates]]" + rest.split("[[templates]]", 1)[1]
    task = read_task(write_task(head + columns + templates))
    row = {"turns": [{"content": "<b>a\n\nb"}], "options": "(A) x (B) y", "reply": '{"choice": ["B"]}', "why": "so"}
    (read,) = task_rows(task, table_files(str(write_rows([row])), print))
    assert isinstance(read, TaskRow)
    assert dict(read.values) == {
        "text": r"\1a b", "letters": ["A", "B"], "picked": "B", "answer": "bad", "why": "none"
    }  # fmt: skip


@pytest.mark.parametrize("form", ["json", "csv", "tsv", "gz", "parquet"])
def test_any_table_gives_the_same_values(write_task: Write, write_rows: Write, tmp_path: Path, form: str) -> None:
    rows = town_rows(4)
    task = read_task(write_task())
    path = tmp_path / f"t.{form}"
    if form == "json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif form in ("csv", "tsv"):
        mark = "," if form == "csv" else "\t"
        lines = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
        path.write_text("".join(mark.join(line) + "\n" for line in lines), encoding="utf-8")
    elif form == "gz":
        path = tmp_path / "t.jsonl.gz"
        path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)

    def values(table: Path) -> list[Any]:
        return [row.values for row in task_rows(task, table_files(str(table), print)) if isinstance(row, TaskRow)]

    assert values(path) == values(write_rows(rows))
    assert len(values(path)) == 4


def test_conditions_keep_rows(write_task: Write, write_rows: Write) -> None:
    task = read_task(write_task(TASK.replace("[columns]", "keep = [\"'Lyon' in text\"]\n[columns]")))
    read = list(task_rows(task, table_files(str(write_rows(town_rows(8))), print)))
    assert [row.reason for row in read if isinstance(row, Drop)] == ["filtered"] * 7


def test_a_table_is_found_in_the_data_folder_first(write_task: Write, write_rows: Write, tmp_path: Path) -> None:
    task = read_task(write_task())
    with pytest.raises(SourceNotFoundError, match="town_mood"):
        table_source(task, None)
    (tmp_path / "data").mkdir()
    there = write_rows(town_rows(1), "data/towns.jsonl")
    assert table_source(task, str(tmp_path / "data")) == str(there)
    beside = write_rows(town_rows(1))
    assert table_source(task, None) == str(beside)
    assert table_source(task, str(tmp_path / "data")) == str(there)


def test_a_data_folder_that_is_not_there_is_no_reason_to_look_elsewhere(
    write_task: Write, write_rows: Write, tmp_path: Path
) -> None:
    write_rows(town_rows(1))
    with pytest.raises(ConfigError, match="no such folder of tables"):
        table_source(read_task(write_task()), str(tmp_path / "tabels"))


def test_a_table_may_lie_in_an_installed_package_which_is_not_run(
    write_task: Write, write_rows: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "townbook").mkdir()
    (tmp_path / "townbook" / "__init__.py").write_text("raise SystemExit('it was run')\n", encoding="utf-8")
    there = write_rows(town_rows(3), "townbook/towns.jsonl")
    monkeypatch.syspath_prepend(tmp_path)

    def source(table: str) -> str:
        return table_source(read_task(write_task(TASK.replace("towns.jsonl", table))), None)

    assert source("package:townbook/towns.jsonl") == str(there)
    with pytest.raises(SourceNotFoundError, match="not there") as caught:
        source("package:townbook/other.jsonl")
    assert "the package townbook has no other.jsonl" in str(caught.value)
    for absent in ("package:no_such_townbook/a.jsonl", "package:townbook.inner/towns.jsonl"):
        with pytest.raises(SourceNotFoundError) as caught:
            source(absent)
        assert "pip install" in str(caught.value)

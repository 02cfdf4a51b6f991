"""The whole way: the bytes, the books, what is held out, and a held-out task that is trained by another name."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.synthesize.tasks.conftest import TASK, town_rows
from tutelage import config
from tutelage.config.settings import Settings
from tutelage.errors import ConfigError
from tutelage.evaluate.choice_items import read_choices
from tutelage.evaluate.general import passes, read_general
from tutelage.formats import read
from tutelage.ledger import Ledger
from tutelage.synthesize.tasks import Made, read_tasks, synthesize_tasks

Write = Callable[..., Path]
SettingsOf = Callable[..., Settings]

SUMS = """
name = "sums"
cluster = "sums"
table = "sums.jsonl"
license = "MIT"
checks = [{kind = "number", value = "{{ answer }}"}]

[columns]
question = "question"
answer = "answer"

[[templates]]
input = "{{ question }}"

[[templates]]
input = "Reckon. {{ question }}"
"""


def sum_rows(count: int) -> list[dict[str, Any]]:
    return [
        {"question": f"What do {n} and {n * n + 3} come to if you add them up?", "answer": n + n * n + 3}
        for n in range(count)
    ]


@pytest.fixture
def folder(write_task: Write, write_rows: Write, tmp_path: Path) -> Path:
    write_task()
    write_task(SUMS, "sums.toml")
    write_rows([*town_rows(90), {"text": "", "label": 1, "why": "so"}, {"text": "a", "label": 3, "why": "so"}])
    write_rows(sum_rows(40), "sums.jsonl")
    return tmp_path


def make(folder: Path, out: str, settings: Settings, **further: Any) -> Made:
    return synthesize_tasks(
        settings, read_tasks([str(folder)]), folder / out, workers=further.pop("workers", 1), **further
    )


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_books_balance_and_the_rows_say_where_they_came_from(folder: Path, settings_of: SettingsOf) -> None:
    made = make(folder, "out", settings_of())
    rows = lines(folder / "out" / "data.jsonl")
    funnel = made.curated.funnel
    assert (funnel.rows_in, funnel.rows_kept, len(rows)) == (132, 130, 130)
    dropped = lines(folder / "out" / "ledger.jsonl")
    assert [entry["dropped"] for entry in dropped] == ["missing_value", "unknown_label"]
    assert dropped[0]["address"] == f"{folder / 'towns.jsonl'}:91"
    metadata = rows[0]["metadata"]
    assert {"file", "number", "task", "cluster", "template", "form", "license"} <= set(metadata)
    table = (folder / "towns.jsonl").read_text(encoding="utf-8").splitlines()
    for row in (row for row in rows if row["metadata"]["task"] == "town_mood"):
        text = json.loads(table[row["metadata"]["number"] - 1])["text"]
        assert any(text in message["content"] for message in row["messages"])
    trained = made.manifest["trained"]
    assert {name: facts["rows_out"] for name, facts in trained.items()} == {"sums": 40, "town_mood": 90}
    assert sum(trained["town_mood"]["by_template"].values()) == 90


def test_any_number_of_workers_gives_the_same_bytes(folder: Path, settings_of: SettingsOf) -> None:
    settings = settings_of('synthesize.tasks.hold_out=["sums"]')
    make(folder, "one", settings)
    make(folder, "two", settings, workers=2)
    names = sorted(path.name for path in (folder / "one").iterdir() if path.is_file())
    assert {"data.jsonl", "tasks.json", "evaluation.jsonl", "held_out.jsonl", "card.md"} <= set(names)
    for name in names:
        assert (folder / "one" / name).read_bytes() == (folder / "two" / name).read_bytes(), name


def test_the_same_command_again_changes_nothing_and_another_does(folder: Path, settings_of: SettingsOf) -> None:
    make(folder, "out", settings_of())
    before = (folder / "out" / "data.jsonl").read_bytes()
    assert make(folder, "out", settings_of()).curated.computed == {}
    assert (folder / "out" / "data.jsonl").read_bytes() == before
    make(folder, "out", settings_of('synthesize.tasks.hold_out=["sums"]'))
    assert (folder / "out" / "evaluation.jsonl").is_file()
    make(folder, "out", settings_of())
    assert not (folder / "out" / "evaluation.jsonl").exists()
    assert (folder / "out" / "data.jsonl").read_bytes() == before
    for change in ("synthesize.tasks.few_shot=0.9", "synthesize.tasks.exemplars=1", "seed=1"):
        assert make(folder, "out", settings_of(change)).curated.computed, change
        assert (folder / "out" / "data.jsonl").read_bytes() != before, change


def test_a_changed_task_file_makes_the_rows_anew(folder: Path, settings_of: SettingsOf, write_task: Write) -> None:
    make(folder, "out", settings_of())
    write_task(SUMS.replace("Reckon.", "Calculate."), "sums.toml")
    assert make(folder, "out", settings_of()).curated.computed
    assert "Calculate." in (folder / "out" / "data.jsonl").read_text(encoding="utf-8")


def test_caps_and_rates_are_those_of_the_step_mix(folder: Path, settings_of: SettingsOf) -> None:
    make(folder, "out", settings_of("curate.mix.limit=30"))
    mix = json.loads((folder / "out" / "mix.json").read_text(encoding="utf-8"))
    assert mix["mixed_by"] == "metadata.task"
    assert {name: facts["rows_out"] for name, facts in mix["sources"].items()} == {"sums": 30, "town_mood": 30}
    request = settings_of()
    from tutelage.synthesize.tasks.request import curation_of

    assert (curation_of(request).mix.limit, curation_of(request).mix.caps) == (3000, {"*": 30000})


def test_non_commercial_licenses_come_first_on_the_card(folder: Path, settings_of: SettingsOf) -> None:
    make(folder, "out", settings_of())
    card = (folder / "out" / "card.md").read_text(encoding="utf-8")
    assert card.index("CC-BY-NC-4.0, **non-commercial**") < card.index("| MIT |")


def test_held_out_rows_are_items_that_evaluation_reads_and_none_is_trained(
    folder: Path, settings_of: SettingsOf
) -> None:
    made = make(folder, "out", settings_of('synthesize.tasks.hold_out=["sums"]'))
    (sums,) = made.held_out
    items = read_general(str(folder / "out" / "evaluation.jsonl"))
    assert len(items) == 40
    assert all(passes(item, f"It is {item.reference}.") and not passes(item, "It is 1.") for item in items)
    assert {row["metadata"]["task"] for row in lines(folder / "out" / "data.jsonl")} == {"town_mood"}
    assert sums.as_dict()["kept"] == 40
    references = list(read([str(folder / "out" / "held_out.jsonl")], ledger=Ledger()))
    assert len(references) == 40


def test_held_out_choices_are_weighed_and_their_number_is_bounded(folder: Path, settings_of: SettingsOf) -> None:
    made = make(
        folder, "out", settings_of('synthesize.tasks.hold_out=["sentiment"]', "synthesize.tasks.held_out_items=50")
    )
    items = read_choices(str(folder / "out" / "evaluation.jsonl"))
    assert len(items) == 50
    assert {item.choices for item in items} == {("good", "bad")}
    assert Counter(item.answer for item in items).keys() == {0, 1}
    table = lines(folder / "towns.jsonl")
    for item in items:
        row = table[int(item.id.partition("/")[2]) - 1]
        assert row["text"] in (item.messages[0].content or "")
        assert item.choices[item.answer] == ("good" if row["label"] else "bad")
    (towns,) = made.held_out
    assert towns.as_dict()["dropped"] == {"missing_value": 1, "not_drawn": 40, "unknown_label": 1}


def test_some_items_with_choices_are_asked_in_words_and_the_reply_names_one_choice_alone(
    folder: Path, settings_of: SettingsOf, write_task: Write, write_rows: Write
) -> None:
    coins = SUMS.replace("sums", "coins").replace('checks = [{kind = "number", value = "{{ answer }}"}]', "")
    write_task(coins.replace("[columns]", 'choices = ["coin", "a coin", "a coin or two"]\n[columns]'), "coins.toml")
    write_rows([{"question": f"How many in box {n}?", "answer": "a coin"} for n in range(20)], "coins.jsonl")
    asked = settings_of('synthesize.tasks.hold_out=["coins"]', "synthesize.tasks.held_out_written=7")
    made = make(folder, "out", asked)
    written = read_general(str(folder / "out" / "evaluation.jsonl"))
    assert {item.topic for item in written} == {"coins, written"}
    weighed = {item.id: item for item in read_choices(str(folder / "out" / "evaluation.jsonl"))}
    assert (len(written), made.manifest["held_out"]["coins"]["written"], len(weighed)) == (7, 7, 20)
    for item in written:
        assert item.prompt == weighed[item.id.removesuffix("/written")].messages[0].content
        assert passes(item, "I see a coin.")
        assert not passes(item, "A coin or two.")
        assert not passes(item, "coin")


def test_a_task_for_evaluation_alone_is_never_trained(folder: Path, settings_of: SettingsOf, write_task: Write) -> None:
    write_task(SUMS.replace('license = "MIT"', "evaluation_only = true"), "sums.toml")
    made = make(folder, "out", settings_of())
    assert [one.task.name for one in made.held_out] == ["sums"]
    assert set(made.manifest["trained"]) == {"town_mood"}


def test_a_held_out_task_under_another_name_is_found_and_named(
    folder: Path, settings_of: SettingsOf, write_task: Write, write_rows: Write
) -> None:
    """The same rows in another file, with another label and other words around them."""
    other = TASK.replace("town_mood", "places").replace('"sentiment"', '"places"').replace("towns.jsonl", "p.jsonl")
    other = other.replace("Is that good or bad?", "What do you make of this?")
    write_task(other, "places.toml")
    write_rows([row | {"label": 1 - row["label"]} for row in town_rows(30, offset=60)], "p.jsonl")
    with pytest.raises(ConfigError) as caught:
        make(folder, "out", settings_of('synthesize.tasks.hold_out=["sentiment"]'))
    said = str(caught.value)
    assert "places has near-duplicates of 30 rows (33.3%) of town_mood" in said
    assert f"{folder / 'p.jsonl'}:1 like {folder / 'towns.jsonl'}:61 (1.00)" in said
    assert "sums" not in said
    assert not (folder / "out").exists()


def test_a_few_shared_rows_go_and_are_in_the_ledger(
    folder: Path, settings_of: SettingsOf, write_task: Write, write_rows: Write
) -> None:
    other = TASK.replace("town_mood", "places").replace('"sentiment"', '"places"').replace("towns.jsonl", "p.jsonl")
    write_task(other, "places.toml")
    write_rows([*town_rows(20, offset=500), *town_rows(2, offset=3)], "p.jsonl")
    settings = settings_of('synthesize.tasks.hold_out=["sentiment"]', "synthesize.tasks.held_out_share=0.05")
    notes: list[str] = []
    made = make(folder, "out", settings, log=notes.append)
    gone = [entry for entry in lines(folder / "out" / "ledger.jsonl") if entry["dropped"] == "near_held_out"]
    assert [entry["address"] for entry in gone] == [f"{folder / 'p.jsonl'}:21", f"{folder / 'p.jsonl'}:22"]
    assert f"{folder / 'towns.jsonl'}:4" in gone[0]["detail"]
    assert made.manifest["trained"]["places"]["rows_out"] == 20
    assert "places has near-duplicates of 2 rows" in notes[0]


def test_shared_rows_are_no_exemplars(
    folder: Path, settings_of: SettingsOf, write_task: Write, write_rows: Write
) -> None:
    other = TASK.replace("town_mood", "places").replace('"sentiment"', '"places"').replace("towns.jsonl", "p.jsonl")
    write_task(other, "places.toml")
    shared = town_rows(2, offset=3)
    write_rows([*town_rows(6, offset=500), *shared], "p.jsonl")
    make(
        folder,
        "out",
        settings_of(
            'synthesize.tasks.hold_out=["sentiment"]',
            "synthesize.tasks.held_out_share=1",
            "synthesize.tasks.few_shot=1e5",
        ),
    )
    data = (folder / "out" / "data.jsonl").read_text(encoding="utf-8")
    assert "few_shot" in data
    assert not any(row["text"] in data for row in shared)


def test_clusters_that_are_not_there_and_a_training_of_nothing_are_refused(
    folder: Path, settings_of: SettingsOf
) -> None:
    with pytest.raises(ConfigError, match="No task is in the cluster 'summs'"):
        make(folder, "out", settings_of('synthesize.tasks.hold_out=["summs"]'))
    with pytest.raises(ConfigError, match="No task is left to train on"):
        make(folder, "out", settings_of('synthesize.tasks.hold_out=["sums", "sentiment"]'))


def test_lengths_are_counted_by_the_tokenizer(
    folder: Path, settings_of: SettingsOf, tiny_tokenizer_folder: Path
) -> None:
    tokenizer = f'synthesize.tasks.tokenizer="{tiny_tokenizer_folder}"'
    made = make(folder, "out", settings_of(tokenizer, "synthesize.tasks.longest_input=60"))
    from tokenizers import Tokenizer

    counted = Tokenizer.from_file(str(tiny_tokenizer_folder / "tokenizer.json"))
    rows = lines(folder / "out" / "data.jsonl")
    assert rows
    assert all(len(counted.encode(row["messages"][0]["content"], add_special_tokens=False).ids) <= 60 for row in rows)
    assert made.curated.funnel.steps[0].dropped["input_too_long"] > 0
    with pytest.raises(ConfigError, match="no such tokenizer"):
        make(folder, "out", settings_of('synthesize.tasks.tokenizer="nowhere"'))


def test_settings_without_any_form_are_refused() -> None:
    shares = dict.fromkeys(("zero_shot", "few_shot", "chain_of_thought", "few_shot_chain_of_thought"), 0.0)
    values = {"model": {"name": "m"}, "data": {"train": ["a"]}, "synthesize": {"tasks": shares}}
    with pytest.raises(ConfigError, match="no form with a share"):
        config.from_mapping(values, where="a test")

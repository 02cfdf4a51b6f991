"""What becomes of a row: forms, exemplars, options and lengths, drawn by what the row holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.synthesize.tasks.conftest import town_rows
from tutelage.config.synthesis import FORMS, TaskSettings
from tutelage.synthesize.tasks import Task, read_task
from tutelage.synthesize.tasks.rendering import Draw, Pool, Renderer, straight_pair
from tutelage.synthesize.tasks.table import TaskRow, table_files, task_rows
from tutelage.types import Conversation, Drop

Write = Callable[..., Path]


def rows_of(task: Task, table: Path) -> list[TaskRow]:
    return [row for row in task_rows(task, table_files(str(table), print)) if isinstance(row, TaskRow)]


def words(text: str) -> int:
    return len(text.split())


def only(form: str, **further: int) -> TaskSettings:
    shares = dict.fromkeys(FORMS, 0.0) | {form: 1.0}
    return TaskSettings(**shares, **further)


def made(renderer: Renderer, row: TaskRow) -> Conversation:
    conversation = renderer.conversation(row)
    assert isinstance(conversation, Conversation)
    return conversation


@pytest.fixture
def task(write_task: Write) -> Task:
    return read_task(write_task())


@pytest.fixture
def rows(task: Task, write_rows: Write) -> list[TaskRow]:
    return rows_of(task, write_rows(town_rows(400)))


def test_options_stand_where_the_template_says_else_behind_it_and_not_where_it_turns_around(
    task: Task, rows: list[TaskRow]
) -> None:
    block = "OPTIONS:\n- good\n- bad"
    first, second, turned = (straight_pair(task, rows[0], template) for template in task.templates)
    text = rows[0].values["text"]
    assert first == (f"{text}\nIs that good or bad?\n\n{block}", "bad")
    assert second == (f"{block}\nJudge: {text}", "bad")
    assert turned == ("Say something bad.", text)


def test_a_share_of_the_prompts_lists_no_options_but_where_the_wording_does(task: Task, rows: list[TaskRow]) -> None:
    settings = TaskSettings(without_options=0.5, chain_of_thought=0.2)
    renderer = Renderer(task, settings, 0, pool=Pool(task, rows))
    listed: Counter[tuple[int, bool]] = Counter()
    for row in rows:
        conversation = made(renderer, row)
        template = int(conversation.metadata["template"])
        says = "OPTIONS:" in (conversation.messages[0].content or "")
        assert conversation.metadata.get("options", True) is (says or template == 3)
        listed[template, says] += 1
    assert listed[2, False] == listed[3, True] == 0
    assert listed[1, False] / (listed[1, False] + listed[1, True]) == pytest.approx(0.5, abs=0.2)
    # What else is drawn of a row does not hang on it.
    plain = Renderer(task, settings.model_copy(update={"without_options": 0.0}), 0, pool=Pool(task, rows))
    for row in rows[:50]:
        one, other = made(renderer, row).metadata, made(plain, row).metadata
        assert (one["template"], one["form"]) == (other["template"], other["form"])


def test_forms_come_by_their_shares(task: Task, rows: list[TaskRow]) -> None:
    settings = TaskSettings(zero_shot=0.4, few_shot=0.3, chain_of_thought=0.2, few_shot_chain_of_thought=0.1)
    renderer = Renderer(task, settings, 0, pool=Pool(task, rows))
    forms = Counter(made(renderer, row).metadata["form"] for row in rows)
    for form, share in zip(FORMS, (0.4, 0.3, 0.2, 0.1), strict=True):
        assert forms[form] / len(rows) == pytest.approx(share, abs=0.1)  # 4 standard deviations of 400 draws
    templates = Counter(made(renderer, row).metadata["template"] for row in rows)
    assert set(templates) == {1, 2, 3}


def test_a_task_without_rationale_gives_its_shares_to_the_other_forms(
    write_task: Write, task: Task, rows: list[TaskRow]
) -> None:
    plain = read_task(write_task(task.text.replace('rationale = "why"\n', "")))
    renderer = Renderer(plain, only("chain_of_thought"), 0)
    assert {made(renderer, row).metadata["form"] for row in rows[:20]} == {"zero_shot"}


def test_reasoning_comes_before_the_answer_and_only_where_the_answer_is_asked(task: Task, rows: list[TaskRow]) -> None:
    renderer = Renderer(task, only("chain_of_thought"), 0)
    for row in rows[:50]:
        conversation = made(renderer, row)
        reply = conversation.messages[1].content or ""
        assert reply.startswith(row.values["why"])
        assert reply.endswith(row.values["answer"])
        assert conversation.metadata["template"] in (1, 2)


@pytest.mark.parametrize("form", ["few_shot", "few_shot_chain_of_thought"])
def test_exemplars_are_other_rows_of_the_task_and_the_question_comes_last(
    task: Task, rows: list[TaskRow], form: str
) -> None:
    texts = {row.values["text"] for row in rows}
    renderer = Renderer(task, only(form, exemplars=3), 0, pool=Pool(task, rows))
    for row in rows[:60]:
        conversation = made(renderer, row)
        prompt = conversation.messages[0].content or ""
        assert conversation.metadata["exemplars"] == 3
        if conversation.metadata["template"] == 3:
            continue
        shown = sorted((prompt.index(text), text) for text in texts if text in prompt)
        assert len(shown) == 4
        assert shown[-1][1] == row.values["text"]
        if form == "few_shot_chain_of_thought":
            assert (conversation.messages[1].content or "").startswith(row.values["why"])


def test_a_row_that_asks_the_same_is_no_exemplar(task: Task, write_rows: Write) -> None:
    """Turned around, all rows of a label ask the same: at most those of the other label are left."""
    rows = rows_of(task, write_rows(town_rows(6)))
    renderer = Renderer(task, only("few_shot", exemplars=5), 0, pool=Pool(task, rows))
    draw = Draw(0, b"")
    turned = renderer.rendered(rows[0], task.templates[2], "few_shot", draw)
    assert not isinstance(turned, Drop)
    assert turned.exemplars == 3
    assert turned.prompt.count("Say something bad.") == 1


def test_a_task_of_one_row_has_no_exemplars(task: Task, write_rows: Write) -> None:
    rows = rows_of(task, write_rows(town_rows(1)))
    conversation = made(Renderer(task, only("few_shot"), 0, pool=Pool(task, rows)), rows[0])
    assert conversation.metadata["form"] == "zero_shot"
    assert "exemplars" not in conversation.metadata


@given(st.integers(min_value=10, max_value=200))
def test_a_prompt_takes_the_exemplars_there_is_room_for(tmp_path_factory: pytest.TempPathFactory, most: int) -> None:
    task, rows = _shared(tmp_path_factory)
    settings = only("few_shot", exemplars=6, longest_input=most)
    renderer = Renderer(task, settings, 0, pool=Pool(task, rows), count=words)
    for row in rows[:4]:
        made_of = renderer.rendered(row, task.templates[0], "few_shot", Draw(0, row.identity(task.name)))
        alone = straight_pair(task, row, task.templates[0])[0]
        if words(alone) > most:
            assert isinstance(made_of, Drop)
            assert made_of.reason == "input_too_long"
            continue
        assert not isinstance(made_of, Drop)
        assert words(made_of.prompt) <= most
        assert made_of.form == ("few_shot" if made_of.exemplars else "zero_shot")


_made: list[tuple[Task, list[TaskRow]]] = []


def _shared(factory: pytest.TempPathFactory) -> tuple[Task, list[TaskRow]]:
    """Read once: hypothesis asks many times."""
    if not _made:
        import json

        from tests.synthesize.tasks.conftest import TASK

        folder = factory.mktemp("task")
        (folder / "town_mood.toml").write_text(TASK)
        (folder / "towns.jsonl").write_text("".join(json.dumps(row) + "\n" for row in town_rows(40)))
        task = read_task(folder / "town_mood.toml")
        _made.append((task, rows_of(task, folder / "towns.jsonl")))
    return _made[0]


def test_a_reply_that_is_too_long_is_dropped(task: Task, rows: list[TaskRow]) -> None:
    renderer = Renderer(task, only("zero_shot", longest_target=1), 0, count=words)
    outcomes = {
        outcome.reason if isinstance(outcome, Drop) else outcome.metadata["template"]
        for outcome in map(renderer.conversation, rows[:60])
    }
    assert outcomes == {1, 2, "target_too_long"}


def test_what_is_drawn_hangs_on_the_row_and_not_on_its_place(task: Task, write_rows: Write) -> None:
    def by_text(values: list[dict[str, object]]) -> dict[str, tuple[object, object]]:
        rows = rows_of(task, write_rows(values))
        renderer = Renderer(task, only("zero_shot"), 7)
        made_of = {row.values["text"]: made(renderer, row) for row in rows}
        return {text: (one.messages, one.metadata) for text, one in made_of.items()}

    values = town_rows(60)
    forward, backward = by_text(values), by_text(values[::-1])
    assert forward == backward
    fewer = by_text(values[::3])
    assert fewer == {text: forward[text] for text in fewer}


def test_the_pool_is_the_same_in_every_order(task: Task, rows: list[TaskRow]) -> None:
    forward, backward = Pool(task, rows, size=50), Pool(task, rows[::-1], size=50)
    assert len(forward.rows) == 50
    assert forward.rows == backward.rows


def test_another_seed_draws_otherwise(task: Task, rows: list[TaskRow]) -> None:
    first, second = (
        [made(Renderer(task, only("zero_shot"), seed), row).metadata["template"] for row in rows[:50]]
        for seed in (0, 1)
    )
    assert first != second

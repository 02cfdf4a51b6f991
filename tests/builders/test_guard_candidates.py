"""The candidates of a recipe: what each changes, what is left out and why, prices and their order."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tutelage import config
from tutelage.builders.guard_candidates import by_price, candidates_of, priced
from tutelage.builders.guard_plan import limit_of, plan_guard
from tutelage.errors import ConfigError, DataError
from tutelage.runs.folder import read_settings
from tutelage.train.run import Finished


@pytest.fixture
def recipe(tiny_recipe: Callable[[Path], Path], tmp_path: Path) -> Path:
    path = tiny_recipe(tmp_path)
    rows = [
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": f"Hello {n}, " * 12}]}
        for n in range(40)
    ]
    (tmp_path / "chat.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def replayed(recipe: Path, *, ratio: str = "") -> list[str]:
    return [f'data.replay=["{recipe.parent / "chat.jsonl"}"]', f"data.replay_ratio={ratio}"]


def names(recipe: Path, *overrides: str) -> tuple[list[str], dict[str, str]]:
    candidates, left_out = candidates_of(config.load(recipe, overrides))
    return [candidate.name for candidate in candidates], {one.name: one.why for one in left_out}


OTHERS = ["half-rate", "quarter-rate", "talr", "eaft", "l2-to-base", "early-stopping"]


def test_a_plain_recipe_has_what_needs_no_further_data(recipe: Path) -> None:
    found, left_out = names(recipe)

    assert found == ["as-it-is", *OTHERS]
    assert left_out["replay-5"] == "data.replay names nothing"
    assert left_out["self-replay"] == "data.self_replay names nothing"
    assert left_out["kl-to-base"] == "nothing is named to replay"


def test_what_the_recipe_has_already_is_no_candidate(recipe: Path) -> None:
    set_already = ("train.loss=talr", "train.l2_to_base=1.0", "train.early_stopping_patience=3")
    found, left_out = names(recipe, *set_already, *replayed(recipe))

    assert found == ["as-it-is", "replay-20", "kl-to-base", "half-rate", "quarter-rate"]
    assert left_out == {
        "replay-5": "the same as as-it-is",
        "self-replay": "data.self_replay names nothing",
        "talr": "the same as as-it-is",
        "eaft": 'train.loss = "talr" is set',
        "l2-to-base": "train.l2_to_base = 1.0 is set",
        "early-stopping": "train.early_stopping_patience = 3 is set",
    }


def test_what_the_method_cannot_take_is_left_out_with_its_reason(recipe: Path) -> None:
    found, left_out = names(recipe, "model.method=prompt", "train.learning_rate=1e-2")

    assert "l2-to-base" not in found
    assert "leaves the weights of the model as they are" in left_out["l2-to-base"]


def test_each_kind_of_replay_stands_alone(recipe: Path) -> None:
    other = recipe.parent / "other.jsonl"
    other.write_text((recipe.parent / "chat.jsonl").read_text(encoding="utf-8"), encoding="utf-8")
    settings = config.load(recipe, [*replayed(recipe, ratio="0.1"), f'data.self_replay=["{other}"]'])

    by_name = {candidate.name: candidate.settings.data for candidate in candidates_of(settings)[0]}

    assert (by_name["replay-20"].replay_ratio, by_name["replay-20"].self_replay) == (0.2, [])
    assert (by_name["self-replay"].replay_ratio, by_name["self-replay"].replay) == (0.05, [])
    assert by_name["half-rate"] == by_name["as-it-is"]


def test_prices_are_tokens_and_those_near_each_other_keep_the_order_of_the_list(recipe: Path) -> None:
    settings = config.load(recipe, replayed(recipe, ratio="0"))

    found = by_price(priced(candidates_of(settings)[0]))

    assert [candidate.name for candidate in found] == ["as-it-is", "replay-5", "kl-to-base", *OTHERS, "replay-20"]
    tokens = {candidate.name: candidate.tokens for candidate in found}
    assert tokens["half-rate"] == tokens["as-it-is"] < tokens["replay-5"] < tokens["replay-20"]


def test_the_price_is_what_a_run_goes_through(train_tiny: Callable[..., Finished]) -> None:
    finished = train_tiny("train.max_steps=2", "evaluate.task=", "evaluate.general=")

    (candidate,) = priced(candidates_of(read_settings(finished.folder))[0][:1])

    assert candidate.tokens == pytest.approx(finished.result["total_tokens"], rel=0.05), "of examples of about a length"


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("forgetting", "forgetting=0.03"),
        ("forgetting=2", "0.02, which is 2 points"),
        ("forgetting=-1", "forgetting=0.03"),
        ("forgetting=nan", "forgetting=0.03"),
        ("forgetting=1", "0.01"),
        ("speed=1", "forgetting=0.03"),
        ("", "forgetting=0.03"),
    ],
)
def test_other_limits_are_refused(text: str, fix: str) -> None:
    with pytest.raises(ConfigError) as caught:
        limit_of(text)

    assert fix in str(caught.value)


def test_a_limit() -> None:
    assert (limit_of("forgetting=0.03"), limit_of("forgetting=0")) == (0.03, 0.0)


def test_a_recipe_without_anything_to_gain_by_is_refused(recipe: Path) -> None:
    settings = config.load(recipe, ["evaluate.task=", "data.validation="])

    with pytest.raises(ConfigError, match="Nothing would tell which candidate is the better one"):
        plan_guard(settings, 0.03, runs=6, stops_at_first=False, log=lambda _: None)


def test_prompts_of_either_half_are_not_replayed(recipe: Path) -> None:
    """The same prompt in another file than the general set."""
    other = recipe.parent / "other.jsonl"
    other.write_text((recipe.parent / "general.jsonl").read_text(encoding="utf-8"), encoding="utf-8")
    settings = config.load(recipe, [f'data.self_replay=["{other}"]'])

    with pytest.raises(DataError, match="would be trained on") as caught:
        plan_guard(settings, 0.03, runs=6, stops_at_first=False, log=lambda _: None)
    assert "has 2 of them" in str(caught.value)


def test_questions_with_choices_take_no_part_and_are_said(recipe: Path, tmp_path: Path) -> None:
    choices = tmp_path / "choices.jsonl"
    choices.write_text('{"prompt": "Which?", "choices": ["this", "that"], "answer": 0}\n', encoding="utf-8")
    own = config.load(recipe).evaluate.general[0]
    said: list[str] = []
    for sets, counted in (([own, str(choices)], True), ([str(choices)], False)):
        settings = config.load(recipe, [f"evaluate.general={json.dumps(sets)}"])
        if counted:
            plan_guard(settings, 0.03, runs=1, stops_at_first=False, log=said.append)
            assert any("1 questions with choices take no part" in line for line in said)
        else:
            with pytest.raises(ConfigError, match="no reply to count"):
                plan_guard(settings, 0.03, runs=1, stops_at_first=False, log=said.append)


def test_without_a_general_set_the_probes_are_split(recipe: Path) -> None:
    settings = config.load(recipe, ["evaluate.general="])

    plan = plan_guard(settings, 0.03, runs=3, stops_at_first=False, log=lambda _: None)

    assert plan.sets == ("probes",)
    assert len(plan.halves.choice) + len(plan.halves.report) > 500
    assert [len(plan.candidates), len(plan.beyond)] == [3, 4]
    assert not plan.folder.exists(), "a plan writes nothing"

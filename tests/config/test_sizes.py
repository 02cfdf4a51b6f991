"""A recipe at two sizes: what is laid over what, what is recorded, and what is refused."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from tutelage import config
from tutelage.errors import ConfigError

RECIPES = Path(__file__).parents[2] / "recipes"
RECIPE = """
[model]
name = "m"

[data]
folder = "tables"
train = ["a.jsonl"]

[data.licenses]
"a.jsonl" = "CC-BY-NC-4.0"

[train]
epochs = 3.0
learning_rate = 2e-5

[size.paper.model]
name = "owner/large"

[size.paper.train]
batch_size = 128

[size.laptop.train]
epochs = 1.0
"""
RECIPES = Path(__file__).parents[2] / "recipes"
PUBLISHED: dict[str, dict[str, Any]] = {
    "alpaca": {"epochs": 3.0, "learning_rate": 2e-5, "batch_size": 128, "weight_decay": 0.0, "warmup_ratio": 0.03},
    "vicuna": {"epochs": 3.0, "learning_rate": 2e-5, "batch_size": 128, "weight_decay": 0.0, "warmup_ratio": 0.03},
    "lima": {"epochs": 15.0, "batch_size": 32, "weight_decay": 0.1, "beta2": 0.95, "residual_dropout": 0.3},
    "instructgpt": {"epochs": 16.0, "min_lr_ratio": 0.1, "warmup_steps": 0, "residual_dropout_shape": "constant"},
    "tulu": {"epochs": 2.0, "learning_rate": 5e-6, "batch_size": 128, "loss_reduction": "sum"},
}
"""A part of the table in docs/recipes.md, typed a second time."""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "two.toml"
    path.write_text(RECIPE)
    return path


def test_one_size_is_laid_over_what_both_have(recipe: Path) -> None:
    laptop, paper = config.load(recipe), config.load(recipe, ["size=paper"])
    assert (laptop.size, laptop.model.name, laptop.train.epochs, laptop.train.batch_size) == ("laptop", "m", 1.0, 16)
    assert (paper.size, paper.model.name, paper.train.epochs, paper.train.batch_size) == (
        "paper", "owner/large", 3.0, 128,
    )  # fmt: skip
    assert paper.train.learning_rate == laptop.train.learning_rate == 2e-5


def test_an_override_wins_over_the_size_and_what_is_recorded_is_read_back(recipe: Path) -> None:
    settings = config.load(recipe, ["train.epochs=2.0", "size=paper"])
    assert settings.train.epochs == 2.0
    again = config.from_mapping(tomllib.loads(config.dump(settings)), where="a run")
    assert again == settings
    assert again.size == "paper"


def test_the_folder_of_the_data_is_joined_once(recipe: Path) -> None:
    settings = config.load(recipe, ["data.folder=elsewhere"])
    assert settings.data.train == ["elsewhere/a.jsonl"]
    assert settings.data.licenses == {"elsewhere/a.jsonl": "CC-BY-NC-4.0"}
    assert config.from_mapping(tomllib.loads(config.dump(settings)), where="a run").data == settings.data


def test_an_unknown_size_has_its_nearest_name(recipe: Path) -> None:
    with pytest.raises(ConfigError, match="no size 'papper'") as caught:
        config.load(recipe, ["size=papper"])
    assert caught.value.fix == "did you mean paper?"
    recipe.write_text(RECIPE.replace("size.laptop", "size.labtop"))
    with pytest.raises(ConfigError, match="a size that is none: 'labtop'"):
        config.load(recipe)


def test_a_recipe_without_sizes_takes_none(tmp_path: Path) -> None:
    plain = {"model": {"name": "m"}, "data": {"train": ["a.jsonl"]}}
    assert config.from_mapping(plain, where="here").size is None
    with pytest.raises(ConfigError, match="no sizes to choose from"):
        config.from_mapping(plain, ["size=paper"], where="here")
    with pytest.raises(ConfigError, match="no table for the size 'laptop'"):
        config.from_mapping({**plain, "size": {"paper": {}}}, where="here")


def test_what_is_wrong_inside_a_size_is_found_on_its_line(recipe: Path) -> None:
    recipe.write_text(RECIPE.replace("epochs = 1.0", "epochz = 1.0"))
    with pytest.raises(ConfigError, match="epochz") as caught:
        config.load(recipe)
    assert str(caught.value.where).endswith(":23")


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_recipes_of_papers_have_both_sizes_and_the_published_numbers(name: str) -> None:
    paper, laptop = (config.load(RECIPES / f"{name}.toml", [f"size={size}"]) for size in ("paper", "laptop"))
    shown = paper.train.model_dump()
    assert {key: shown[key] for key in PUBLISHED[name]} == PUBLISHED[name]
    assert laptop.model.name == "gemma3-270m"
    assert laptop.train.learning_rate == paper.train.learning_rate, "the laptop has fewer rows, not another rate"
    for settings in (paper, laptop):
        assert set(settings.data.licenses) == set(settings.data.train), "every source says its license"
        assert settings.evaluate.general, "forgetting is measured"


@pytest.mark.parametrize(("size", "rows"), [("paper", 1000), ("laptop", 64)])
def test_quotas_of_lima_are_of_files_in_the_folder_and_come_to_the_rows_that_are_kept(size: str, rows: int) -> None:
    recipe = RECIPES / "lima_choice.toml"
    settings = config.load_curation(recipe, [f"size={size}", "data.folder=pools"])
    select = settings.curate.select
    assert select.keep == sum(select.quotas.values()) == rows
    assert set(select.quotas) == set(settings.data.train)
    assert all(name.startswith("pools/") for name in settings.data.train)


def test_a_recipe_with_sizes_is_curated_from_its_own_data_or_from_what_is_named() -> None:
    recipe = RECIPES / "vicuna.toml"
    assert config.load_curation(recipe).data.train == ["material/fastchat_dummy_conversation.json"]
    assert config.load_curation(recipe, sources=["mine.json"]).data.train == ["mine.json"]

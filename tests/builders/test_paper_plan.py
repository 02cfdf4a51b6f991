"""The size of a paper: planned without its weights and data, and refused where it cannot fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from tutelage import config
from tutelage.builders import paper_plan as module
from tutelage.builders.paper_plan import paper_shape, published_shapes, published_volume, require_paper_fits
from tutelage.errors import FitError, SourceNotFoundError

RECIPES = Path(__file__).parents[2] / "recipes"
PARAMETERS = {"alpaca": 6_738_415_616, "instructgpt": 1_557_611_200, "tulu": 8_030_261_248}
"""As transformers' own models of these names have them; LLaMA 65B takes longer to make."""


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_shapes_have_the_parameters_of_the_models(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "start_name", _unreachable)
    settings = config.load(RECIPES / f"{name}.toml", ["size=paper"])
    said: list[str] = []
    shape = paper_shape(settings, log=said.append)
    assert shape.parameters == PARAMETERS[name]
    assert shape.name == settings.model.name
    assert "what is published of it" in said[0]


def test_every_recipe_at_the_size_of_its_paper_has_a_known_shape() -> None:
    for recipe in ("flan", "alpaca", "vicuna", "lima", "instructgpt", "tulu"):
        assert config.load(RECIPES / f"{recipe}.toml", ["size=paper"]).model.name in published_shapes()


@pytest.mark.parametrize(
    ("name", "rows", "steps", "step_tokens", "basis"),
    [
        ("flan", 900_000, 30_000, 30 * 273, "published"),
        ("alpaca", 52_002, 1_219, 128 * 512, "published, at most"),  # ceil(52,002 * 3 / 128)
        ("lima", 1_000, 469, 32 * 2_048, "published, at most"),
        ("instructgpt", 12_725, 6_363, 32 * 1_024, "published, at most"),
    ],
)
def test_steps_are_counted_by_what_is_published_of_the_rows(
    name: str, rows: int, steps: int, step_tokens: int, basis: str
) -> None:
    volume = published_volume(config.load(RECIPES / f"{name}.toml", ["size=paper"]))
    assert volume is not None
    assert (volume.examples, volume.steps, volume.step_tokens, volume.basis) == (rows, steps, step_tokens, basis)
    assert volume.trained_tokens is None
    assert published_volume(config.load(RECIPES / f"{name}.toml", ["size=laptop"])) is None


def test_a_machine_that_cannot_hold_it_is_told_before_anything_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "start_name", _unreachable)
    settings = config.load(RECIPES / "alpaca.toml", ["size=paper"])
    needed = 6_738_415_616 * 18
    small, large = (
        module.replace(module.this_machine(), memory_bytes=needed - 1),
        module.replace(module.this_machine(), memory_bytes=needed),
    )
    monkeypatch.setattr(module, "this_machine", lambda: small)
    with pytest.raises(FitError, match=r"need more than 121\sGB, and this machine has 121\sGB") as caught:
        require_paper_fits(settings, log=lambda _text: None)
    assert "--size laptop" in str(caught.value.fix)
    monkeypatch.setattr(module, "this_machine", lambda: large)
    require_paper_fits(settings, log=lambda _text: None)


def test_a_model_of_which_nothing_is_known_stays_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "start_name", _unreachable)
    settings = config.load(RECIPES / "alpaca.toml", ["size=paper", "model.name=owner/unknown"])
    with pytest.raises(SourceNotFoundError):
        paper_shape(settings, log=lambda _text: None)


def _unreachable(*_: object, **__: object) -> str:
    raise SourceNotFoundError("not here")

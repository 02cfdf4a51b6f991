"""Settings in words: the dump reads back equal, every field is explained, unusual values are questioned."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.config import (
    DataSettings,
    ModelSettings,
    Settings,
    TrainSettings,
    dump,
    explain,
    from_mapping,
    load,
    questions,
)
from tutelage.config.naming import paths
from tutelage.errors import ConfigError

MINIMAL: dict[str, Any] = {"model": {"name": "tiny"}, "data": {"train": ["rows.jsonl"]}}


def with_values(**sections: dict[str, Any]) -> dict[str, Any]:
    """The minimal recipe with more fields in some sections."""
    merged = {name: dict(section) for name, section in MINIMAL.items()}
    for name, section in sections.items():
        merged[name] = merged.get(name, {}) | section
    return merged


letters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
any_text, some_text = st.text(letters), st.text(letters, min_size=1)
integers = st.integers(-(2**63) + 1, 2**63 - 1)
settings_values = st.fixed_dictionaries(
    {
        "model": st.fixed_dictionaries(
            {"name": some_text},
            optional={"precision": st.sampled_from(["auto", "bf16", "fp32"]), "threads": st.integers(1, 99)},
        ),
        "data": st.fixed_dictionaries(
            {"train": st.lists(some_text, min_size=1, max_size=3)},
            optional={"columns": st.dictionaries(any_text, some_text, max_size=3), "strict": st.booleans()},
        ),
        "train": st.fixed_dictionaries(
            {},
            optional={
                "epochs": st.floats(min_value=0, exclude_min=True, max_value=1e6) | st.integers(1, 9),
                "learning_rate": st.floats(min_value=0, exclude_min=True, max_value=3e38),
                "max_steps": st.integers(1, 2**31 - 1),
                "min_lr_ratio": st.floats(0, 1),
            },
        )
        | st.fixed_dictionaries({"warmup_steps": st.integers(0, 10**6)})
        | st.fixed_dictionaries({"warmup_ratio": st.floats(0, 1, exclude_max=True)}),
    },
    optional={
        "seed": st.integers(0, 2**32 - 1),
        "lora": st.fixed_dictionaries(
            {}, optional={"target_modules": st.just("all-linear") | st.lists(some_text, min_size=1, max_size=2)}
        ),
        "render": st.fixed_dictionaries(
            {
                "date": st.dates().map(str),
                "template_arguments": st.dictionaries(
                    any_text,
                    st.booleans() | integers | any_text | st.lists(integers, max_size=2),
                    max_size=3,
                ),
            }
        ),
    },
)


class TestDump:
    @pytest.mark.parametrize(
        ("method", "sections"),
        [("full", set()), ("lora", {"lora"}), ("qlora", {"lora", "qlora"}), ("prompt", {"prompt"})],
    )
    def test_has_the_sections_that_the_method_reads(self, method: str, sections: set[str]) -> None:
        written = tomllib.loads(dump(from_mapping(with_values(model={"method": method}), where="a test")))
        assert {"lora", "qlora", "prompt"} & set(written) == sections

    @given(values=settings_values)
    def test_reads_back_equal(self, values: dict[str, Any]) -> None:
        settings = from_mapping(values, where="a test")
        text = dump(settings)
        again = from_mapping(tomllib.loads(text), where="its dump")
        assert again == settings
        assert dump(again) == text

    @pytest.mark.parametrize(
        "values",
        [
            with_values(model={"method": "full"}),
            with_values(train={"warmup_steps": 50}),
            with_values(train={"optimizer": "adafactor"}),
            with_values(data={"train": ["a.jsonl", "b.jsonl"], "weights": {"a.jsonl": 0.5}}),
            with_values(data={"validation": ["v.jsonl"]}, train={"early_stopping_patience": 2}),
        ],
    )
    def test_leaves_out_what_would_contradict(self, tmp_path: Path, values: dict[str, Any]) -> None:
        settings = from_mapping(values, where="a test")
        path = tmp_path / "again.toml"
        path.write_text(dump(settings), encoding="utf-8")
        assert load(path) == settings

    def test_resolves_settings_built_in_python(self) -> None:
        settings = Settings(model=ModelSettings(name="x"), data=DataSettings(train=["a"]), train=TrainSettings())
        assert settings.train.learning_rate is None
        assert tomllib.loads(dump(settings))["train"]["learning_rate"] == 2e-4
        assert from_mapping(tomllib.loads(dump(settings)), where="its dump") == settings.resolved()


class TestExplain:
    def test_covers_every_field(self) -> None:
        helps = explain()
        assert [one.path for one in helps] == paths()
        dumped = tomllib.loads(dump(from_mapping(MINIMAL, where="a test")))
        flat = {f"{key}.{inner}" for key, value in dumped.items() if isinstance(value, dict) for inner in value}
        assert flat <= {one.path for one in helps}
        for one in helps:
            assert one.description.endswith("."), one.path
            assert one.description.count(". ") == 0, f"{one.path}: one sentence"
            assert one.source, one.path
            assert one.type, one.path
            assert one.default, one.path

    def test_defaults_are_within_their_usual_range(self) -> None:
        assert questions(from_mapping(MINIMAL, where="a test")) == []
        assert questions(from_mapping(with_values(model={"method": "full"}), where="a test")) == []

    def test_says_type_default_and_usual_range(self) -> None:
        (rank,) = explain("lora.rank")
        assert (rank.type, rank.default, rank.usual) == ("whole number", "16", "8 to 64")
        (method,) = explain("model.method")
        assert (method.type, method.default, method.usual) == ('"full" | "lora" | "qlora" | "prompt"', '"lora"', None)
        (targets,) = explain("target_modules")
        assert targets.type == '"all-linear" | list of text'
        assert explain("model.name")[0].default == "required"
        assert explain("data.strict")[0].default == "false"

    def test_a_section_or_a_bare_name(self) -> None:
        assert {one.path.partition(".")[0] for one in explain("train")} == {"train"}
        assert len(explain("train")) == len(TrainSettings.model_fields)
        assert [one.path for one in explain("learning_rate")] == ["train.learning_rate"]

    def test_an_unknown_name(self) -> None:
        with pytest.raises(ConfigError) as caught:
            explain("lerning_rate")
        assert caught.value.fix == "did you mean train.learning_rate?"


class TestQuestions:
    @pytest.mark.parametrize(
        ("method", "rate", "said"),
        [
            ("full", 0.01, "train.learning_rate = 0.01 is above the usual 1e-05 to 5e-05 for full fine-tuning (source"),
            ("full", 2e-4, "is above"),
            ("full", 2e-5, None),
            ("lora", 2e-5, "train.learning_rate = 2e-05 is below the usual 0.0001 to 0.0005 for LoRA (source"),
            ("lora", 2e-4, None),
            ("qlora", 2e-5, "is below the usual 0.0001 to 0.0005 for QLoRA (source"),
            ("prompt", 2e-4, "is below the usual 0.003 to 0.3 for prompt tuning (source"),
            ("prompt", 3e-2, None),
        ],
    )
    def test_the_learning_rate_depends_on_the_method(self, method: str, rate: float, said: str | None) -> None:
        lines = questions(from_mapping(with_values(model={"method": method}, train={"learning_rate": rate}), where="x"))
        assert len(lines) == (said is not None)
        assert said is None or said in lines[0]

    def test_alpha_depends_on_rank(self) -> None:
        lines = questions(from_mapping(with_values(lora={"rank": 64}), where="a test"))
        assert [line.partition(" (")[0] for line in lines] == ["lora.alpha = 32 is below the usual 64 to 128"]

    def test_rslora_has_no_usual_alpha(self) -> None:
        assert questions(from_mapping(with_values(lora={"rank": 64, "rslora": True}), where="a test")) == []

    def test_sections_of_other_methods_are_not_questioned(self) -> None:
        assert questions(from_mapping(with_values(model={"method": "prompt"}), where="a test")) == []
        few = with_values(model={"method": "prompt"}, prompt={"tokens": 200})
        assert "prompt.tokens = 200 is above" in questions(from_mapping(few, where="a test"))[0]

    def test_each_value_outside_gets_one_line(self) -> None:
        train = {"epochs": 20, "batch_size": 2, "warmup_steps": 5, "max_grad_norm": 9.0}
        lines = questions(from_mapping(with_values(train=train, pack={"max_seq_length": 64}), where="a test"))
        fields = [line.partition(" = ")[0] for line in lines]
        assert fields == [
            "pack.max_seq_length",
            "train.epochs",
            "train.batch_size",
            "train.warmup_steps",
            "train.max_grad_norm",
        ]
        assert all("(source: " in line for line in lines)

    def test_values_without_effect(self) -> None:
        train = {"evaluate_every": 10, "lr_scheduler": "constant", "min_lr_ratio": 0.1}
        lines = questions(from_mapping(with_values(train=train), where="a test"))
        assert len(lines) == 2
        assert all("has no effect" in line for line in lines)
        held_out = with_values(train={"evaluate_every": 10}, data={"validation_ratio": 0.1})
        assert questions(from_mapping(held_out, where="a test")) == []

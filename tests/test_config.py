"""What loads, what is refused, and how it is said."""

from __future__ import annotations

import math
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tutelage.config import (
    DataSettings,
    ModelSettings,
    PackSettings,
    Settings,
    dump,
    from_mapping,
    load,
)
from tutelage.config.naming import OTHER_TOOLS_NAMES, paths
from tutelage.errors import ConfigError, SourceNotFoundError

MINIMAL: dict[str, Any] = {"model": {"name": "tiny"}, "data": {"train": ["rows.jsonl"]}}

RECIPE = """\
seed = 7
[model]
name = "owner/tiny"
method = "full"
[data]
train = ["a.jsonl", "b.csv"]
validation_ratio = 0.1
[data.columns]
prompt = "question"
response = "answer"
[train]
epochs = 3
early_stopping_patience = 2
"""


def with_values(**sections: dict[str, Any]) -> dict[str, Any]:
    """The minimal recipe with more fields in some sections."""
    merged = {name: dict(section) for name, section in MINIMAL.items()}
    for name, section in sections.items():
        merged[name] = merged.get(name, {}) | section
    return merged


def write(folder: Path, text: str, name: str = "first_try.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def refusal(values: dict[str, Any], *overrides: str) -> str:
    """What the one ConfigError found."""
    with pytest.raises(ConfigError) as caught:
        from_mapping(values, overrides, where="a test")
    assert caught.value.found is not None
    return caught.value.found


class TestLoad:
    def test_reads_a_recipe(self, tmp_path: Path) -> None:
        settings = load(write(tmp_path, RECIPE))
        assert settings.seed == 7
        assert settings.model.method == "full"
        assert settings.data.train == ["a.jsonl", "b.csv"]
        assert settings.data.columns == {"prompt": "question", "response": "answer"}
        assert settings.train.epochs == 3.0
        assert isinstance(settings.train.epochs, float)

    def test_takes_the_run_name_from_the_file_unless_given(self, tmp_path: Path) -> None:
        assert load(write(tmp_path, RECIPE)).name == "first_try"
        named = load(write(tmp_path, 'name = "mine"\n' + RECIPE))
        assert named.run_folder == Path("runs/mine")

    @pytest.mark.parametrize(("method", "rate"), [("full", 2e-5), ("lora", 2e-4), ("qlora", 2e-4), ("prompt", 3e-2)])
    def test_resolves_the_learning_rate_by_method(self, method: str, rate: float) -> None:
        settings = from_mapping(with_values(model={"method": method}), where="a test")
        assert settings.train.learning_rate == rate
        assert settings.peak_learning_rate == rate
        assert tomllib.loads(dump(settings))["train"]["learning_rate"] == rate

    @pytest.mark.parametrize(("init", "looks"), [("default", False), ("pissa", False), ("eva", True)])
    def test_says_how_much_lora_looks_at_where_it_does(self, init: str, looks: bool) -> None:
        settings = from_mapping(with_values(lora={"init": init}), where="a test")
        said = tomllib.loads(dump(settings))
        assert ("init_tokens" in said["lora"]) == looks
        assert from_mapping(said, where="what was dumped") == settings

    def test_keeps_a_given_learning_rate(self) -> None:
        assert from_mapping(with_values(train={"learning_rate": 3e-5}), where="a test").peak_learning_rate == 3e-5

    def test_is_frozen(self) -> None:
        settings = from_mapping(MINIMAL, where="a test")
        with pytest.raises(ValidationError):
            settings.train.epochs = 9.0

    def test_does_not_change_the_mapping_it_reads(self) -> None:
        values = with_values(data={"columns": {"prompt": "q"}})
        from_mapping(values, ["data.columns.prompt=other", "train.epochs=1"], where="a test")
        assert values == with_values(data={"columns": {"prompt": "q"}})

    def test_accepts_sections_that_are_already_settings(self) -> None:
        values = {"model": ModelSettings(name="tiny"), "data": DataSettings(train=["a.jsonl"])}
        assert from_mapping(values, ["model.method=full"], where="a test").model.method == "full"

    def test_accepts_a_byte_order_mark(self, tmp_path: Path) -> None:
        path = tmp_path / "marked.toml"
        path.write_bytes(b"\xef\xbb\xbf" + RECIPE.encode())
        assert load(path).seed == 7

    def test_imports_no_torch(self) -> None:
        code = "import sys, tutelage.config; sys.exit('torch' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


class TestFilesThatCannotBeRead:
    def test_missing_file_names_the_nearest(self, tmp_path: Path) -> None:
        write(tmp_path, RECIPE, "arithmetic.toml")
        with pytest.raises(SourceNotFoundError) as caught:
            load(tmp_path / "aritmetic.toml")
        assert caught.value.fix is not None
        assert "arithmetic.toml" in caught.value.fix

    def test_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(SourceNotFoundError):
            load(tmp_path / "nowhere" / "recipe.toml")

    def test_folder_in_place_of_a_file(self, tmp_path: Path) -> None:
        with pytest.raises(SourceNotFoundError, match="cannot be read"):
            load(tmp_path)

    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ("seed = 1\nname = hello\n", 2),
            ("seed = 1\n\n[model\nname = 'x'\n", 3),
            ("[model]\nname = 'x'\nname = 'y'\n", 3),
            ("[data]\ntrain = [", 2),
        ],
    )
    def test_syntax_error_names_the_line(self, tmp_path: Path, text: str, line: int) -> None:
        path = write(tmp_path, text)
        with pytest.raises(ConfigError, match="not valid TOML") as caught:
            load(path)
        assert caught.value.where == f"{path}:{line}"
        assert text.splitlines()[line - 1] in (caught.value.found or "")

    def test_other_encoding_names_the_line(self, tmp_path: Path) -> None:
        path = tmp_path / "latin.toml"
        path.write_bytes(b'seed = 1\nname = "caf\xe9"\n')
        with pytest.raises(ConfigError, match="UTF-8") as caught:
            load(path)
        assert caught.value.where == f"{path}:2"


class TestProblems:
    @pytest.mark.parametrize(
        ("section", "field", "value", "said"),
        [
            ("train", "epochs", "two", "should be a number"),
            ("train", "epochs", True, "should be a number"),
            ("train", "epochs", 0, "greater than 0"),
            ("train", "max_steps", 0, "greater than 0"),
            ("train", "max_steps", -5, "greater than 0"),
            ("train", "max_steps", 2.0, "should be a whole number"),
            ("train", "learning_rate", math.nan, "finite"),
            ("train", "learning_rate", math.inf, "finite"),
            ("train", "learning_rate", 0.0, "greater than 0"),
            ("train", "learning_rate", -1e-5, "greater than 0"),
            ("train", "beta2", 1.0, "less than 1"),
            ("train", "lr_scheduler", "cosin", '"cosine"'),
            ("model", "name", "", "should not be empty"),
            ("model", "trust_remote_code", "yes", "true or false"),
            ("lora", "target_modules", 3, '"all-linear" or a list of texts'),
            ("lora", "target_modules", [], "should not be empty"),
            ("data", "train", [], "should not be empty"),
            ("data", "train", "rows.jsonl", 'such as ["rows.jsonl"]'),
            ("data", "validation_ratio", 1.0, "less than 1"),
            ("data", "columns", {"prompt": 3}, "should be a text"),
            ("render", "date", "01.02.2026", "YYYY-MM-DD"),
            ("render", "date", "20260102", "YYYY-MM-DD"),
            ("render", "date", "2026-02-30", "calendar"),
            ("render", "template_arguments", {"thinking": None}, "tables"),
            ("render", "template_arguments", {"share": math.nan}, "finite"),
        ],
    )
    def test_a_wrong_value_is_named_with_its_field(self, section: str, field: str, value: object, said: str) -> None:
        found = refusal(with_values(**{section: {field: value}}))
        assert found.startswith(f"{section}.{field}")
        assert said in found

    def test_a_wrong_list_item_is_named_by_its_place(self) -> None:
        assert refusal(with_values(lora={"target_modules": ["q_proj", ""]})).startswith("lora.target_modules[1]: ")
        assert refusal(with_values(data={"train": ["a", "b", 3]})).startswith("data.train[2]: ")

    @pytest.mark.parametrize("name", ["a/b", "..", ".", "", "a\\b"])
    def test_a_run_name_is_one_folder_name(self, name: str) -> None:
        assert refusal(MINIMAL | {"name": name}).startswith("name: ")

    @pytest.mark.parametrize("name", ["v1.2", "sehr gut", ".hidden"])
    def test_usual_run_names_are_fine(self, name: str) -> None:
        assert from_mapping(MINIMAL | {"name": name}, where="a test").name == name

    def test_required_fields_are_named_even_without_their_section(self) -> None:
        found = refusal({})
        assert "model.name: is missing" in found
        assert "data.train: is missing" in found

    def test_a_section_that_is_no_table(self) -> None:
        assert "[train]" in refusal(MINIMAL | {"train": 3}, "train.epochs=1")

    @pytest.mark.parametrize(
        ("values", "first", "others"),
        [
            (with_values(pack={"max_seq_length": 100, "row_tokens": 99}), "pack.row_tokens", ["99", "100"]),
            (
                with_values(data={"validation": ["v.jsonl"], "validation_ratio": 0.1}),
                "data.validation_ratio",
                ["data.validation;"],
            ),
            (
                with_values(train={"warmup_steps": 10, "warmup_ratio": 0.03}),
                "train.warmup_steps",
                ["train.warmup_ratio"],
            ),
            (with_values(model={"method": "full"}, lora={"rank": 16}), "lora.rank", ["model.method"]),
            (with_values(model={"method": "prompt"}, lora={"rank": 16}), "lora.rank", ['"prompt"', '"lora"']),
            (with_values(qlora={"double_quantization": True}), "qlora.double_quantization", ['"qlora"']),
            (with_values(model={"method": "qlora"}, prompt={"text": "Hi"}), "prompt.text", ['"prompt"']),
            (with_values(model={"freeze": ["norm"]}), "model.freeze", ["model.method", "lora"]),
            (with_values(model={"method": "qlora"}, lora={"init": "pissa"}), "lora.init", ["4 bits"]),
            (with_values(model={"method": "qlora"}, lora={"init": "corda"}), "lora.init", ["4 bits"]),
            (with_values(model={"method": "lora"}, lora={"init": "loftq"}), "lora.init", ["qlora"]),
            (with_values(lora={"init": "pissa", "init_tokens": 5000}), "lora.init_tokens", ["looks at no data"]),
            (with_values(lora={"init": "olora", "dora": True}), "lora.dora", ["lora.init"]),
            (
                with_values(data={"weights": {"b.jsonl": 2.0}}),
                "data.weights",
                ["names b.jsonl", *MINIMAL["data"]["train"]],
            ),
            (with_values(train={"optimizer": "adafactor", "beta1": 0.8}), "train.beta1", ['"adafactor"']),
            (with_values(train={"kl_to_base": 1.0}), "train.kl_to_base", ["nothing is replayed"]),
            (
                with_values(data={"replay": ["g.jsonl"], "replay_ratio": 0.0}, train={"kl_to_base": 1.0}),
                "train.kl_to_base",
                ["nothing is replayed"],
            ),
            (
                with_values(model={"method": "prompt"}, data={"replay": ["g.jsonl"]}, train={"kl_to_base": 1.0}),
                "train.kl_to_base",
                ['"prompt"', "stays its base"],
            ),
            (
                with_values(lora={"init": "olora"}, data={"replay": ["g.jsonl"]}, train={"kl_to_base": 1.0}),
                "train.kl_to_base",
                ["not the base"],
            ),
            (
                with_values(
                    lora={"modules_to_save": ["norm"]}, data={"replay": ["g.jsonl"]}, train={"kl_to_base": 1.0}
                ),
                "train.kl_to_base",
                ["lora.modules_to_save"],
            ),
            (with_values(data={"replay_ratio": 0.1}), "data.replay_ratio", ["data.replay names nothing"]),
            (with_values(data={"replay": MINIMAL["data"]["train"]}), "data.replay", MINIMAL["data"]["train"]),
            (with_values(model={"method": "prompt"}, train={"l2_to_base": 1.0}), "train.l2_to_base", ['"prompt"']),
            (with_values(lora={"init": "pissa"}, train={"l2_to_base": 1.0}), "train.l2_to_base", ["not the base"]),
            (with_values(lora={"dora": True}, train={"l2_to_base": 1.0}), "train.l2_to_base", ["lora.dora"]),
            (
                with_values(model={"adapter": "continue"}, train={"l2_to_base": 1.0}),
                "train.l2_to_base",
                ["model.adapter", '"merge"'],
            ),
            (
                with_values(train={"l2_to_base": 600.0, "learning_rate": 2e-3}),
                "train.l2_to_base",
                ["0.002", "jump over the base"],
            ),
            (
                with_values(train={"early_stopping_patience": 3}),
                "train.early_stopping_patience",
                ["data.validation_ratio"],
            ),
        ],
    )
    def test_contradictions(self, values: dict[str, Any], first: str, others: list[str]) -> None:
        found = refusal(values)
        assert found.startswith(f"{first}: ")
        for other in others:
            assert other in found

    def test_replies_of_the_base_can_be_held_to_it(self) -> None:
        values = with_values(data={"self_replay": ["prompts.jsonl"]}, train={"kl_to_base": 1.0})
        assert Settings.model_validate(values).train.kl_to_base == 1.0

    def test_contradictions_are_found_when_settings_are_built_in_python(self) -> None:
        with pytest.raises(ValidationError, match=r"pack\.row_tokens: is 3"):
            Settings(model=ModelSettings(name="{x}"), data=DataSettings(train=["a"]), pack=PackSettings(row_tokens=3))

    def test_no_contradiction_is_claimed_about_a_value_that_is_wrong_already(self) -> None:
        found = refusal(with_values(pack={"max_seq_length": 4096, "row_tokens": "8k"}))
        assert found == 'pack.row_tokens: is "8k", should be a whole number'

    def test_all_problems_come_together_with_their_lines(self, tmp_path: Path) -> None:
        text = (
            '[model]\nname = "x"\n[data]\ntrain = ["a", 3]\n[pack]\nmax_seq_length = 4096\nrow_tokens = 9\n'
            "[train]\nepoch = 1\nbeta1 = 2\n"
        )
        path = write(tmp_path, text)
        with pytest.raises(ConfigError) as caught:
            load(path, ["evaluate.before=1", "nonsense"])
        error = caught.value
        assert error.what == f"6 problems in {path}"
        found = error.found or ""
        assert found.count("\n    - ") == 6
        assert "data.train[1]: is 3" in found
        assert "(line 4)" in found
        assert "pack.row_tokens: is 9, less than pack.max_seq_length = 4096" in found
        assert "train.epoch: is not a known field; did you mean train.epochs? (line 9)" in found
        assert "train.beta1: is 2, should be less than 1 (line 10)" in found
        assert "evaluate.before: is 1, should be true or false (from an override)" in found
        assert "override 'nonsense'" in found

    def test_one_problem_is_pointed_at_by_file_and_line(self, tmp_path: Path) -> None:
        path = write(tmp_path, RECIPE.replace("epochs = 3", "epochs = -3"))
        with pytest.raises(ConfigError) as caught:
            load(path)
        assert caught.value.what == f"1 problem in {path}"
        assert caught.value.where == f"{path}:12"

    def test_long_values_are_shortened(self) -> None:
        assert len(refusal(with_values(train={"epochs": "x" * 5000}))) < 200


class TestNearestNames:
    @pytest.mark.parametrize(
        ("section", "key", "right"),
        [
            ("train", "learning_rat", "train.learning_rate"),
            ("train", "epoch", "train.epochs"),
            ("lora", "learning_rate", "train.learning_rate"),
            ("train", "max_seq_length", "pack.max_seq_length"),
            ("data", "seed", "seed"),
            ("train", "name", "name or model.name"),
            ("train", "lr", "train.learning_rate"),
            ("model", "lora_r", "lora.rank"),
            ("model", "load_in_4bit", "model.method"),
            ("lora", "init_lora_weights", "lora.init"),
            ("prompt", "num_virtual_tokens", "prompt.tokens"),
            ("trian", "epochs", "train.epochs"),
            ("optimizer", "beta_1", "train.beta1"),
        ],
    )
    def test_unknown_key(self, section: str, key: str, right: str) -> None:
        found = refusal(with_values(**{section: {key: 1}}))
        assert found.startswith(f"{section}.{key}: ")
        assert f"did you mean {right}?" in found

    def test_right_key_outside_its_section(self) -> None:
        assert "did you mean train.learning_rate?" in refusal(MINIMAL | {"learning_rate": 1e-4})

    def test_nothing_near(self) -> None:
        assert "--explain" in refusal(MINIMAL | {"zzzzqqqq": 1})

    def test_names_of_other_tools_lead_to_fields_that_exist(self) -> None:
        assert set(OTHER_TOOLS_NAMES.values()) <= set(paths())
        assert not set(OTHER_TOOLS_NAMES) & {path.rpartition(".")[2] for path in paths()}


class TestOverrides:
    @pytest.mark.parametrize(
        ("override", "expected"),
        [
            ("train.learning_rate=2e-5", 2e-5),
            ("train.epochs=3", 3.0),
            ("train.max_steps=100", 100),
            ("data.strict=true", True),
            ("model.name=owner/other", "owner/other"),
            ("model.name='7'", "7"),
            ("name=second try", "second try"),
            ("model.method=full", "full"),
            ('lora.target_modules=["q_proj", "v_proj"]', ["q_proj", "v_proj"]),
            ("lora.target_modules=all-linear", "all-linear"),
            ('data.train=["x=y.jsonl"]', ["x=y.jsonl"]),
            (" render.template = a=b.jinja ", "a=b.jinja"),
            ("render.date=2025-03-04", "2025-03-04"),
            ('data.columns={prompt = "q"}', {"prompt": "q"}),
            ("folder=runs\nseed = 3", "runs\nseed = 3"),
        ],
    )
    def test_each_type(self, override: str, expected: object) -> None:
        value: object = from_mapping(MINIMAL, [override], where="a test")
        for part in override.partition("=")[0].strip().split("."):
            value = getattr(value, part)
        assert value == expected
        assert type(value) is type(expected)

    def test_keys_of_the_users_own(self) -> None:
        settings = from_mapping(
            with_values(data={"columns": {"prompt": "q"}}),
            ["data.columns.response=a", "render.template_arguments.enable_thinking=false"],
            where="a test",
        )
        assert settings.data.columns == {"prompt": "q", "response": "a"}
        assert settings.render.template_arguments == {"enable_thinking": False}

    def test_the_last_one_wins(self) -> None:
        assert from_mapping(MINIMAL, ["seed=1", "seed=2"], where="a test").seed == 2

    def test_an_empty_value_brings_the_default_back(self) -> None:
        values = with_values(train={"max_steps": 5, "warmup_ratio": 0.1})
        settings = from_mapping(values, ["train.max_steps=", "train.warmup_ratio=", "train.warmup_steps=9"], where="x")
        assert settings.train.max_steps is None
        assert settings.train.warmup_steps == 9

    @pytest.mark.parametrize(
        ("override", "said"),
        [
            ("train.epochs", "section.field=value"),
            ("=3", "section.field=value"),
            ("train=3", "train.field=value"),
            ("train.epoch=3", "did you mean train.epochs?"),
            ("epochs=3", "did you mean train.epochs?"),
            ("train.epochs.x=3", "not a known field"),
            ("data.columns.=x", "not a known field"),
        ],
    )
    def test_bad_overrides(self, override: str, said: str) -> None:
        found = refusal(MINIMAL, override)
        assert found.startswith(f"override '{override}'")
        assert said in found

    def test_nothing_fits_below_a_plain_value(self) -> None:
        below = "render.template_arguments.mode.fast=true"
        assert refusal(MINIMAL, "render.template_arguments.mode=1", below).startswith(f"override '{below}'")

    def test_a_wrong_value_says_it_came_from_an_override(self, tmp_path: Path) -> None:
        path = write(tmp_path, RECIPE)
        with pytest.raises(ConfigError, match="from an override") as caught:
            load(path, ["train.epochs=-1"])
        assert caught.value.where == str(path)


class TestLimits:
    """Absurd settings end in a ConfigError, whatever their field."""

    @pytest.mark.parametrize(
        ("override", "words"),
        [
            ("lora.rank=1" + "0" * 12, "lora.rank: is 1000000000000, should be less than or equal to 65536"),
            ("lora.alpha=1" + "0" * 400, "lora.alpha: is a number of more than 64 bits"),
            ("lora.rank=" + "1" * 5000, "has a number of more digits than can be read"),
            ("model.threads=1" + "0" * 14, "should be less than or equal to 4096"),
            ("train.learning_rate=1e300", "is 1e+300, should be at most 3e+38"),
            ("train.epochs=1e400", "train.epochs: is inf"),
            ("pack.max_seq_length=99999999999", "should be less than or equal to 2147483647"),
            ("render.template_arguments.x=" + "[" * 3000 + "]" * 3000, "nested too deep"),
            (
                "render.template_arguments.x=" + "[" * 40 + "]" * 40,
                "render.template_arguments: is nested more than 32 deep",
            ),
            (
                "render.template_arguments.x=1" + "0" * 30,
                "render.template_arguments.x: is a number of more than 64 bits",
            ),
            ('name="a\\u0000b"', "holds the character U+0000"),
            ('name="a\\u001b[31m"', "without line ends or control characters"),
            ("name=" + "ä" * 120, "should be at most 200 bytes long"),
            ('data.train=["caf\udce9.jsonl"]', "is not Unicode text"),
        ],
    )
    def test_b25_absurd_values(self, override: str, words: str) -> None:
        with pytest.raises(ConfigError) as caught:
            from_mapping({"model": {"name": "m"}, "data": {"train": ["x"]}}, [override], where="here")
        assert words in str(caught.value)
        assert len(str(caught.value)) < 1500

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("seed = " + "1" * 4301, "a number of more digits than can be read"),
            ("[render.template_arguments]\nx = " + "[" * 3000 + "]" * 3000, "nested too deep"),
            ("a." * 2000 + "b = 1", "is nested more than 32 deep"),
            ("#" * (4 * 2**20 + 1), "too large to be a recipe"),
        ],
    )
    def test_b25_absurd_recipes(self, tmp_path: Path, text: str, words: str) -> None:
        path = tmp_path / "recipe.toml"
        path.write_text(text, "utf-8")
        with pytest.raises(ConfigError) as caught:
            load(path)
        assert words in str(caught.value)

    def test_a_device_that_never_ends_is_no_recipe(self) -> None:
        with pytest.raises(ConfigError, match="too large to be a recipe"):
            load("/dev/zero")


class TestNamesInProblems:
    @pytest.mark.parametrize("key", ["[/red]", "a[0]", "list", "literal['x']", "nullable"])
    def test_an_unknown_key_is_named_as_it_is(self, key: str) -> None:
        with pytest.raises(ConfigError) as caught:
            from_mapping({"model": {"name": "m"}, "data": {"train": ["x"]}, "train": {key: 1}}, where="here")
        assert f"train.{key}: is not a known field" in str(caught.value)

    def test_branches_of_a_union_are_no_part_of_the_name(self) -> None:
        values = {
            "model": {"name": "m"},
            "data": {"train": ["x"], "weights": {"li[st": -1}},
            "lora": {"target_modules": [1]},
        }
        with pytest.raises(ConfigError) as caught:
            from_mapping(values, where="here")
        assert "lora.target_modules[0]: is 1" in str(caught.value)
        assert "data.weights.li[st: is -1" in str(caught.value)


@pytest.mark.parametrize("text", ["nan", "inf", "true", "2024", "1e5", "2024-01-01"])
def test_text_needs_no_quotes_where_nothing_but_text_fits(text: str) -> None:
    base = {"model": {"name": "m"}, "data": {"train": ["x"]}}
    found = from_mapping(
        base, [f"name={text}", f"model.name={text}", f"prompt.text={text}", "model.method=prompt"], where="here"
    )
    assert (found.name, found.model.name, found.prompt.text) == (text, text, text)

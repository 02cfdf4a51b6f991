"""Recipe in, settings out, and back: TOML plus overrides, every problem reported at once."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError

from tutelage.config.limits import MAX_RECIPE_BYTES, limit_problems
from tutelage.config.method import DATA_DRIVEN_INITS
from tutelage.config.naming import MAPPING_FIELDS, did_you_mean, is_text_field, paths, section_types
from tutelage.config.problems import Origin, Problem, problems_in, raise_problems
from tutelage.config.sections import Section
from tutelage.config.settings import READS, Settings, unread_by_optimizer
from tutelage.config.sizes import sized
from tutelage.errors import ConfigError, SourceNotFoundError, cause_of

EXCERPT_CHARACTERS = 120
UNREADABLE = ("a number of more digits than can be read", "tables or lists that are nested too deep to be read")
"""By whether Python ran out of calls."""
NO_MODEL = "none"
EACH_OTHER_SOURCE = "*"  # in tables by source
"""Stands for the model where none is needed."""


def load(path: str | Path, overrides: Sequence[str] = ()) -> Settings:
    """Read a TOML recipe, apply overrides, check everything, and resolve what was left out.

    Args:
        path: the recipe. Paths inside it start from the current folder, not from the recipe's.
        overrides: `section.field=value`; the value is read as TOML, or as text where it is not TOML. An empty value
            takes the field out, so that its default holds again. A later override wins over an earlier one.
            `size=NAME` chooses among the sizes of a recipe (`config.sizes`).

    Returns:
        Resolved settings: `name` is the recipe's file name without its ending where the recipe gives none, and
        `train.learning_rate` is a number.

    Raises:
        SourceNotFoundError: there is no such file, or it cannot be read.
        ConfigError: it is not TOML, or at least one value cannot work; all problems are in the one error.
    """
    values, origin = _read(Path(path))
    return _build(values, overrides, origin, name=Path(path).stem)


def load_curation(path: str | Path | None, overrides: Sequence[str] = (), *, sources: Sequence[str] = ()) -> Settings:
    """Settings of a curation, which needs no model: a recipe, or a file with nothing but `[curate]`, or nothing.

    Args:
        path: the file; None takes the defaults.
        overrides: as for `load`.
        sources: what is curated, in place of the file's `data.train`.

    Raises:
        SourceNotFoundError, ConfigError: as `load`; or nothing is named to curate.
    """
    values, origin = ({}, Origin("the command line")) if path is None else _read(Path(path))
    values = {name: _as_dict(value) for name, value in values.items()}
    for section in ("model", "data"):
        values.setdefault(section, {})
    if isinstance(values["model"], dict):
        values["model"].setdefault("name", NO_MODEL)
    if sources:
        _take_sources(values, sources)
    tables = _data_tables(values)
    if tables and not any("train" in table for table in tables):
        raise ConfigError(
            "No data was named to curate", where=origin.where, found="neither DATA nor data.train",
            expected="files, folders, globs, or a hub data set", fix="tutelage curate DATA -o OUT",
        )  # fmt: skip
    values.setdefault("curate", {})
    return _build(values, overrides, origin, name=None)


def _data_tables(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The table `data` of all sizes, and of each."""
    sizes = values.get("size")
    owners = [values, *(sizes.values() if isinstance(sizes, Mapping) else ())]
    return [table for owner in owners if isinstance(owner, Mapping) and isinstance(table := owner.get("data"), dict)]


def _take_sources(values: Mapping[str, Any], sources: Sequence[str]) -> None:
    """Put what was named in the place of the data of every size, whose folder it is not in."""
    for table in _data_tables(values):
        table.pop("folder", None)
        table["train"] = list(sources)


def is_recipe(path: str | Path) -> bool:
    """Whether a file has a section of a recipe, and is no task file, which has templates; an unreadable one is none."""
    try:
        names = tomllib.loads(Path(path).read_text(encoding="utf-8")).keys() if Path(path).is_file() else set()
    except (OSError, ValueError, RecursionError):
        return False
    return not names.isdisjoint({"model", "data", "synthesize"}) and "templates" not in names


def _read(path: Path) -> tuple[dict[str, Any], Origin]:
    text = _read_text(path)
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _syntax_error(path, text, error) from error
    except (ValueError, RecursionError) as error:  # what Python's reader of TOML lets through
        raise ConfigError(
            f"The recipe {path} cannot be read",
            where=str(path),
            found=UNREADABLE[type(error) is RecursionError],
            expected="numbers of 64 bits, and tables and lists a few deep",
            fix="correct the value, or begin with a recipe that works",
        ) from error
    return values, Origin(str(path), _key_lines(text))


def from_mapping(values: Mapping[str, Any], overrides: Sequence[str] = (), *, where: str) -> Settings:
    """Settings from a nested mapping (`{"model": {"name": ...}, ...}`), checked and resolved as `load` does.

    Args:
        values: sections by name, each a mapping of its fields; not changed.
        overrides: as for `load`.
        where: words for where the values came from, for the error.

    Raises:
        ConfigError: at least one value cannot work; all problems are in the one error.
    """
    return _build(values, overrides, Origin(where), name=None)


def dump(settings: Settings) -> str:
    """The resolved settings as TOML; `from_mapping` and `load` read it back to equal settings.

    Fields without a value are left out, as TOML has none, and so is what the rest switches off: sections of
    other methods, `[curate]` and `[synthesize]` of a recipe without them, `train.warmup_ratio` where
    `train.warmup_steps` is set, `data.replay_ratio` of nothing, what `train.optimizer` or `lora.init` leaves unread.
    """
    values = settings.resolved().model_dump(exclude_none=True)
    for name in {"lora", "qlora", "prompt"} - set(READS[settings.model.method]):
        del values[name]
    for name in ("synthesize", "curate"):
        if name not in settings.model_fields_set:
            del values[name]
    if settings.train.warmup_steps is not None:
        del values["train"]["warmup_ratio"]
    if not settings.data.replays:
        del values["data"]["replay_ratio"]
    if not settings.data.self_replay and "self_replay_tokens" not in settings.data.model_fields_set:
        del values["data"]["self_replay_tokens"]
    for name in unread_by_optimizer(settings.train):
        del values["train"][name]
    if settings.lora.init not in DATA_DRIVEN_INITS and "lora" in values:
        del values["lora"]["init_tokens"]
    return tomli_w.dumps(values)


def _build(values: Mapping[str, Any], overrides: Sequence[str], origin: Origin, *, name: str | None) -> Settings:
    values, overrides, origin = sized(values, overrides, origin)
    merged = {key: _as_dict(value) for key, value in values.items()}
    problems: list[Problem] = []
    for override in overrides:
        problem = _apply_override(override, merged, origin)
        if problem is not None:
            problems.append(problem)
    if name is not None:
        merged.setdefault("name", name)
    raise_problems(limit_problems(merged) and [*limit_problems(merged), *problems], origin)
    _join_folder(merged)
    settings = None
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        problems = problems_in(merged, error) + problems
    raise_problems(problems, origin)
    assert settings is not None, "a failed validation names at least one problem"
    return settings.resolved()


def _join_folder(values: dict[str, Any]) -> None:
    """Put `data.folder` before the names that it is for, and take it out: what is kept says each file in full."""
    data = values.get("data")
    if not isinstance(data, dict) or not isinstance(data.get("folder"), str) or not data["folder"]:
        return
    folder = Path(data.pop("folder"))
    for key in ("train", "validation", "replay"):
        if isinstance(data.get(key), list):
            data[key] = [str(folder / name) if isinstance(name, str) and name else name for name in data[key]]
    for key in ("weights", "licenses"):
        if isinstance(data.get(key), Mapping):
            data[key] = {str(folder / name): value for name, value in data[key].items()}
    quotas = _table(_table(values, "curate"), "select").get("quotas")
    if isinstance(quotas, dict):
        values["curate"]["select"]["quotas"] = {
            name if name == EACH_OTHER_SOURCE else str(folder / name): most for name, most in quotas.items()
        }


def _table(values: dict[str, Any], name: str) -> dict[str, Any]:
    inner = values.get(name)
    return inner if isinstance(inner, dict) else {}


def _as_dict(value: Any) -> Any:
    """A section as a dict of its own, so that overrides change only this copy."""
    if isinstance(value, Section):
        return value.model_dump(exclude_unset=True)
    return dict(value) if isinstance(value, Mapping) else value


def _apply_override(override: str, values: dict[str, Any], origin: Origin) -> Problem | None:
    """Write one override into `values` and note it in `origin`; return what is wrong with the override itself."""
    path, equals, text = override.partition("=")
    path = path.strip()
    if not equals or not path:
        return Problem(f"override '{override}'", "has no name and value; write it as section.field=value")
    if path in section_types() or any(known.startswith(f"{path}.") for known in paths()):
        return Problem(f"override '{override}'", f"names a whole section; write {path}.field=value")
    is_user_key = path.startswith(tuple(f"{field}." for field in MAPPING_FIELDS)) and "" not in path.split(".")
    if path not in paths() and not is_user_key:
        return Problem(f"override '{override}'", f"{path} is not a known field; {did_you_mean(path)}")
    *outer, key = path.split(".")
    table = values
    for section in outer:
        inner = table.setdefault(section, {})
        if not isinstance(inner, Mapping):
            return Problem(
                f"override '{override}'", f"{section} is set to a value, not a table, so nothing fits below it"
            )
        table[section] = dict(inner)
        table = table[section]
    origin.overridden.add(path)
    if text.strip():
        try:
            table[key] = _override_value(text.strip(), text_alone=is_text_field(path))
        except (ValueError, RecursionError) as error:
            return Problem(f"override '{path}=...'", f"has {UNREADABLE[type(error) is RecursionError]}")
    else:
        table.pop(key, None)
    return None


def _override_value(text: str, *, text_alone: bool) -> object:
    """The value that an override gives.

    Args:
        text: TOML, or plain text.
        text_alone: the field takes nothing but text, so that `nan` or `2024` need no quotes.

    Raises:
        ValueError: a number of more digits than Python reads.
        RecursionError: nested too deep.
    """
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    # A line break in the text can smuggle in further keys; then it was not one value.
    if len(parsed) != 1 or (text_alone and not isinstance(parsed["value"], str | list | dict)):
        return text
    return parsed["value"]


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_RECIPE_BYTES + 1)
    except FileNotFoundError as error:
        siblings = [sibling.name for sibling in path.parent.glob("*.toml")] if path.parent.is_dir() else []
        similar_names = difflib.get_close_matches(path.name, siblings, n=1)
        raise SourceNotFoundError(
            f"There is no recipe {path}",
            where=str(path),
            found="no such file",
            expected="a TOML file",
            fix=f"did you mean {path.parent / similar_names[0]}?"
            if similar_names
            else "check the path; it starts from this folder",
        ) from error
    except OSError as error:
        raise SourceNotFoundError(
            f"The recipe {path} cannot be read",
            where=str(path),
            found=cause_of(error),
            expected="a TOML file that may be read",
            fix="give the path of the file itself",
        ) from error
    if len(content) > MAX_RECIPE_BYTES:
        raise ConfigError(
            f"{path} is too large to be a recipe",
            where=str(path),
            found=f"more than {MAX_RECIPE_BYTES // 2**20} MiB",
            expected="a TOML file",
            fix="give the recipe; data goes into its data.train",
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"The recipe {path} is not UTF-8 text",
            where=f"{path}:{line}",
            found=f"byte 0x{content[error.start]:02x}",
            expected="UTF-8, as TOML asks for",
            fix="save the file as UTF-8",
        ) from error


def _syntax_error(path: Path, text: str, error: tomllib.TOMLDecodeError) -> ConfigError:
    message = str(error)
    at = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", message)
    all_lines = text.splitlines() or [""]
    number = int(at[1]) if at and at[1] else len(all_lines)
    line = all_lines[min(number, len(all_lines)) - 1].strip()
    return ConfigError(
        f"The recipe {path} is not valid TOML",
        where=f"{path}:{number}",
        found=f"{line[:EXCERPT_CHARACTERS] or 'an empty line'}  ({message[: at.start()] if at else message})",
        expected='lines such as  key = "text",  key = 3  or  [section]',
        fix=f"correct line {number}; text needs quotes, and no field may be given twice",
    )


def _key_lines(text: str) -> dict[str, int]:
    """Line number (from 1) by dotted path, for keys written in the plain way; only used to point at problems."""
    line_numbers: dict[str, int] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), start=1):
        header = re.match(r"\s*\[\s*([\w.\-]+)\s*\]", line)
        pair = re.match(r"\s*([\w.\-]+)\s*=", line)
        if header:
            section = header[1]
            line_numbers.setdefault(section, number)
        elif pair:
            line_numbers.setdefault(f"{section}.{pair[1]}" if section else pair[1], number)
    return line_numbers

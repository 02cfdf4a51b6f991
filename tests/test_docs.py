"""Words are tested: commands in the pages run, names in them exist, tables agree with the code and the data."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from tests.support import warm_processes
from tutelage import config
from tutelage.cli.app import app
from tutelage.config.naming import paths
from tutelage.curate import most_similar
from tutelage.evaluate.checks import CHECKS
from tutelage.model.embedded import embedded_models
from tutelage.types import Address, Conversation, Message

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "tutelage"
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "datasets/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}

LONG = "# long"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
DOTTED = re.compile(r"\btutelage(?:\.\w+)+")
REPOSITORY_PATH = re.compile(r"(?:src|tests|recipes|datasets|examples|docs|requirements|\.ci)/[\w./-]+")
SETTING = re.compile(
    r"(?:(?:curate|synthesize)\.(?:\w+\.)*|(?:model|lora|qlora|prompt|data|render|pack|train|evaluate)\.)"
    r"(\w+)(?: ?=.*)?"
)
"""Only [curate] and [synthesize] have tables in their tables; names of weights and others' settings have dots, too."""
FILE_ENDINGS = {"py", "lock", "jsonl", "json", "toml", "parquet"}

OUTSIDE_WORDS = {
    "an absolute path": r"(?<![\w~$.}/])/(?:home|root|tmp|work|usr|var|opt|Users)\b",
    "a web address": r"https?://|\bwww\.|\b(?:pypi|pythonhosted|huggingface)\.(?:org|co|com)\b",
    "how it came to be": r"(?i)\b(?:sessions?|workplace|sandbox machine|sub-?agents?|co-?author(?:ed)?|transcript)\b",
}
"""The pages speak of the project alone: what holds on one machine, or for one author, is of no use to a reader."""

EMBEDDED = embedded_models()["smollm2-135m"]["package"]
needs_model = pytest.mark.skipif(
    importlib.util.find_spec(EMBEDDED) is None, reason=f"the embedded model's package {EMBEDDED} is not installed"
)


def blocks(text: str, language: str) -> list[str]:
    return [body for found, body in FENCE.findall(text) if found == language]


def table_rows(text: str, heading: str) -> list[list[str]]:
    """Cells of the table whose first header cell is `heading`."""
    lines = text.split("\n")
    start = next(index for index, line in enumerate(lines) if line.startswith(f"| {heading} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


def shell_lines() -> Iterator[tuple[str, str]]:
    for name, text in TEXTS.items():
        for block in blocks(text, "bash"):
            for line in block.replace("\\\n", " ").split("\n"):
                if line.strip():
                    yield name, line.strip()


COMMANDS = list(dict.fromkeys(line for _, line in shell_lines() if line.startswith("tutelage ")))
SHORT = [line for line in COMMANDS if not line.endswith(LONG)]


def tutelage(command: str, *program: str, columns: int = 80) -> subprocess.CompletedProcess[str]:
    """Run a line of a page.

    Args:
        command: the line.
        program: what Python runs, in a process that has imported torch already; nothing starts Python itself anew.
        columns: of its terminal.
    """
    environment = {key: value for key, value in os.environ.items() if key not in {"FORCE_COLOR", "TTY_COMPATIBLE"}}
    environment |= {
        "COLUMNS": str(columns),
        "NO_COLOR": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]),
    }
    arguments = shlex.split(command, comments=True)
    assert arguments[0] == "tutelage"
    if program:
        return warm_processes.run([*program, *arguments[1:]], [environment], limit_seconds=120)
    return subprocess.run(
        [sys.executable, "-m", "tutelage.cli", *arguments[1:]],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


@needs_model
@pytest.mark.parametrize("command", SHORT)
def test_command_runs(command: str):
    done = tutelage(command, str(ROOT / "tests" / "support" / "short_plans.py"))
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@needs_model
@pytest.mark.nightly
@pytest.mark.parametrize("command", [line for line in SHORT if line.startswith("tutelage plan ")])
def test_a_whole_plan_is_made_as_a_person_asks_for_it(command: str):
    done = tutelage(command)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.mark.parametrize("command", COMMANDS)
def test_command_is_one_that_the_program_accepts(command: str):
    name, *arguments = shlex.split(command, comments=True)[1:]
    group = typer.main.get_command(app)
    context = group.commands[name].make_context(name, arguments)
    for override in context.params.get("overrides") or ():
        assert override.partition("=")[0] in paths(), override


def test_other_shell_lines_are_make_targets():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page, line in shell_lines():
        if not line.startswith("tutelage "):
            command, *named = line.split()
            assert command == "make", f"{page}: nobody checks the line '{line}'"
            assert set(named) <= targets, f"{page}: {line}"


def test_pages_mention_enough_commands():
    names = {line.split()[1] for line in COMMANDS}
    assert names == {
        "see",
        "check",
        "curate",
        "demonstrate",
        "plan",
        "train",
        "evaluate",
        "export",
        "compare",
        "prefer",
        "chat",
        "report",
        "doctor",
        "synthesize",
        "serve",
    }


@needs_model
def test_the_way_of_a_row_is_what_the_command_prints():
    text = TEXTS["docs/the_way_of_a_row.md"]
    (command,) = [line for block in blocks(text, "bash") for line in block.split("\n") if line]
    shown = "".join(blocks(text, "text"))
    printed = tutelage(command, "-m", "tutelage.cli", columns=120).stdout
    assert shown.splitlines() == [line.rstrip() for line in printed.splitlines()]


def test_the_way_of_a_row_names_at_most_seven_files_that_hand_it_on():
    prose = FENCE.sub("", TEXTS["docs/the_way_of_a_row.md"])
    without_neighbours = re.sub(r"\([^()]*\)", "", prose)
    assert len(set(re.findall(r"src/tutelage/[\w/]+\.py", without_neighbours))) == 7


@needs_model
def test_json_form_of_see_has_the_keys_of_its_page():
    sequence, *_, last = map(
        json.loads, tutelage("tutelage see datasets/support/test.jsonl --json").stdout.split("\n")[:-1]
    )
    assert set(sequence) >= {"address", "example", "ids", "weights", "turns"}
    assert set(sequence["turns"][0]) >= {"message", "prompt_end", "reply_end"}
    assert set(last["summary"]) >= {"rows_in", "rows_kept", "rows_dropped", "dropped", "changed", "notes", "samples"}
    described = re.findall(r"`(\w+)`", " ".join(row[1] for row in table_rows(TEXTS["docs/render.md"], "line")))
    known = {*sequence, *sequence["turns"][0], *last, *last["summary"], "detail"}
    assert set(described) <= known


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_somewhere(page: str):
    for target in LINK.findall(FENCE.sub("", TEXTS[page])):
        assert ((ROOT / page).parent / target).resolve().is_file(), target


@pytest.mark.parametrize("page", TEXTS)
def test_paths_exist(page: str):
    spans = CODE_SPAN.findall(FENCE.sub("", TEXTS[page]))
    for span in spans:
        if REPOSITORY_PATH.fullmatch(span):
            assert (ROOT / span).exists(), span
        elif re.fullmatch(r"\w+/\w+\.py", span):
            assert (SOURCE / span).is_file(), span


@pytest.mark.parametrize("page", TEXTS)
def test_named_tests_exist(page: str):
    for file, name in re.findall(r"`(tests/[\w/]+\.py)::(?:\w+::)*(\w+)`", TEXTS[page]):
        assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{name}"


def test_dotted_names_exist():
    for page, text in TEXTS.items():
        for name in DOTTED.findall(text):
            assert _exists(name), f"{page}: {name}"


def _exists(name: str) -> bool:
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        module = ".".join(parts[:cut])
        try:
            value = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not module.startswith(error.name):
                raise
            continue
        for part in parts[cut:]:
            if part not in vars(value):
                return False
            value = vars(value)[part]
        return True
    return False


@pytest.mark.parametrize("page", TEXTS)
def test_settings_exist(page: str):
    for span in CODE_SPAN.findall(FENCE.sub("", TEXTS[page])):
        if (match := SETTING.fullmatch(span)) and match[1] not in FILE_ENDINGS:
            name = re.split(r" ?=", span)[0]
            assert any(path == name or path.startswith(f"{name}.") for path in paths()), span


@pytest.mark.parametrize("page", TEXTS)
def test_recipes_in_pages_are_accepted(page: str):
    for recipe in blocks(TEXTS[page], "toml"):
        if "templates" not in tomllib.loads(recipe):
            config.from_mapping(tomllib.loads(recipe), where=page)


@pytest.mark.parametrize("kind", OUTSIDE_WORDS)
def test_pages_and_examples_speak_of_the_project_alone(kind: str):
    texts = TEXTS | {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "examples").glob("*.py")}
    found = {name: match[0] for name, text in texts.items() if (match := re.search(OUTSIDE_WORDS[kind], text))}
    assert not found


def _reasons_in_source() -> dict[tuple[str, str], set[str]]:
    """(reason, dropped or changed) -> files that give it."""
    place = {
        "RowError": 0,
        "MissingValue": 0,
        "Unproven": 0,
        "Unmendable": 0,
        "TextEdit": 0,
        "RuleDefinition": 0,
        "Drop": 1,
        "Change": 1,
    }
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for path in sorted(SOURCE.rglob("*.py")):
        file = path.relative_to(SOURCE).as_posix()
        if file.startswith("formats/row_shapes/"):  # a file for each family; the sentence names the shape
            file = "formats/row_shapes"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in place:
                reason = node.args[place[node.func.id]]
                if isinstance(reason, ast.Constant):
                    if node.func.id != "RuleDefinition":
                        found[reason.value, "changed" if node.func.id in ("Change", "TextEdit") else "dropped"].add(
                            file
                        )
                    else:  # a rule of quality drops or reports, as its settings say
                        found[reason.value, "dropped"].add(file)
                        found[reason.value, "changed"].add(file)
                else:  # handed on from where it was given
                    assert ast.unparse(reason) in {"error.reason", "finding.reason", "reason"}, ast.unparse(node)
            elif isinstance(node, ast.FunctionDef) and node.name == "required_texts":
                yields = [one.value for one in ast.walk(node) if isinstance(one, ast.Yield)]
                for value in yields:
                    assert isinstance(value, ast.Tuple)
                    found[ast.literal_eval(value.elts[0]), "dropped"].add(file)
    return found


def test_every_reason_is_on_the_ledger_page_with_its_files_and_no_other_is():
    rows = table_rows(TEXTS["docs/ledger.md"], "reason")
    page = {(reason.strip("`"), what): set(CODE_SPAN.findall(where)) for reason, what, where, *_ in rows}
    assert len(page) == len(rows)
    assert page == _reasons_in_source()
    assert all(all(cells) for cells in rows)


def test_reasons_named_in_other_pages_are_on_the_ledger_page():
    known = {reason for reason, _ in _reasons_in_source()}
    for page in ("docs/render.md", "docs/pack.md"):
        named = re.findall(r"\((`\w+`(?:, `\w+`)*)\)", TEXTS[page])
        assert named, page
        assert {one.strip("`") for group in named for one in group.split(", ")} <= known


def test_the_order_of_imports_is_the_one_that_is_checked():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    built = [" | ".join(one for one in layer.split(" | ") if not one.startswith("(")) for layer in layers]
    (shown,) = blocks(TEXTS["docs/house.md"], "text")
    assert shown.split("\n")[:-1] == [layer for layer in built if layer]


def test_every_room_is_in_the_house():
    rooms = {path.name for path in SOURCE.iterdir() if path.is_dir() and (path / "__init__.py").is_file()}
    assert {re.search(r"tutelage/(\w+)", row[0])[1] for row in table_rows(TEXTS["docs/house.md"], "room")} == rooms - {
        "system",
        "config",
    }


def test_each_term_of_the_field_is_found_by_its_name():
    """From a listing of the files alone: a word of the term is the word of a file or of its room."""
    places = {row[0]: row[1].strip("`") for row in table_rows(TEXTS["docs/house.md"], "term")}
    assert len(places) == 24
    assert [path for path in places.values() if not (SOURCE / path).is_file()] == []
    by_another_name = {
        term
        for term, path in places.items()
        if not {word.casefold().rstrip("s") for word in re.split(r"[ -]", term)}
        & {word.rstrip("s") for word in re.split(r"[/_.]", path)}
    }
    assert by_another_name == {"gradient accumulation", "gradient clipping"}, "as the page says above the table"


def test_every_dependency_has_its_reason_and_no_other():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    page = re.findall(r"^\| ([\w-]+) \|", TEXTS["docs/dependencies.md"], re.MULTILINE)
    assert sorted(set(page) - {"package"}) == sorted(re.split(r"[<>=\[]", one)[0] for one in asked)


def test_check_kinds_are_those_of_the_code():
    rows = table_rows(TEXTS["docs/evaluate.md"], "kind")
    assert {row[0].strip("`"): set(CODE_SPAN.findall(row[1])) for row in rows} == {
        kind: {field.alias or name for name, field in model.model_fields.items()} - {"kind"}
        for kind, model in CHECKS.items()
    }


def test_counts_of_the_data_sets():
    rows = {cells[0]: [int(cell) for cell in cells[1:]] for cells in table_rows(TEXTS["datasets/README.md"], "split")}
    for split, counts in rows.items():
        lines = (ROOT / f"datasets/support/{split}.jsonl").read_text(encoding="utf-8").splitlines()
        found = [json.loads(line) for line in lines]
        replies = [json.loads(one["messages"][-1]["content"]) for one in found]
        languages = [sum(one["language"] == code for one in found) for code in ("en", "es", "de", "fr")]
        urgent = sum(reply["urgent"] for reply in replies)
        assert counts == [len(found), *languages, urgent, sum(reply["order"] is not None for reply in replies)]
    general = (ROOT / "datasets/general.jsonl").read_text(encoding="utf-8").splitlines()
    topics = [json.loads(line)["topic"] for line in general]
    assert "80 short prompts" in TEXTS["datasets/README.md"]
    assert len(topics) == 80
    assert {topics.count(topic) for topic in topics} == {10}


def test_no_general_prompt_is_nearly_among_the_demonstrations_against_forgetting():
    said = []
    for file in ("datasets/general.jsonl", "datasets/general_train.jsonl"):
        lines = [json.loads(line) for line in (ROOT / file).read_text(encoding="utf-8").splitlines()]
        texts = [line["prompt"] if "prompt" in line else line["messages"][0]["content"] for line in lines]
        said.append([Conversation((Message("user", text),), Address(file, n)) for n, text in enumerate(texts, 1)])
    likeness = most_similar(*said)
    assert likeness is not None
    assert likeness.similarity < 0.5
    assert len(said[1]) == 64


@pytest.mark.parametrize("page", TEXTS)
def test_no_code_span_runs_over_a_line_end(page: str):
    """Such a span escapes every check of names, and pairs the back-ticks after it wrongly."""
    odd = [line for line in FENCE.sub("", TEXTS[page]).split("\n") if line.count("`") % 2]
    assert not odd


@needs_model
def test_likeness_of_the_splits_is_the_one_printed():
    printed = json.loads(tutelage("tutelage check recipes/quickstart.toml --json").stdout)["most_alike"]
    text = " ".join(TEXTS["datasets/README.md"].split())
    for pair, words in {
        "train ~ validation": "{} between train and validation",
        "train ~ task": "{} between train and test",
        "validation ~ task": "{} between validation and test",
    }.items():
        assert words.format(f"{printed[pair]:.2f}") in text

"""One damaged input, and what became of it: a word for the count. What is no TutelageError goes up."""

from __future__ import annotations

import contextlib
import io
import json
import random
import tomllib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.fuzz import seeds
from benchmarks.fuzz.mutations import damaged_bytes, damaged_value

from tutelage import config, formats
from tutelage.errors import TutelageError
from tutelage.ledger import Ledger
from tutelage.pack.pipeline import proven_rows

MAX_TOKENS = 2048
WEIGHTS = (".safetensors", ".bin")


class BooksError(AssertionError):
    """The ledger does not balance, or something read back is not what was written."""


class Attempts:
    """The four kinds of input. Good ones are made once, in `folder`; attempt N is the same in every run of a seed."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed
        folder.mkdir(parents=True, exist_ok=True)

    def draw(self, kind: str, number: int) -> random.Random:
        """Random choices of one attempt."""
        return random.Random(f"{self.seed} {kind} {number}")

    def make_good_ones(self, kind: str) -> None:
        """Make what the attempts of a kind damage."""
        assert self.renderer is not None
        assert self.data_files
        if kind == "run":
            assert self.runs

    @cached_property
    def model(self) -> Path:
        """A tiny model's folder."""
        return seeds.write_model(self.folder / "model")

    @cached_property
    def renderer(self) -> Any:
        """The proof with the tiny model's tokenizer and template."""
        from tutelage.builders.renderer import renderer_for

        return renderer_for(self.model, config.RenderSettings())

    @cached_property
    def data_files(self) -> list[tuple[str, bytes]]:
        """Good data files."""
        return seeds.data_files()

    def data_file(self, number: int) -> str:
        """Read and prove the rows of a damaged file; the books must balance."""
        draw = self.draw("data", number)
        name, content = draw.choice(self.data_files)
        path = self.folder / f"{number}-{name}"
        path.write_bytes(self._damaged(name, content, draw))
        ledger = Ledger()
        try:
            read = proven_rows(
                lambda books: formats.read([str(path)], ledger=books), self.renderer, ledger, max_seq_length=MAX_TOKENS,
                workers=1,
            )  # fmt: skip
            kept = sum(1 for _ in read)
        except TutelageError as error:
            str(error)
            path.unlink()
            return "refused"
        if ledger.rows_in != ledger.rows_kept + ledger.rows_dropped or kept != ledger.rows_kept:
            raise BooksError(f"{ledger.rows_in} in, {ledger.rows_kept} kept ({kept}), {ledger.rows_dropped} dropped")
        path.unlink()
        return "some rows dropped" if ledger.rows_dropped else "all rows kept"

    def _damaged(self, name: str, content: bytes, draw: random.Random) -> bytes:
        if draw.random() < 0.5 and name.endswith((".json", ".jsonl")):
            text = content.decode()
            if name.endswith(".json"):
                return _json(damaged_value(json.loads(text), draw))
            rows = [json.loads(line) for line in text.splitlines()]
            chosen = draw.randrange(len(rows))
            rows[chosen] = damaged_value(rows[chosen], draw)
            return b"\n".join(map(_json, rows))
        return damaged_bytes(content, draw)

    def settings(self, number: int) -> str:
        """Read a damaged recipe; what is accepted must read back as it was written."""
        draw = self.draw("settings", number)
        good = seeds.recipe(self.folder, self.folder / "model", name="settings").read_text(encoding="utf-8")
        path = self.folder / f"recipe-{number}.toml"
        if draw.random() < 0.5:
            path.write_bytes(damaged_bytes(good.encode(), draw))
        else:
            fields = [field.path for field in config.explain()]
            values = ("1", "-1", "0", '""', '"x"', "[]", "[[]]", "{}", "nan", "1e400", "9" * 400, "true", "[1, 2]",
                      '"\\u0000"', "[" * 200 + "]" * 200, "1970-01-01", '"[/x]"')  # fmt: skip
            path.write_text(good, encoding="utf-8")
            overrides = [f"{draw.choice(fields)}={draw.choice(values)}" for _ in range(draw.randint(1, 3))]
            return self._read_settings(path, overrides)
        return self._read_settings(path, [])

    def _read_settings(self, path: Path, overrides: list[str]) -> str:
        try:
            settings = config.load(path, overrides)
            written = config.dump(settings)
        except TutelageError as error:
            str(error)
            path.unlink()
            return "refused"
        if config.from_mapping(tomllib.loads(written), where="dump") != settings.resolved():
            raise BooksError("settings do not read back as they were written")
        path.unlink()
        return "accepted"

    def model_folder(self, number: int) -> str:
        """Open a damaged model folder: tokenizer, template, findings, weights, one short answer."""
        draw = self.draw("model", number)
        folder = seeds.copied(self.model, self.folder / f"model-{number}")
        self._damage_one(folder, draw)
        done = self._command(["check", "--model", str(folder)])
        recipe = seeds.recipe(folder.parent, folder, name=f"on-{number}")
        trained = self._command(
            ["train", str(recipe), "train.max_steps=1", "train.checkpoint_every=1", "model.method=full"]
        )
        return f"checked: {done}, trained: {trained}"

    def _damage_one(self, folder: Path, draw: random.Random) -> None:
        for _ in range(draw.choice((1, 1, 2))):
            path = seeds.drawn_file(folder, draw)
            assert path is not None, "a copied folder has files"
            content = path.read_bytes()
            act = draw.randrange(8)
            if act == 0:
                path.unlink()
            elif act <= 4 and path.suffix == ".json":
                with contextlib.suppress(ValueError):
                    path.write_bytes(_json(damaged_value(json.loads(content), draw)))
            else:
                path.write_bytes(damaged_bytes(content, draw))

    @cached_property
    def runs(self) -> dict[str, Path]:
        """A run that was stopped after some steps, and a finished one."""
        from rich.console import Console

        from tutelage.report.console.progress import Screen
        from tutelage.train import run as run_module

        made = {}
        for name, stop in (("stopped", True), ("finished", False)):
            settings = config.load(seeds.recipe(self.folder, self.model, name=name))
            original = run_module.stop_requests
            if stop:
                run_module.stop_requests = _stop_after(4)
            try:
                run_module.run(settings, Screen(Console(file=io.StringIO())))
            finally:
                run_module.stop_requests = original
            made[name] = settings.run_folder
        return made

    def run_folder(self, number: int) -> str:
        """Go on with, report and evaluate a damaged run folder."""
        draw = self.draw("run", number)
        name = draw.choice(("stopped", "stopped", "finished"))
        saved = self.folder / "saved" / name
        if not saved.is_dir():
            seeds.copied(self.runs[name], saved)
        folder = seeds.copied(saved, self.runs[name])
        self._damage_one(folder, draw)
        commands = [["train", "--resume", str(folder)]] if name == "stopped" else [["evaluate", str(folder)]]
        commands.append(["report", str(folder)])
        return ", ".join(f"{command[0]}: {self._command(command)}" for command in commands)

    def _command(self, arguments: list[str]) -> str:
        from tutelage.cli.app import app

        out = io.StringIO()
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
                app(arguments, standalone_mode=False)
        except TutelageError as error:
            str(error)
            return "refused"
        except SystemExit as ended:
            return "done" if not ended.code else "refused"
        return "done"


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", errors="surrogatepass")


def _stop_after(steps: int) -> Callable[..., Any]:
    @contextlib.contextmanager
    def asking(_say: Any) -> Any:
        left = iter([False] * (steps - 1))
        yield lambda: next(left, True)

    return asking


def quiet() -> None:
    """Keep libraries from writing into the count."""
    import logging
    import warnings

    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")

"""`--to ollama`: a run's stops, sampling and template stand in the Modelfile; what Go cannot write is refused."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from gguf import GGUFReader
from rich.console import Console

from tests.conftest import CHATML
from tutelage import config
from tutelage.builders.export import gguf_model
from tutelage.builders.export.request import ExportRequest
from tutelage.builders.export.targets import export_run
from tutelage.errors import ConfigError, TemplateError
from tutelage.report.console.progress import Screen
from tutelage.runs import folder as run_files
from tutelage.train.run import run


@pytest.fixture(scope="module")
def trained(
    tiny_model_folder: Path, tiny_recipe: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A finished run of the tiny model that also stops at <|endoftext|>, and whose base draws tokens at 0.6."""
    folder = tmp_path_factory.mktemp("ollama")
    base = folder / "base"
    shutil.copytree(tiny_model_folder, base)
    generation = json.loads((base / "generation_config.json").read_text(encoding="utf-8"))
    (base / "generation_config.json").write_text(json.dumps(generation | {"do_sample": True, "temperature": 0.6}))
    short = ("train.max_steps=1", "evaluate.task=", "evaluate.general=", "evaluate.divergence_prompts=0")
    chosen = ("model.method=lora", f"model.name={base}", 'render.stop_tokens=["<|endoftext|>"]', *short)
    return run(config.load(tiny_recipe(folder), chosen), Screen(Console(file=io.StringIO()))).folder


@pytest.fixture
def request_of(trained: Path, tmp_path: Path, quiet_screen: Screen, monkeypatch: pytest.MonkeyPatch) -> ExportRequest:
    """Asks for a small file, which tests/cli/test_export.py compares in llama.cpp."""
    monkeypatch.setattr(gguf_model, "export_gguf", partial(gguf_model.export_gguf, prove=False))
    return ExportRequest(trained, run_files.read_settings(trained), tmp_path / "out", quiet_screen, kind="q8_0")


def test_the_folder_has_the_file_and_a_modelfile_with_stops_sampling_and_template(request_of: ExportRequest) -> None:
    folder = export_run("ollama", request_of).path
    assert sorted(path.name for path in folder.iterdir()) == ["Modelfile", "model.gguf"]
    text = (folder / "Modelfile").read_text(encoding="utf-8")
    assert text.startswith("FROM ./model.gguf\n")
    assert 'PARAMETER stop "<|im_end|>"' in text
    assert 'PARAMETER stop "<|endoftext|>"' in text
    assert "PARAMETER temperature 0.6" in text
    assert 'TEMPLATE """' in text
    assert '{{ "<|im_start|>assistant\\n" }}' in text
    fields = GGUFReader(folder / "model.gguf").fields
    assert fields["tokenizer.chat_template"].contents() == CHATML


def test_a_template_that_go_cannot_write_is_refused_and_leaves_nothing(
    request_of: ExportRequest, tmp_path: Path
) -> None:
    """As those that put something before the last turn."""
    template = tmp_path / "template.jinja"
    first = "{%- for message in messages -%}"
    template.write_text(CHATML.replace(first, first + "{% if loop.last %}!{% endif %}"), encoding="utf-8")
    render = request_of.settings.render.model_copy(update={"template": str(template)})
    settings = request_of.settings.model_copy(update={"render": render})
    with pytest.raises(TemplateError, match="cannot be written in Ollama's language") as caught:
        export_run("ollama", replace(request_of, settings=settings))
    assert "--to gguf" in str(caught.value.fix)
    assert not request_of.out.exists()


def test_options_of_other_forms_and_full_folders_are_refused(request_of: ExportRequest) -> None:
    with pytest.raises(ConfigError, match="--dtype is not read by --to ollama"):
        export_run("ollama", replace(request_of, dtype="bfloat16"))
    request_of.out.mkdir()
    (request_of.out / "mine").touch()
    with pytest.raises(ConfigError, match="holds something"):
        export_run("ollama", request_of)
    assert [path.name for path in request_of.out.iterdir()] == ["mine"]

"""A model of this machine as a generator: what it is served, that draws differ by name, and that it repeats itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tutelage.builders.local_generator import LocalGenerator
from tutelage.errors import ConfigError
from tutelage.synthesize.generator import Reply, Request, Sampling
from tutelage.synthesize.magpie import Magpie
from tutelage.synthesize.output import DROPPED, REPLIES, ROWS, Output
from tutelage.synthesize.reply_book import ReplyBook
from tutelage.synthesize.synthesis import synthesize_rows
from tutelage.types import Message

torch.set_num_threads(1)
DRAWN = Sampling(1.0, 1.0, 0.0, 12)
ASKED = ({"role": "user", "content": "Where is order 4711?"},)


@pytest.fixture
def generator(tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalGenerator:
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))
    return LocalGenerator.open(str(tiny_model_folder))


def replies_to(generator: LocalGenerator, *requests: Request) -> dict[str, Reply]:
    saved: dict[str, Reply] = {}
    assert generator.generate(requests, lambda request, reply: saved.update({request.name: reply})) is None
    return saved


def test_the_same_prompt_is_drawn_for_by_name_and_each_draw_repeats(generator: LocalGenerator) -> None:
    requests = [Request(f"request {number}", ASKED, DRAWN) for number in range(4)]
    first = replies_to(generator, *requests)
    assert len({reply.text for reply in first.values()}) > 1
    assert replies_to(generator, *reversed(requests)) == first
    prompt = len(generator.renderer.serve([Message("user", ASKED[0]["content"])]))
    assert all(prompt < reply.tokens <= prompt + 12 for reply in first.values())


def test_the_bare_beginning_is_that_of_every_served_prompt(generator: LocalGenerator) -> None:
    for text in ("Where is order 4711?", "What?"):
        served = generator.renderer.served_text([Message("user", text)])
        assert served.startswith(generator.bare_prefix_text + text)
    assert generator.bare_prefix_text.endswith("<|im_start|>user\n")


def test_a_prompt_beyond_the_positions_is_no_answer(generator: LocalGenerator) -> None:
    generator.positions = 20
    long = Request("long", ({"role": "user", "content": "order " * 60},), DRAWN)
    found = replies_to(generator, long, Request("short", (), DRAWN))
    assert found["long"].text is None
    assert "positions" in found["long"].trouble
    assert found["short"].text is not None


def test_magpie_keeps_whole_turns_alone_and_goes_on_with_the_same(
    generator: LocalGenerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tutelage.synthesize.magpie.sampling_of", lambda _table: DRAWN)
    reports = []
    for _ in range(2):
        output = Output(tmp_path / "out", {"method": "magpie"})
        book = ReplyBook(tmp_path / "out" / REPLIES, generator)
        made = synthesize_rows(Magpie(book, output), book, output, rows=1)
        reports.append((made.report, (tmp_path / "out" / DROPPED).read_bytes(), (tmp_path / "out" / ROWS).read_bytes()))
    assert reports[0] == reports[1]
    assert book.asked == 0
    assert made.report["ledger"]["rows_in"] == made.report["rows"] + made.report["ledger"]["rows_dropped"] > 0


def test_settings_of_the_machine_reach_the_model_and_others_are_refused(
    tiny_model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))
    loaded = []
    monkeypatch.setattr(
        "tutelage.builders.local_generator.cast_model", lambda model, precision: loaded.append((model, precision))
    )
    asked = ["model.precision=bf16", "model.threads=1", "evaluate.batch_prompts=3"]
    generator = LocalGenerator.open(str(tiny_model_folder), overrides=asked)
    assert len(replies_to(generator, *(Request(f"request {n}", ASKED, DRAWN) for n in range(4)))) == 4
    assert [precision for _, precision in loaded] == ["bf16"]
    assert generator.together == 3
    with pytest.raises(ConfigError, match="nothing to a model that writes rows"):
        LocalGenerator.open(str(tiny_model_folder), overrides=["train.epochs=3"])
    with pytest.raises(ConfigError, match="1 problem in --set"):
        LocalGenerator.open(str(tiny_model_folder), overrides=["model.precison=fp32"])

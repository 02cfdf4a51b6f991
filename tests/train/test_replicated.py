"""Several processes that each keep all of the model: for every method and optimizer the run of one process."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli_process import QUIET, launch, tutelage
from tests.support.compared_runs import OFTEN, Record, assert_same_course, assert_same_weights, stopped_after
from tutelage.distributed.strategy import is_sharded
from tutelage.errors import ConfigError

needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed (extra qlora)"
)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(("model.method=qlora", "train.optimizer=adamw_8bit"), marks=needs_bitsandbytes, id="qlora, 8 bit"),
        pytest.param(
            ("model.method=qlora", 'lora.modules_to_save=["embed_tokens"]'),
            marks=needs_bitsandbytes,
            id="r12, qlora and modules trained whole",
        ),
        pytest.param(("model.method=prompt", "prompt.tokens=3", "train.ema_decay=0.9"), id="prompt, average"),
        pytest.param(
            ("model.method=full", "train.optimizer=adafactor", 'model.freeze=["embed_tokens"]'), id="full, frozen"
        ),
        pytest.param(("model.method=lora", "lora.init=pissa"), id="pissa"),
        pytest.param(("model.method=lora", "lora.init=corda"), id="corda"),
        pytest.param(("model.method=lora", "model.parallel=replicate"), id="lora, as asked"),
        pytest.param(("model.method=lora", 'lora.modules_to_save=["embed_tokens"]'), id="r12, modules trained whole"),
    ],
)
def test_two_whole_models_train_as_one_and_one_goes_on(
    settings: tuple[str, ...],
    train_tiny: Callable[..., Any],
    tiny_recipe: Callable[[Path], Path],
    record_of: Callable[[Path], Record],
    tmp_path: Path,
) -> None:
    alone = train_tiny(*settings, *QUIET, *OFTEN, where="alone").folder
    done = tutelage("train", str(tiny_recipe(tmp_path / "two")), *settings, *QUIET, *OFTEN, torchrun=2)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "whole on each of 2 processes" in done.stdout
    both = tmp_path / "two" / "runs" / "tiny"

    assert_same_course(record_of(alone), record_of(both))
    assert_same_weights(alone, both, within=1e-5)

    rest = stopped_after(both, 4, tmp_path / "four")
    done = tutelage("train", "--resume", str(rest))
    assert done.returncode == 0, done.stderr[-4000:]
    assert_same_course(record_of(alone), record_of(rest))
    assert_same_weights(alone, rest, within=1e-5)


def test_the_frozen_weights_must_be_the_same_everywhere(tiny_recipe: Callable[[Path], Path], tmp_path: Path) -> None:
    """A base that another machine holds in another version would be trained into an adapter of neither."""
    recipe = tiny_recipe(tmp_path / "home")
    script = tmp_path / "other_base.py"
    script.write_text(
        "import os, sys\n"
        "from tutelage.model import load\n"
        "from tutelage.builders import method\n"
        "def loaded(*given, **named):\n"
        "    model, record = load.load(*given, **named)\n"
        "    if os.environ['RANK'] == '1':\n"
        "        model.model.norm.weight.data[3] *= 1.0001\n"
        "    return model, record\n"
        "method.load = loaded\n"
        "from tutelage.__main__ import program\n"
        "program()\n",
        encoding="utf-8",
    )

    done = launch(
        str(script), "train", str(recipe), "model.method=lora", "model.parallel=replicate", *QUIET, torchrun=2
    )

    assert done.returncode == 1
    assert "do not have the same weights of the base model" in done.stderr


def test_what_cannot_be_cut_apart_is_kept_whole_or_refused() -> None:
    plain = {"optimizer": "adamw", "method": "lora", "init": "default"}

    assert is_sharded("auto", **plain)
    assert not is_sharded("replicate", **plain)
    for other in ({"optimizer": "muon"}, {"method": "prompt"}, {"init": "pissa"}, {"init": "eva"}):
        assert not is_sharded("auto", **(plain | other))
        with pytest.raises(ConfigError, match="replicate") as caught:
            is_sharded("shard", **(plain | other))
        assert json.dumps([*other.values()])[2:-2] in str(caught.value)

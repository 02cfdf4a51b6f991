"""A run's prompts answered by vLLM, before our own model is loaded: only one of the two is in memory at a time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tutelage.builders.base_model import continued, start_folder
from tutelage.builders.dataset import Prepared
from tutelage.builders.resolved_run import resolve
from tutelage.builders.trained_model import require_as_trained, trained_folder
from tutelage.config import Settings
from tutelage.errors import ConfigError
from tutelage.generate.requests import EndedReply
from tutelage.generate.vllm_engine import WHERE, VllmEngine, require_vllm
from tutelage.model.out_of_memory import release_memory
from tutelage.report.console.progress import Screen
from tutelage.types import Message, TokenIds

ADAPTER_CONFIG = "adapter_config.json"


def require_answerable(run: Path, settings: Settings) -> None:
    """Refuse what vLLM cannot load, before anything is.

    Args:
        run: its folder.
        settings: of it.

    Raises:
        DependencyError, EngineError: vLLM is not there, or no GPU is.
        ConfigError: it is a run of another kind than vLLM takes.
    """
    require_vllm()
    if (reason := _reason_against(run, settings)) is not None:
        raise ConfigError(
            "vLLM cannot answer for this run",
            where=WHERE,
            found=reason,
            expected="a run of full fine-tuning, or of plain LoRA",
            fix="leave --engine out",
        )


def _reason_against(run: Path, settings: Settings) -> str | None:
    """Source: what `vllm/lora/peft_helper.py` refuses; it has no prompt adapters, and computes no NF4 as ours does."""
    if settings.model.method in ("qlora", "prompt"):
        return f"model.method = {settings.model.method}"
    if settings.model.method == "full":
        return None
    adapter_config = json.loads((trained_folder(run, settings) / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    if adapter_config.get("use_dora"):
        return "an adapter of DoRA"
    if adapter_config.get("modules_to_save"):
        return f"an adapter with whole modules: {', '.join(adapter_config['modules_to_save'])}"
    if adapter_config.get("trainable_token_indices"):
        return "an adapter with rows of tokens of its own"
    return None


def replies_by_vllm(
    run: Path, settings: Settings, prepared: Prepared, *, base: bool, screen: Screen
) -> dict[bytes, EndedReply]:
    """The greedy reply to each prompt of the task and the general set, by the bytes of the prompt's ids.

    Args:
        run: its folder.
        settings: of it.
        prepared: its data.
        base: ask what it started from; False: what it trained.
        screen: told what happens.

    Raises:
        TutelageError: as `require_answerable`, or the run cannot be read.
    """
    prompts: list[TokenIds] = [prompt.ids for prompt in prepared.task]
    prompts += [prepared.renderer.serve([Message("user", item.prompt)]) for item in prepared.general]
    if not prompts:
        return {}
    asked = settings.evaluate
    start, adapters = start_folder(settings.model, log=screen.log), dict[str, Path]()
    trained = trained_folder(run, settings)
    require_as_trained(run, trained)
    if settings.model.method == "full":
        start = start if base else trained
    elif not base:
        adapters = {"tuned": trained}
    elif (started := continued(settings)) is not None:
        adapters = {"start": started.folder}
    engine = VllmEngine(
        start,
        prepared.renderer.tokenizer,
        precision=resolve(settings).precision,
        adapters=adapters,
        largest_rank=_largest_rank(adapters),
        most_tokens=max(map(len, prompts)) + asked.max_new_tokens,
        trust_remote_code=settings.model.trust_remote_code,
    )
    with screen.counting(f"Asking {len(prompts)} prompts by vLLM", len(prompts)) as done:
        replies = engine.greedy_replies(prompts, max_new_tokens=asked.max_new_tokens, done=done)
    del engine
    release_memory()
    return {prompt.tobytes(): reply for prompt, reply in zip(prompts, replies, strict=True)}


def _largest_rank(adapters: Mapping[str, Path]) -> int:
    ranks = [1]
    for folder in adapters.values():
        adapter_config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        ranks += [adapter_config["r"], *(adapter_config.get("rank_pattern") or {}).values()]
    return max(ranks)

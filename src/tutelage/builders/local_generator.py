"""A model's name -> a generator of this machine, for synthesis, which knows no torch itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tutelage.builders.base_model import start_folder
from tutelage.builders.renderer import renderer_for
from tutelage.config import ModelSettings, from_mapping
from tutelage.errors import ConfigError, TemplateError
from tutelage.formats.prompt import messages_from
from tutelage.generate.replies import PROMPTS_TOGETHER, answered_together, engine_for, likeliest_only, served_ids
from tutelage.generate.requests import Request as EngineRequest
from tutelage.generate.requests import Sampling as EngineSampling
from tutelage.model.attention.packed import use_generation_attention
from tutelage.model.checksums import model_sha256
from tutelage.model.configuration import CONFIG_FILE, causal_configuration
from tutelage.model.load import load
from tutelage.model.positions import stated_positions
from tutelage.model.precision import cast_model, resolve_precision
from tutelage.render import Renderer
from tutelage.synthesize.generator import Reply, Request, Save
from tutelage.system.files import cache_folder
from tutelage.types import Message, TokenIds

SETTINGS = ("model.precision", "model.threads", "model.trust_remote_code", "evaluate.batch_prompts", "render.")
"""Beginnings of the names of settings that change how such a model replies, or how fast."""
MARK = "qzjvk"
"""Stands where the user's words will: letters that no template writes."""


@dataclass
class LocalGenerator:
    """A model in a folder, which replies through the engine.

    Attributes:
        name: as the user named it.
        folder: of its files.
        renderer: serves the prompts.
        positions: the most tokens of prompt and reply together; None where the model states none.
        seed: of what is drawn; each request draws by its own name, too, as the same prompt may be asked twice.
        model: precision, threads, and whether its own code may run.
        together: replies that grow together.
    """

    name: str
    folder: Path
    renderer: Renderer
    positions: int | None
    seed: int = 0
    model: ModelSettings = field(default_factory=lambda: ModelSettings(name=""))
    together: int = PROMPTS_TOGETHER

    @classmethod
    def open(
        cls, name: str, *, template: str | None = None, seed: int = 0, overrides: Sequence[str] = ()
    ) -> LocalGenerator:
        """Find a model, its tokenizer and its template; weights are loaded when it is first asked.

        Args:
            name: as `model.name`: a model, an adapter or a run's folder.
            template: in place of its own.
            seed: of what is drawn.
            overrides: settings of `SETTINGS`, such as `model.precision=fp32`.

        Raises:
            TutelageError: it is not there, is no causal language model, or has no chat template; or a setting is none
                of those.
        """
        values: dict[str, Any] = {"model": {"name": name}, "data": {"train": ["-"]}}
        values |= {} if template is None else {"render": {"template": template}}
        settings = from_mapping(values, list(overrides), where="--set")
        for override in overrides:
            if not override.partition("=")[0].strip().startswith(SETTINGS):
                raise ConfigError(
                    "This setting is nothing to a model that writes rows", where="--set", found=override,
                    expected=f"one of {', '.join(SETTINGS)}", fix="leave it out",
                )  # fmt: skip
        folder = start_folder(settings.model, log=lambda _text: None)
        config = causal_configuration(folder / CONFIG_FILE, trust_remote_code=settings.model.trust_remote_code)
        renderer, positions = renderer_for(folder, settings.render), stated_positions(config)
        given = "evaluate.batch_prompts" in {override.partition("=")[0].strip() for override in overrides}
        together = settings.evaluate.batch_prompts if given else PROMPTS_TOGETHER
        return cls(name, folder, renderer, positions, seed, settings.model, together)

    def sha256(self) -> str:
        """Of its weights, tokenizer and template."""
        weights = model_sha256(self.folder, cache=cache_folder() / "sha256", log=lambda _text: None)
        parts = [weights, self.renderer.tokenizer.sha256(), self.renderer.template.sha256()]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def generate(self, requests: Sequence[Request], save: Save) -> str | None:
        """As the protocol has it; replies are saved as they end.

        Raises:
            TemplateError: the template refuses a prompt.
            ConfigError: tokens are to be drawn, and the engine does not fit the model.
        """
        asked, fitting = [], []
        for request in requests:
            ids, stops = self._prompt(request)
            room = request.sampling.max_tokens if self.positions is None else self.positions - len(ids)
            if room < 1:
                reply = Reply(None, 0, f"{len(ids)} tokens, and the model has {self.positions} positions")
                save(request, reply)
                continue
            limit = min(room, request.sampling.max_tokens)
            asked.append(EngineRequest(ids, limit, self._drawing(request), stop_strings=stops))
            fitting.append(request)
        engine = self._engine if asked else None
        for done in engine.generate(asked) if engine is not None else ():
            tokens = len(asked[done.request].prompt) + len(done.ids)
            save(fitting[done.request], Reply(done.text, tokens, is_whole=done.ended_by != "length"))
        return None

    def _drawing(self, request: Request) -> EngineSampling:
        seed = int.from_bytes(hashlib.sha256(f"{self.seed} {request.name}".encode()).digest()[:4], "little")
        sampling = request.sampling
        return EngineSampling(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            presence_penalty=sampling.presence_penalty,
            seed=seed,
        )

    @property
    def bare_prefix_text(self) -> str:
        """What a model goes on from that writes the user's turn itself."""
        return self.renderer.tokenizer.spell(self._bare_prefix[0].tolist())

    def _prompt(self, request: Request) -> tuple[TokenIds, tuple[str, ...]]:
        """Ids of the served prompt, and texts that end the reply beside the stop tokens."""
        if not request.messages:
            return self._bare_prefix
        return served_ids(self.renderer, messages_from(request.messages)), ()

    @cached_property
    def _bare_prefix(self) -> tuple[TokenIds, tuple[str, ...]]:
        """What is served in front of a user's words, and what follows them, which ends the turn.

        Raises:
            TemplateError: the template does not write the words once.
        """
        text = self.renderer.served_text([Message("user", MARK)])
        if text.count(MARK) != 1:
            raise TemplateError(
                "The model's chat template does not write the user's words once",
                where=self.renderer.template.name, found=f"{text.count(MARK)} times",
                expected="one place for the user's words", fix="choose another model or --template",
            )  # fmt: skip
        before, after = text.split(MARK)
        ids = np.asarray(self.renderer.tokenizer.encode([before])[0], dtype=np.int32)
        if not len(ids):
            raise TemplateError(
                "Nothing stands in front of the user's words in the model's chat template",
                where=self.renderer.template.name, expected="a mark of the user's turn",
                fix="choose another model or --template: without a mark there is nothing to go on from",
            )  # fmt: skip
        following = self.renderer.tokenizer.encode([after])[0]
        if following and following[0] in self.renderer.tokenizer.stop_ids:
            return ids, ()
        mark = after.strip().split("\n")[0].strip()
        return ids, (mark,) if mark else ()

    @cached_property
    def _engine(self) -> Any:
        if self.model.threads is not None:
            torch.set_num_threads(self.model.threads)
        model, _ = load(self.folder, trust_remote_code=self.model.trust_remote_code)
        cast_model(model, resolve_precision(self.model.precision))
        model.eval()
        use_generation_attention(model)
        batching = answered_together(model, self.renderer.tokenizer)
        if batching.kind != "packed":
            raise likeliest_only(model)
        return engine_for(model, self.renderer.tokenizer, batching, self.together)

"""A model with what trains it, one step at a time, for those who write their own loop."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tutelage.api.data import NO_DATA
from tutelage.api.messages import Prompts, conversations_of
from tutelage.builders.base_model import start_folder, with_adapters_own
from tutelage.builders.method import loaded_base
from tutelage.builders.model import TrainState, train_state_for
from tutelage.builders.renderer import renderer_for
from tutelage.builders.resolved_run import resolve
from tutelage.config.keywords import from_keywords
from tutelage.config.method import DATA_DRIVEN_INITS
from tutelage.config.settings import Settings
from tutelage.distributed.process_group import SINGLE
from tutelage.errors import ConfigError, TrainingError
from tutelage.export.model_folder import save_trained
from tutelage.generate.replies import replies_to
from tutelage.model.architecture import use_training_attention
from tutelage.model.token_weights import token_weights_of
from tutelage.pack import pack_rows
from tutelage.report.console.terminal import Terminal
from tutelage.types import Example


class Trainer:
    """A model with its fp32 master weights, adapter and optimizer; on one process.

    >>> trainer = Trainer(model, lora={"rank": 4})
    >>> for batch in load_data(rows, model).batches(batch_size=16):
    ...     loss = trainer.forward_backward(batch)
    ...     norm = trainer.optim_step(learning_rate=2e-3)
    >>> 0 < loss < 20
    True

    Args:
        model: a short name, folder, hub id, adapter or run to start from.
        settings: as for `train`: `method="full"`, `lora={"rank": 16}`, `optimizer="muon"`, `seed=1`. Those of data and
            schedule have no effect here: batches and learning rates are the caller's.

    Raises:
        ConfigError: a wrong setting, or a `lora.init` that looks at data.
        TutelageError: the model cannot be loaded or trained.
    """

    def __init__(self, model: str | os.PathLike[str], **settings: Any) -> None:
        keywords = {"model.name": os.fspath(model)} | NO_DATA | settings
        trainer_settings = with_adapters_own(from_keywords(keywords, where="tutelage.Trainer(...)"))
        if "lora" in trainer_settings.model.method and trainer_settings.lora.init in DATA_DRIVEN_INITS:
            raise ConfigError(
                "This start of LoRA looks at the data of a run, and a Trainer has none yet",
                where="lora.init",
                found=trainer_settings.lora.init,
                expected="one that looks at no data",
                fix="leave it out, or use tutelage.train",
            )
        self.settings: Settings = trainer_settings
        self._resolved = resolve(trainer_settings)
        start = start_folder(trainer_settings.model, log=Terminal(stderr=True).write_line)
        self._start = start
        self._renderer = renderer_for(start, trainer_settings.render)
        self._state: TrainState = train_state_for(self._resolved, start, SINGLE)
        self._attention = self._state.strategy.architecture.attention
        self._batch_losses: tuple[float, ...] = ()  # of the last batch; what a step turns into those before the next
        self._losses_before: tuple[float, ...] = ()

    def forward_backward(self, batch: Sequence[Example]) -> float:
        """Add the gradient of the batch's mean loss: the summed loss divided once by its trained tokens. Returns it.

        Called again before `optim_step`, the gradients add up.

        >>> trainer = Trainer(model, lora={"rank": 4})
        >>> trainer.forward_backward(load_data(rows, model)[:4]) > 0
        True

        Args:
            batch: examples, which are packed into rows here; attention stays inside each.

        Raises:
            ConfigError: an example is longer than `pack.row_tokens`.
        """
        state, architecture = self._state, self._state.strategy.architecture
        row_tokens, longest = self._resolved.row_tokens, max(len(example.ids) for example in batch)
        if longest > row_tokens:
            raise ConfigError(
                "An example is longer than a row",
                where="pack.row_tokens",
                found=f"{longest} tokens",
                expected=f"at most {row_tokens}",
                fix=f"make the Trainer with row_tokens={longest}",
            )
        rows = pack_rows(
            batch,
            row_tokens=row_tokens,
            share_prefixes=self._resolved.trains_on_shared_prefixes
            and architecture.shares_prefixes
            and not architecture.draws_noise,
            documents_isolated=architecture.documents_isolated,
        )
        trained_tokens = sum(row.trained_tokens for row in rows)
        token_weights = token_weights_of(self.settings.train.loss, self._losses_before)
        state.model.train()
        losses = []
        for row in rows:
            loss_sum, _ = state.strategy.row_loss(state.model, row, token_weights=token_weights)
            (loss_sum / trained_tokens).backward()
            losses.append(loss_sum.item())
        self._batch_losses = (float(sum(losses) / trained_tokens),)
        return self._batch_losses[0]

    def optim_step(self, learning_rate: float | None = None, *, max_grad_norm: float | None = None) -> float:
        """Clip the gradient, take a step, forget the gradient; returns its norm before clipping.

        >>> trainer = Trainer(model, lora={"rank": 4})
        >>> loss = trainer.forward_backward(load_data(rows, model)[:4])
        >>> trainer.optim_step(learning_rate=1e-3) > 0
        True

        Args:
            learning_rate: of this step; None takes the one of the settings.
            max_grad_norm: None takes the one of the settings.

        Raises:
            TrainingError: the gradient is not finite; the weights are as they were, and the gradient is forgotten.
        """
        optimizer = self._state.optimizer
        rate = self.settings.peak_learning_rate if learning_rate is None else learning_rate
        norm_limit = self.settings.train.max_grad_norm if max_grad_norm is None else max_grad_norm
        norm = optimizer.step(rate, max_grad_norm=norm_limit)
        if not math.isfinite(norm):
            optimizer.zero_gradients()
            raise TrainingError(
                "The gradient is not finite, so no step was taken",
                where="Trainer.optim_step",
                found=f"norm {norm}",
                expected="a finite number",
                fix="leave this batch out, or lower the learning rate",
            )
        self._losses_before = self._batch_losses
        return norm

    def sample(self, prompt: Prompts, *, max_new_tokens: int = 256) -> str | list[str]:
        """Reply as the model would now: the served prompt, greedy; a list of texts gets a list of replies.

        >>> isinstance(Trainer(model, lora={"rank": 4}).sample("Hello", max_new_tokens=2), str)
        True

        Args:
            prompt: a text, messages, or a list of texts.
            max_new_tokens: where a reply that never stops is cut.

        Raises:
            TemplateError: the model's template refuses the messages.
        """
        conversations, several = conversations_of(prompt, system=None)
        model = self._state.model
        try:
            replies = replies_to(model, self._renderer, conversations, max_new_tokens=max_new_tokens)
        finally:
            use_training_attention(model, self._attention)
            model.train()
        return replies if several else replies[0]

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write what was trained: a model's folder, or an adapter's, as other tools load them; returns it.

        >>> (Trainer(model, lora={"rank": 4}).save(folder + "/own") / "adapter_config.json").is_file()
        True

        Args:
            folder: made; refused where it holds something.

        Raises:
            ConfigError: it holds something.
            SaveError: the disk refuses.
        """
        path = Path(folder)
        if os.path.lexists(path):
            raise ConfigError(
                "The folder to save to is there already",
                where=str(path),
                expected="no such folder",
                fix="name another folder",
            )
        state, frozen = self._state, self.settings.model.freeze
        save_trained(
            state.model,
            state.optimizer,
            self._renderer,
            path,
            stored_as=state.stored_as,
            start=state.adapted.start,
            original_model=loaded_base(self._resolved, self._start)[0] if frozen else None,
        )
        return path

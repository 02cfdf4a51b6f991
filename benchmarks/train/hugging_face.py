"""Watches a run of transformers' Trainer, which both TRL and LLaMA-Factory build on, through its callbacks."""

from __future__ import annotations

from typing import Any

from benchmarks.train.measured import Measured, Stopwatch, versions_of


class Watch:
    """Times, losses, tokens and trained weights of one run; filled by the callback."""

    def __init__(self) -> None:
        self.stopwatch = Stopwatch()
        self.losses: list[float] = []
        self.tokens = 0
        self.trained_dtype = ""
        self.trained_parameters = 0

    def callback(self) -> Any:
        """What to hand to the trainer."""
        from transformers import TrainerCallback

        watch = self

        class Callback(TrainerCallback):
            def on_train_begin(self, *_given: Any, model: Any, **_more: Any) -> None:
                trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
                watch.trained_dtype = ", ".join(sorted({str(one.dtype).removeprefix("torch.") for one in trained}))
                watch.trained_parameters = sum(one.numel() for one in trained)
                watch.stopwatch.start()

            def on_step_end(self, *_given: Any, **_more: Any) -> None:
                watch.stopwatch.step()

            def on_log(self, _settings: Any, state: Any, _control: Any, logs: dict[str, Any], **_more: Any) -> None:
                watch.tokens = int(state.num_input_tokens_seen)
                if "loss" in logs:
                    watch.losses.append(float(logs["loss"]))

        return Callback()

    def tell(self, *packages: str) -> None:
        """Print what was measured, with the versions of `packages`."""
        Measured(
            step_seconds=self.stopwatch.step_seconds,
            step_losses=self.losses,
            tokens=self.tokens,
            peak_bytes=self.stopwatch.peak_bytes,
            trained_dtype=self.trained_dtype,
            trained_parameters=self.trained_parameters,
            versions=versions_of(*packages),
        ).tell()

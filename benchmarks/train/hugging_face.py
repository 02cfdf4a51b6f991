"""Watches a run of transformers' Trainer, which both TRL and LLaMA-Factory build on, through its callbacks."""

from __future__ import annotations

from typing import Any

from benchmarks.train.measured import Stopwatch


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
                trained = [one for one in model.parameters() if one.requires_grad]
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

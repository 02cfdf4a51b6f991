"""The `[train]` section: how long, how fast, how often measured and saved."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tutelage.config.sections import Section


class TrainSettings(Section):
    """The optimizer, its schedule, and when to evaluate, stop and save."""

    epochs: float = Field(
        default=2.0,
        gt=0,
        description="Times the training rows are gone through; a part such as 0.5 is allowed.",
        json_schema_extra={"source": "Alpaca uses 3; more tends to learn the rows by heart", "usual": [1.0, 3.0]},
    )
    max_steps: int | None = Field(
        default=None,
        gt=0,
        description="Stop after this many optimizer steps, even if train.epochs are not done; left out, no limit.",
        json_schema_extra={"source": "for trials; no limit by default"},
    )
    batch_examples: int = Field(
        default=16,
        gt=0,
        description="Examples per optimizer step, all packed rows together.",
        json_schema_extra={
            "source": "QLoRA (Dettmers et al. 2023, table 9) uses 16 to 64, LIMA 32 to 64, Alpaca 128",
            "usual": [16, 128],
        },
    )
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        description="Peak learning rate; left out, 2e-5 for full fine-tuning, 2e-4 for LoRA and QLoRA, 3e-2 for prompt "
        "tuning.",
        json_schema_extra={
            "source": "full: LIMA (Zhou et al. 2023, section 3) 1e-5, Alpaca 2e-5; "
            "LoRA: QLoRA (Dettmers et al. 2023, table 9) 1e-4 to 2e-4; prompt tuning: PEFT's guide 3e-2 with AdamW, "
            "Lester et al. 2021, section 3, 0.3 with Adafactor",
            "usual": "1e-05 to 5e-05 for full fine-tuning, 0.0001 to 0.0005 for LoRA and QLoRA, 0.003 to 0.3 for "
            "prompt tuning",
        },
    )
    schedule: Literal["cosine", "linear", "constant"] = Field(
        default="cosine",
        description="Shape of the learning rate after the warm-up: falls along a cosine, falls in a line, or stays.",
        json_schema_extra={"source": "Loshchilov and Hutter 2017 (SGDR), equation 5; Alpaca uses cosine, LIMA linear"},
    )
    warmup_share: float = Field(
        default=0.03,
        ge=0,
        lt=1,
        description="Share of all steps over which the learning rate climbs to its peak.",
        json_schema_extra={"source": "Alpaca uses 0.03", "usual": [0.01, 0.1]},
    )
    warmup_steps: int | None = Field(
        default=None,
        ge=0,
        description="Steps over which the learning rate climbs to its peak; takes the place of train.warmup_share.",
        json_schema_extra={"source": "common practice for supervised fine-tuning", "usual": [50, 200]},
    )
    minimum_ratio: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Where the schedule ends, as a share of the peak learning rate.",
        json_schema_extra={"source": "LIMA (Zhou et al. 2023, section 3) ends at 0.1 of the peak", "usual": [0.0, 0.1]},
    )
    weight_decay: float = Field(
        default=0.0,
        ge=0,
        description="Decoupled weight decay: the pull of the trained weights towards zero.",
        json_schema_extra={
            "source": "Loshchilov and Hutter 2019 (AdamW), section 3; Alpaca uses 0, LIMA 0.1",
            "usual": [0.0, 0.1],
        },
    )
    beta1: float = Field(
        default=0.9,
        ge=0,
        lt=1,
        description="AdamW's memory of past gradients.",
        json_schema_extra={"source": "PyTorch's AdamW default; Kingma and Ba 2015", "usual": [0.8, 0.95]},
    )
    beta2: float = Field(
        default=0.999,
        ge=0,
        lt=1,
        description="AdamW's memory of past squared gradients.",
        json_schema_extra={"source": "PyTorch's AdamW default; LIMA uses 0.95", "usual": [0.95, 0.999]},
    )
    epsilon: float = Field(
        default=1e-8,
        gt=0,
        description="AdamW's small number that keeps its division away from zero.",
        json_schema_extra={"source": "PyTorch's AdamW default; Kingma and Ba 2015", "usual": [1e-8, 1e-6]},
    )
    max_gradient_norm: float = Field(
        default=1.0,
        gt=0,
        description="Gradients with a larger norm are scaled down to it; a huge value such as 1e9 turns this off.",
        json_schema_extra={
            "source": "Pascanu et al. 2013, section 3.2; 1.0 is common, QLoRA uses 0.3",
            "usual": [0.3, 1.0],
        },
    )
    evaluate_every: int | None = Field(
        default=None,
        gt=0,
        description="Steps between measurements of held-out loss; left out, a quarter of an epoch, rounded up.",
        json_schema_extra={"source": "our choice: four points an epoch show where the loss turns up again"},
    )
    early_stop_patience: int | None = Field(
        default=None,
        gt=0,
        description="Stop after this many measurements in a row without a better held-out loss; left out, never.",
        json_schema_extra={"source": "Goodfellow et al. 2016 (Deep Learning), algorithm 7.1", "usual": [2, 10]},
    )
    checkpoint_every: int | None = Field(
        default=None,
        gt=0,
        description="Steps between checkpoints that a run can go on from; left out, only at the end.",
        json_schema_extra={"source": "the user's choice: how much work may be lost"},
    )
    keep_checkpoints: int = Field(
        default=2,
        gt=0,
        description="Newest checkpoints kept on disk; older ones are deleted.",
        json_schema_extra={
            "source": "our choice: one to go on from and one in case that one is damaged",
            "usual": [1, 10],
        },
    )

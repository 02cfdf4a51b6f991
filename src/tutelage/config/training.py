"""The `[train]` section: how long, how fast, how often measured and saved."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tutelage.config.sections import LARGEST_COUNT, Section

LARGEST_FACTOR = 3e38
"""About the largest number in fp32, in which weights are stepped."""


class TrainSettings(Section):
    """The optimizer, its schedule, and when to evaluate, stop and save."""

    epochs: float = Field(
        default=2.0,
        gt=0,
        le=1e6,
        description="Times the training rows are gone through; a part such as 0.5 is allowed.",
        json_schema_extra={"source": "Alpaca uses 3; more tends to learn the rows by heart", "usual": [1.0, 3.0]},
    )
    max_steps: int | None = Field(
        default=None,
        gt=0,
        le=LARGEST_COUNT,
        description="Stop after this many optimizer steps, even if train.epochs are not done; left out, no limit.",
        json_schema_extra={"source": "for trials; no limit by default"},
    )
    batch_size: int = Field(
        default=16,
        gt=0,
        le=LARGEST_COUNT,
        description="Examples per optimizer step, all packed rows together.",
        json_schema_extra={
            "source": "QLoRA (Dettmers et al. 2023, table 9) uses 16 to 64, LIMA 32 to 64, Alpaca 128",
            "usual": [16, 128],
        },
    )
    learning_rate: float | None = Field(
        default=None,
        gt=0,
        le=LARGEST_FACTOR,
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
    loss: Literal["cross_entropy", "dft", "talr", "eaft"] = Field(
        default="cross_entropy",
        description="How much each token counts in the gradient: all the same (cross_entropy), by the probability it "
        "has (dft), by that and the loss of the step before (talr), or by how undecided the model is there (eaft); the "
        "losses that are reported are cross-entropies either way.",
        json_schema_extra={
            "source": "Wu et al. 2025 (DFT, arXiv 2508.05629); Lin et al. 2025 (TALR, arXiv 2509.20758); Diao et al. "
            "2026 (EAFT, arXiv 2601.02151); cross_entropy is the default, as in other trainers"
        },
    )
    loss_reduction: Literal["mean", "sum"] = Field(
        default="mean",
        description="What a step follows: the mean of the losses of its trained tokens, or their sum, whose "
        "gradient is as many times longer; train.max_grad_norm cuts that too, and what is recorded is the mean.",
        json_schema_extra={
            "source": "Tulu 3's published command says --reduce_loss sum (allenai/open-instruct, docs/tulu3.md); the "
            "mean is what other trainers take"
        },
    )
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit", "adafactor", "muon"] = Field(
        default="adamw",
        description="What steps the weights: AdamW, with moments of one byte (8bit) or in memory that moves to the GPU "
        "and back (paged), Adafactor, or Muon for the matrices inside the model with AdamW for the rest.",
        json_schema_extra={
            "source": "Loshchilov and Hutter 2019 (AdamW); Dettmers et al. 2022 (8-bit) and 2023 (QLoRA, section 3: "
            "paged); Shazeer and Stern 2018 (Adafactor); Jordan et al. 2024 and Liu et al. 2025 (Muon)"
        },
    )
    lr_scheduler: Literal["cosine", "linear", "constant"] = Field(
        default="cosine",
        description="Shape of the learning rate after the warm-up: falls along a cosine, falls in a line, or stays.",
        json_schema_extra={"source": "Loshchilov and Hutter 2017 (SGDR), equation 5; Alpaca uses cosine, LIMA linear"},
    )
    warmup_ratio: float = Field(
        default=0.03,
        ge=0,
        lt=1,
        description="Share of all steps over which the learning rate climbs to its peak.",
        json_schema_extra={"source": "Alpaca uses 0.03", "usual": [0.01, 0.1]},
    )
    warmup_steps: int | None = Field(
        default=None,
        ge=0,
        le=LARGEST_COUNT,
        description="Steps over which the learning rate climbs to its peak; takes the place of train.warmup_ratio.",
        json_schema_extra={"source": "common practice for supervised fine-tuning", "usual": [50, 200]},
    )
    min_lr_ratio: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Where the schedule ends, as a share of the peak learning rate.",
        json_schema_extra={"source": "LIMA (Zhou et al. 2023, section 3) ends at 0.1 of the peak", "usual": [0.0, 0.1]},
    )
    weight_decay: float = Field(
        default=0.0,
        ge=0,
        le=LARGEST_FACTOR,
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
        description="AdamW's memory of past gradients; Adafactor has none.",
        json_schema_extra={"source": "PyTorch's AdamW default; Kingma and Ba 2015", "usual": [0.8, 0.95]},
    )
    beta2: float = Field(
        default=0.999,
        ge=0,
        lt=1,
        description="AdamW's memory of past squared gradients; Adafactor has none.",
        json_schema_extra={"source": "PyTorch's AdamW default; LIMA uses 0.95", "usual": [0.95, 0.999]},
    )
    epsilon: float = Field(
        default=1e-8,
        gt=0,
        le=LARGEST_FACTOR,
        description="AdamW's small number that keeps its division away from zero; Adafactor has none.",
        json_schema_extra={"source": "PyTorch's AdamW default; Kingma and Ba 2015", "usual": [1e-8, 1e-6]},
    )
    max_grad_norm: float = Field(
        default=1.0,
        gt=0,
        le=LARGEST_FACTOR,
        description="Gradients with a larger norm are scaled down to it; a huge value such as 1e9 turns this off.",
        json_schema_extra={
            "source": "Pascanu et al. 2013, section 3.2; 1.0 is common, QLoRA uses 0.3",
            "usual": [0.3, 1.0],
        },
    )
    activation_checkpointing: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="Keep only the input of each layer and compute the rest again in the backward pass: less memory, "
        "about a third more time, the same numbers; auto does so where a step would not fit into the free memory "
        "otherwise (several processes: for rows of more than 4,096 tokens).",
        json_schema_extra={"source": "Chen et al. 2016, section 4"},
    )
    residual_dropout: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of what a layer adds to the residual stream that is zeroed at random while training: this "
        "much at the last layer, linearly down to nothing at the first.",
        json_schema_extra={
            "source": "LIMA (Zhou et al. 2023, section 3, after Ouyang et al. 2022): 0.3, for smaller models 0.2",
            "usual": [0.0, 0.3],
        },
    )
    residual_dropout_shape: Literal["rising", "constant"] = Field(
        default="rising",
        description="Whether train.residual_dropout rises to its value from nothing at the first layer, or is the same "
        "at every layer.",
        json_schema_extra={
            "source": "rising: LIMA (Zhou et al. 2023, section 3); constant: InstructGPT (Ouyang et al. 2022, "
            "appendix C), which says 0.2 and names no layers"
        },
    )
    neftune_alpha: float | None = Field(
        default=None,
        gt=0,
        le=LARGEST_FACTOR,
        description="Strength of the noise added to the embeddings while training (NEFTune); left out, none.",
        json_schema_extra={"source": "Jain et al. 2023 (NEFTune), section 3: 5, 10 or 15", "usual": [5.0, 15.0]},
    )
    l2_to_base: float | None = Field(
        default=None,
        gt=0,
        le=LARGEST_FACTOR,
        description="Strength of a pull of the trained weights towards the model to start from, by the learning rate "
        "alone as weight decay is (L2-SP); of an adapter, what it adds to its weights is pulled to nothing; left out, "
        "none.",
        json_schema_extra={
            "source": "Li et al. 2018 (L2-SP, arXiv 1802.01483), section 3; Loshchilov and Hutter 2019, section 3 "
            "(decoupled)",
            "usual": "1 to 1000 at the learning rates of fine-tuning: AdamW moves no weight by much more than its "
            "inverse",
        },
    )
    kl_to_base: float | None = Field(
        default=None,
        gt=0,
        le=LARGEST_FACTOR,
        description="Strength with which the model is held to what its base predicts on the rows of data.replay: the "
        "divergence KL(base || model) at their trained tokens; left out, none.",
        json_schema_extra={
            "source": "Li and Hoiem 2017 (Learning without Forgetting), section 3; Shenfeld et al. 2025 (RL's Razor, "
            "arXiv 2509.04259)",
            "usual": "0.1 to 10, the weight of a replayed token's divergence beside its loss",
        },
    )
    ema_decay: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Keep a moving average of the weights that remembers this much of itself at each step, and measure "
        "and save that; left out, none.",
        json_schema_extra={
            "source": "Polyak and Juditsky 1992; Tarvainen and Valpola 2017, section 3.1, use 0.99 to 0.999",
            "usual": [0.9, 0.9999],
        },
    )
    spike_factor: float | None = Field(
        default=None,
        gt=1,
        description="A step whose loss exceeds this many times the median of the last train.spike_window losses is not "
        "taken, and ends the run with its rows named; left out, only a loss that is not finite does.",
        json_schema_extra={
            "source": "PaLM (Chowdhery et al. 2022, section 5.1) left out the batches at loss spikes; the factor "
            "is the user's choice",
            "usual": [2.0, 10.0],
        },
    )
    spike_window: int = Field(
        default=20,
        gt=0,
        le=LARGEST_COUNT,
        description="Losses whose median train.spike_factor multiplies; until there are as many, nothing is a spike.",
        json_schema_extra={
            "source": "our choice: one odd step moves no median of 20, and 20 steps follow a falling loss",
            "usual": [10, 100],
        },
    )
    evaluate_every: int | None = Field(
        default=None,
        gt=0,
        le=LARGEST_COUNT,
        description="Steps between measurements of held-out loss; left out, a quarter of an epoch, rounded up.",
        json_schema_extra={"source": "our choice: four points an epoch show where the loss turns up again"},
    )
    early_stopping_patience: int | None = Field(
        default=None,
        gt=0,
        le=LARGEST_COUNT,
        description="Stop after this many measurements in a row without a better held-out loss; left out, never.",
        json_schema_extra={"source": "Goodfellow et al. 2016 (Deep Learning), algorithm 7.1", "usual": [2, 10]},
    )
    early_stopping_forgetting: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Stop where a measurement while training (evaluate.measure_at) shows the general set lower than "
        "before by more than this share, and end with the weights of the last measurement before it; left out, never.",
        json_schema_extra={
            "source": "early stopping (Goodfellow et al. 2016, algorithm 7.1) on what is forgotten; the limit is the "
            "user's choice",
            "usual": [0.01, 0.1],
        },
    )
    trackers: list[Literal["tensorboard", "wandb", "mlflow", "trackio"]] = Field(
        default=[],
        description="Where figures are shown besides the run's folder, whose record.jsonl has them in any case.",
        json_schema_extra={"source": "the user's choice; none by default, and nothing leaves the machine"},
    )
    checkpoint_every: int | None = Field(
        default=None,
        gt=0,
        le=LARGEST_COUNT,
        description="Steps between checkpoints that a run can go on from; left out, only at the end; in several "
        "processes, where one can end all, at each evaluation.",
        json_schema_extra={"source": "the user's choice: how much work may be lost"},
    )
    keep_checkpoints: int = Field(
        default=2,
        gt=0,
        le=LARGEST_COUNT,
        description="Newest checkpoints kept on disk; older ones are deleted.",
        json_schema_extra={
            "source": "our choice: one to go on from and one in case that one is damaged",
            "usual": [1, 10],
        },
    )

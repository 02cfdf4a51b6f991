"""The sections that belong to one way of training: lora (also for qlora), qlora, prompt."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tutelage.config.sections import LARGEST_COUNT, Section, Text, TextList

Init = Literal[
    "default",
    "gaussian",
    "orthogonal",
    "pissa",
    "pissa_niter_4",
    "pissa_niter_16",
    "olora",
    "mica",
    "eva",
    "corda",
    "lora_ga",
    "loftq",
]
"""PEFT's names, default apart. Tests prove of each that the first step starts at the base (loftq: nearer to the
original's weights than 4 bits are), and that plain PEFT opens on the base what was saved."""
DATA_DRIVEN_INITS = ("eva", "corda", "lora_ga")
"""Those that pass over training data before the first step."""


class LoraSettings(Section):
    """The low-rank adapter; read only when model.method is lora or qlora."""

    rank: int = Field(
        default=16,
        gt=0,
        le=65_536,
        description="Rank of each pair of low-rank matrices: a higher rank can learn more and takes more memory.",
        json_schema_extra={"source": "Hu et al. 2021, section 7.2, compares ranks 1 to 64", "usual": [8, 64]},
    )
    alpha: int = Field(
        default=32,
        gt=0,
        le=1_048_576,
        description="Strength of the adapter: its output is scaled by alpha / rank, or by alpha / sqrt(rank) with "
        "lora.rslora.",
        json_schema_extra={
            "source": "Hu et al. 2021, section 4.1, scales by alpha / rank; twice the rank is common practice",
            "usual": "rank to 2 x rank",
        },
    )
    dropout: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of the adapter's inputs set to zero at random while training.",
        json_schema_extra={"source": "Dettmers et al. 2023 (QLoRA), appendix B, uses 0.05 to 0.1", "usual": [0.0, 0.1]},
    )
    target_modules: Literal["all-linear"] | TextList = Field(
        default="all-linear",
        description="Layers that get an adapter: all-linear (all but the output layer), or a list of layer names.",
        json_schema_extra={
            "source": "Dettmers et al. 2023 (QLoRA), section 4: adapters on all linear layers are needed"
        },
    )
    modules_to_save: list[Text] = Field(
        default=[],
        description="Modules that are trained whole beside the pairs and saved with them, by the end of their names, "
        'such as "embed_tokens" where new tokens have to be learned; a tied output head stays tied.',
        json_schema_extra={"source": "PEFT's LoraConfig; none by default, as in Hu et al. 2021"},
    )
    rslora: bool = Field(
        default=False,
        description="Scale the adapter's output by alpha / sqrt(rank), so that high ranks learn as fast as low ones.",
        json_schema_extra={"source": "Kalajdzievski 2023 (rsLoRA), section 3; off as in Hu et al. 2021"},
    )
    dora: bool = Field(
        default=False,
        description="Learn the length of each output's weights apart from their direction (DoRA); slower.",
        json_schema_extra={"source": "Liu et al. 2024 (DoRA), section 4; off as in Hu et al. 2021"},
    )
    init: Init = Field(
        default="default",
        description="How the matrices start, PEFT's names; pissa_niter_4 and pissa_niter_16 are faster approximations "
        "of pissa; eva, corda and lora_ga are initialized from a calibration pass over training data, and loftq makes "
        "up for a part of what qlora rounds off.",
        json_schema_extra={
            "source": "Hu et al. 2021 (default, gaussian: section 4.1); Meng et al. 2024 (PiSSA), section 3; "
            "Buyukakyuz 2024 (OLoRA), section 3; Paischer et al. 2024 (EVA), section 3; Yang et al. 2024 (CorDA), "
            "section 3; Wang et al. 2024 (LoRA-GA), section 3; Li et al. 2023 (LoftQ), section 3; PEFT's LoraConfig "
            "for orthogonal and MiCA"
        },
    )
    init_tokens: int = Field(
        default=32_768,
        gt=0,
        le=LARGEST_COUNT,
        description="Tokens of training data in the calibration pass of lora.init = eva, corda or lora_ga.",
        json_schema_extra={
            "source": "some 20 for each input of a layer of a small model; CorDA's authors take 128 for each",
            "usual": [4096, 1_048_576],
        },
    )


class QloraSettings(Section):
    """The 4-bit weights (NF4) under the adapter; read only when model.method is qlora."""

    double_quantization: bool = Field(
        default=True,
        description="Quantise the scales of the 4-bit blocks too, which saves about 0.37 bits a weight.",
        json_schema_extra={"source": "Dettmers et al. 2023 (QLoRA), section 3, paragraph Double Quantization"},
    )


class PromptSettings(Section):
    """The trained tokens in front of every conversation; read only when model.method is prompt."""

    tokens: int = Field(
        default=20,
        gt=0,
        le=65_536,
        description="Virtual tokens in front of every conversation; their embeddings are all that is trained.",
        json_schema_extra={
            "source": "Lester et al. 2021, section 3.2: gains beyond 20 tokens are marginal",
            "usual": [5, 150],
        },
    )
    text: Text | None = Field(
        default=None,
        description="Text whose tokens' embeddings the virtual tokens start from, repeated or cut to their number; "
        "left out, tokens drawn from the vocabulary.",
        json_schema_extra={"source": "Lester et al. 2021, section 2.1 and 3.2: both start better than random numbers"},
    )

"""The `[curate.sharegpt]` table: what is mended in conversations that were copied from the page of a chat service."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tutelage.config.sections import LARGEST_COUNT, Section, Text


class SharegptSettings(Section):
    """Conversations as people shared them: whole exchanges, without the page's buttons. Off unless in curate.steps."""

    html: Literal["chatgpt", "any", "off"] = Field(
        default="chatgpt",
        description="Replies that are HTML copied from a page become Markdown: those in elements of the class "
        "`markdown` (chatgpt); those of a conversation whose replies are all HTML that Markdown can say (any); none.",
        json_schema_extra={"source": "the cleaning of Vicuna's data (FastChat, clean_sharegpt.py); there, users' too"},
    )
    buttons: bool = Field(
        default=True,
        description="Take out what a page's buttons left in texts: `Copy code` in code blocks, `Copy120 chars / 20 "
        "words`, `2 / 2` before a reply or behind a question, and buttons of extensions behind questions.",
        json_schema_extra={
            "source": "the cleaning of Vicuna's data (FastChat, clean_sharegpt.py), and what stands in its rows still"
        },
    )
    notices: bool = Field(
        default=True,
        description="A conversation ends before the exchange in which the service reports an error for a reply, or "
        "gives none.",
        json_schema_extra={"source": "Vicuna's data: there the whole conversation goes; the exchanges before are good"},
    )
    least_characters: int = Field(
        default=16,
        ge=0,
        le=LARGEST_COUNT,
        description="Fewest characters of all turns of a conversation together.",
        json_schema_extra={"source": "the cleaning of Vicuna's data: 16", "usual": [0, 200]},
    )
    blocked_words: list[Text] = Field(
        default=[],
        description="Rows go in whose replies one of these words stands, letter case aside; none by default.",
        json_schema_extra={
            "source": "the user's choice; Vicuna's data lost every conversation with openai or chatgpt in any turn"
        },
    )
    list_numbers: Literal["drop", "report", "off"] = Field(
        default="report",
        description="What becomes of rows in whose replies each item of a list has the number 1, as a page's copy "
        "leaves it.",
        json_schema_extra={
            "source": "Vicuna's data: such rows go; Markdown may be written so, and shows right numbers"
        },
    )
    conversation_tokens: int | None = Field(
        default=None,
        ge=1,
        le=LARGEST_COUNT,
        description="Split longer conversations between exchanges, into parts of at most so many tokens; left out, "
        "none is split.",
        json_schema_extra={"source": "the user's choice; Vicuna: 2,048 tokens", "usual": [512, 32768]},
    )
    tokenizer: Text | None = Field(
        default=None,
        description="A tokenizer.json, or a folder with one, that counts `conversation_tokens`.",
        json_schema_extra={"source": "the user's model: tokens of another are others"},
    )
    turn_tokens: int = Field(
        default=6,
        ge=0,
        le=LARGEST_COUNT,
        description="Tokens that a chat template adds to each turn; they count, too.",
        json_schema_extra={"source": "the splitting of Vicuna's data adds 6", "usual": [3, 12]},
    )

"""The `[curate.normalize]` table: what is mended in the texts of rows. Every edit is in the ledger."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tutelage.config.sections import Section


class NormalizeSettings(Section):
    """Which debris of encodings, exports and templates is taken out of texts; code, LaTeX and URLs are left alone."""

    chat_templates: Literal["split", "drop", "off"] = Field(
        default="split",
        description="A text that is a conversation rendered by a chat format (ChatML, Llama, Alpaca and ten more) from "
        "end to end is split into turns; one that holds such marks in another way is dropped; drop drops both.",
        json_schema_extra={"source": "our choice: a model trained on such texts learns to write the user's turns"},
    )
    end_tokens: bool = Field(
        default=True,
        description="Take off control tokens in letters, such as <|endoftext|> or </s>, at the ends of texts.",
        json_schema_extra={"source": "our choice: the renderer writes the model's own"},
    )
    mojibake: bool = Field(
        default=True,
        description="Mend text that was decoded by the wrong table, by ftfy.",
        json_schema_extra={"source": "ftfy 6.3, fix_encoding alone: its other mendings would change quotes and code"},
    )
    control_characters: bool = Field(
        default=True,
        description="Take out control characters, terminal colors, invisible marks and soft hyphens; all ends of lines "
        "become a newline.",
        json_schema_extra={"source": "Unicode 15, chapter 23; WHATWG HTML for what came from Windows"},
    )
    nfc: bool = Field(
        default=True,
        description="Write letters with their accents as one character (Unicode form NFC).",
        json_schema_extra={"source": "Unicode Standard Annex 15; W3C Character Model recommends it for the web"},
    )
    literal_newlines: bool = Field(
        default=True,
        description="Where a text on one line has \\n in letters for its newlines, make them newlines.",
        json_schema_extra={"source": "our choice: FLAN's files of reasoning (v2, cot_data) are written so"},
    )
    html_entities: bool = Field(
        default=True,
        description="Read HTML entities such as &amp; in texts without tags or talk of markup.",
        json_schema_extra={"source": "WHATWG HTML, named character references"},
    )
    empty_inputs: bool = Field(
        default=True,
        description='Take out a last paragraph of a prompt that only says that there is none, such as "No input".',
        json_schema_extra={"source": "the cleaning of Alpaca by its community (alpaca-cleaned)"},
    )
    reasoning_tags: bool = Field(
        default=True,
        description="Resolve a tag of reasoning without its other half: what stands before a lone closing tag is "
        "reasoning; a reply whose reasoning never ends is dropped.",
        json_schema_extra={"source": "our choice: the templates of reasoning models open the block in the prompt"},
    )
    variables: Literal["drop", "report", "off"] = Field(
        default="drop",
        description="What becomes of a reply with a variable that was never filled in, such as {{name}}.",
        json_schema_extra={"source": "our choice: LLaMA-Factory's identity set is to be filled in before training"},
    )
    bracket_slots: Literal["drop", "report", "off"] = Field(
        default="report",
        description="What becomes of a reply with a slot for the reader's words, such as [Your Name].",
        json_schema_extra={"source": "our choice: in a letter that was asked for they are as good as any name"},
    )

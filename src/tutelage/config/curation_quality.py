"""The `[curate.quality]` table, and a table for each rule in it. `report` keeps a row and books what was found."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from tutelage.config.sections import LARGEST_COUNT, Section, Text

Action = Literal["drop", "report", "off"]
PersonalDatum = Literal["email", "phone", "iban", "card", "ip", "key"]
_ACTION: Final = "What becomes of a row that the rule finds something in: it goes, it stays and is booked, or nothing."


def _action(default: Action, source: str) -> Any:
    return Field(default=default, description=_ACTION, json_schema_extra={"source": source})


class RuleSettings(Section):
    """Settings of a rule; each has an `action`."""


class EmptySettings(RuleSettings):
    """Prompts, replies and documents that say nothing."""

    action: Action = _action("drop", "our choice: there is nothing to learn from them")


class TooShortSettings(RuleSettings):
    """Replies and prompts of few words."""

    action: Action = _action("report", "our choice: sets of labels and choices have replies of one word")
    reply_words: int = Field(
        default=2,
        ge=0,
        le=LARGEST_COUNT,
        description="Fewest words of the last reply, or of a document; Chinese and its like count characters.",
        json_schema_extra={
            "source": "our choice; LIMA (Zhou et al. 2023, section 2.1) takes answers from 1,200 letters"
        },
    )
    prompt_words: int = Field(
        default=1,
        ge=0,
        le=LARGEST_COUNT,
        description="Fewest words that the users say.",
        json_schema_extra={"source": "our choice: a greeting is one"},
    )


class LengthRatioSettings(RuleSettings):
    """Characters of the replies against those of the prompts."""

    action: Action = _action("report", "our choice: what is right depends on the task; translations lie near 1")
    least: float = Field(
        default=0.0005,
        ge=0,
        le=1e6,
        description="Least characters of the replies for each of the prompts.",
        json_schema_extra={"source": "our choice: a yes to a page of 6,000 characters", "usual": [0.0, 0.5]},
    )
    most: float = Field(
        default=1000.0,
        gt=0,
        le=1e9,
        description="Most characters of the replies for each of the prompts.",
        json_schema_extra={"source": "our choice: an essay of 10,000 characters to two words", "usual": [2.0, 1000.0]},
    )

    @model_validator(mode="after")
    def _least_is_less(self) -> Self:
        if self.least >= self.most:
            raise ValueError(f"least ({self.least:g}) should be below most ({self.most:g})")
        return self


class CodeFencesSettings(RuleSettings):
    """Blocks of code that nothing closes."""

    action: Action = _action("drop", "our choice: the reply was cut, or its rest would be shown as code")


class BadJsonSettings(RuleSettings):
    """JSON in replies that does not parse."""

    action: Action = _action("drop", "our choice: a model that learns it writes it")


class CutSettings(RuleSettings):
    """Replies that break off in the middle of a sentence."""

    action: Action = _action("drop", "our choice: a reply is trained to its end, which this is not")
    missing_full_stop: bool = Field(
        default=False,
        description="Take a missing full stop for a cut where all other sentences of the reply end.",
        json_schema_extra={"source": "our choice: off, as of 71 such replies of ShareGPT 57 were cut (docs/curate.md)"},
    )


class FormulasSettings(RuleSettings):
    """Formulas whose marks do not pair."""

    action: Action = _action("drop", "our choice: they cannot be set, and often show a cut")


class RefusalSettings(RuleSettings):
    """Replies that refuse, or speak of the model in place of the answer."""

    action: Action = _action("drop", "Vicuna's and WizardLM's cleaned sets drop them, as they teach to refuse")
    languages: list[Text] = Field(
        default=[],
        description="ISO 639-1 codes of the languages whose sentences are looked for; none named takes all there are.",
        json_schema_extra={"source": "our lists: en, de, fr, es, it, pt, nl, pl, ru, zh, ja, ko"},
    )

    @model_validator(mode="after")
    def _languages_have_sentences(self) -> Self:
        known = ("en", "de", "fr", "es", "it", "pt", "nl", "pl", "ru", "zh", "ja", "ko")
        if unknown := next((language for language in self.languages if language not in known), None):
            raise ValueError(f"there are no sentences for the language '{unknown}', only for {', '.join(known)}")
        return self


class PersonalSettings(RuleSettings):
    """Personal data in any text of a row."""

    action: Literal["drop", "mask", "report", "off"] = Field(
        default="report",
        description="What becomes of a row with personal data: it goes, each datum becomes a word such as [EMAIL], it "
        "stays and is booked, or nothing; the ledger shows two characters of a datum.",
        json_schema_extra={"source": "our choice: made-up addresses are common in instruction data, and look the same"},
    )
    kinds: list[PersonalDatum] = Field(
        default=["email", "phone", "iban", "card", "ip", "key"],
        description="Which kinds are looked for: addresses, numbers with their check digits, public IPs, secret keys.",
        json_schema_extra={"source": "ISO 13616 (IBAN), ISO/IEC 7812 (cards), RFC 2606 (addresses that are nobody's)"},
    )


class RepetitionSettings(RuleSettings):
    """Text that says the same over and over."""

    action: Action = _action(
        "report", "our choice: of 45 replies of ShareGPT that it finds 20 are bad (docs/curate.md)"
    )
    least_words: Annotated[int, Field(ge=2, le=LARGEST_COUNT)] = Field(
        default=50,
        description="Texts of fewer words, code left out, are not judged.",
        json_schema_extra={"source": "Rae et al. 2021 (Gopher), section A.1.1: documents have 50 words at least"},
    )
    factor: float = Field(
        default=3.0,
        gt=0,
        le=100,
        description="What all of Gopher's thresholds are multiplied by; 1 takes them as they are, 3 lets three times "
        "as much repetition pass.",
        json_schema_extra={
            "source": "Rae et al. 2021 (Gopher), table A1, is for web pages; sums, songs and plans repeat "
            "more: measured (docs/curate.md)",
            "usual": [1.0, 4.0],
        },
    )


class ToxicitySettings(RuleSettings):
    """Words of a packaged list of profanity (glin-profanity)."""

    action: Action = _action("off", "our choice: a list of words knows nothing of what is said with them")
    languages: list[Text] = Field(
        default=["english"],
        min_length=1,
        description="Whose lists are used, by the English names of the languages.",
        json_schema_extra={"source": "glin-profanity 4.1, 24 languages"},
    )
    least_words: Annotated[int, Field(ge=1, le=LARGEST_COUNT)] = Field(
        default=2,
        description="How many different listed words make a finding.",
        json_schema_extra={"source": "our choice: one word may be quoted or have another sense"},
    )
    allowed: list[Text] = Field(
        default=["sex", "ass", "suck", "sucks"],
        description="Listed words that are no offense in this data.",
        json_schema_extra={"source": "our choice: words with an everyday sense"},
    )


class LanguageSettings(RuleSettings):
    """The language of replies, by py3langid; it says nothing of short texts and of code."""

    action: Action = _action("drop", "our choice; with no language named and as_prompt off nothing is looked at")
    languages: list[Text] = Field(
        default=[],
        description="ISO 639-1 codes of the languages that replies may be in; none named takes any.",
        json_schema_extra={"source": "the user's choice; none by default"},
    )
    as_prompt: bool = Field(
        default=False,
        description="Where no languages are named: replies should be in the language of all turns before them, unless "
        "one of these names another language or has a sentence in it.",
        json_schema_extra={"source": "our choice: off, as of 30 such replies of ShareGPT 25 were bad (docs/curate.md)"},
    )
    confidence: float = Field(
        default=0.95,
        ge=0,
        le=1,
        description="Least probability of a language by the model; below, nothing is said.",
        json_schema_extra={
            "source": "our choice, measured on texts in ten languages (docs/curate.md)",
            "usual": [0.5, 1],
        },
    )


class QualitySettings(Section):
    """Which rules of quality are on; each has a table of its own."""

    rules: list[Text] = Field(
        default=[],
        description="The rules that are used, of those whose action is not off; none named uses all of them.",
        json_schema_extra={"source": "our choice: from cheap to dear, as the tables below stand"},
    )
    empty: EmptySettings = EmptySettings()
    too_short: TooShortSettings = TooShortSettings()
    length_ratio: LengthRatioSettings = LengthRatioSettings()
    code_fences: CodeFencesSettings = CodeFencesSettings()
    bad_json_in_reply: BadJsonSettings = BadJsonSettings()
    cut: CutSettings = CutSettings()
    formulas: FormulasSettings = FormulasSettings()
    refusal: RefusalSettings = RefusalSettings()
    personal: PersonalSettings = PersonalSettings()
    repetition: RepetitionSettings = RepetitionSettings()
    toxicity: ToxicitySettings = ToxicitySettings()
    language: LanguageSettings = LanguageSettings()

    @model_validator(mode="after")
    def _names_rules(self) -> Self:
        known = [name for name in type(self).model_fields if name != "rules"]
        for name in self.rules:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
                hint = f"did you mean '{near[0]}'?" if near else f"the rules are {', '.join(known)}"
                raise ValueError(f"there is no rule '{name}'; {hint}")
        return self

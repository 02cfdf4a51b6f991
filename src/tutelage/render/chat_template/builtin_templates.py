"""Chat formats that a run can choose by name, for checkpoints that bring no template. Never chosen by guessing."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files

from tutelage.errors import TemplateError
from tutelage.render.tokenizer import Tokenizer

MODELS_OWN_STOP = "eos"


@dataclass(frozen=True, slots=True)
class BuiltinTemplate:
    """A chat format written down with its facts.

    Attributes:
        name: what `render.chat_template.template` calls it.
        source: the Jinja text.
        stop: the token that ends a reply; None is the model's own end token.
        control_tokens: what the tokenizer must hold as single tokens.
        text_markers: marks of roles that are ordinary text to most tokenizers.
        description: one sentence on the format.
    """

    name: str
    source: str
    stop: str | None
    control_tokens: tuple[str, ...]
    text_markers: tuple[str, ...]
    description: str

    def source_for(self, tokenizer: Tokenizer) -> str:
        """The Jinja text for the models of this tokenizer: it begins with BOS where they have always begun with it.

        A template is encoded without what the tokenizer adds to plain text, so a format that does not write BOS would
        take it from a model that was pre-trained with it, such as Gemma's.
        """
        bos = tokenizer.named_tokens.get("bos_token")
        if bos is None or "bos_token" in self.source or bos in self.source:
            return self.source
        plain_ids = tokenizer.fast.encode("a").ids
        adds_bos = len(plain_ids) > 1 and plain_ids[0] == tokenizer.fast.token_to_id(bos)
        return "{{- bos_token }}" + self.source if adds_bos else self.source

    def check(self, tokenizer: Tokenizer) -> None:
        """Refuse a tokenizer to which this format's control tokens are not single tokens.

        Raises:
            TemplateError: some of `control_tokens` are not tokens; adding them would need rows nobody trained.
        """
        missing = [token for token in self.control_tokens if tokenizer.fast.token_to_id(token) is None]
        if missing:
            raise TemplateError(
                f"The format '{self.name}' needs control tokens that this checkpoint does not have",
                where=str(tokenizer.folder),
                found=f"no token {', '.join(missing)}",
                expected=f"single tokens {', '.join(self.control_tokens)}",
                fix="choose a format of ordinary text (alpaca, vicuna, zephyr or plain), or add the tokens: "
                f"model.add_tokens = {list(missing)!r}",
            )
        if self.stop is None and "eos_token" not in tokenizer.named_tokens:
            raise TemplateError(
                f"The format '{self.name}' ends replies in the model's end token, and this checkpoint names none",
                where=str(tokenizer.folder / "tokenizer_config.json"),
                expected="eos_token",
                fix="add eos_token to tokenizer_config.json",
            )


def builtin_templates() -> Mapping[str, BuiltinTemplate]:
    """All formats by name, in the order of the file."""
    folder = files("tutelage.render.chat_template")
    facts = tomllib.loads(folder.joinpath("builtin_templates.toml").read_text(encoding="utf-8"))
    return {
        name: BuiltinTemplate(
            name,
            folder.joinpath("builtin", f"{name}.jinja").read_text(encoding="utf-8"),
            None if entry["stop"] == MODELS_OWN_STOP else str(entry["stop"]),
            tuple(entry["control_tokens"]),
            tuple(entry["text_markers"]),
            str(entry["about"]),
        )
        for name, entry in facts.items()
    }


def is_path(template: str) -> bool:
    """Whether `render.template` names a file rather than a format."""
    return "/" in template or "\\" in template or template.lower().endswith((".jinja", ".jinja2", ".j2", ".txt"))


def find_builtin(name: str) -> BuiltinTemplate:
    """The format of that name.

    Raises:
        TemplateError: there is none; the nearest name is given.
    """
    templates = builtin_templates()
    if name in templates:
        return templates[name]
    near = get_close_matches(name.lower(), templates, n=1)
    raise TemplateError(
        f"There is no chat format named '{name}'",
        found=name,
        expected=f"one of {', '.join(templates)}; or the path of a Jinja file",
        fix=f"did you mean '{near[0]}'?" if near else f"for a file of that name write ./{name}",
    )

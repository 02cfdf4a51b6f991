"""A checkpoint's files and the settings -> the Renderer of a run. Imports without torch."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tutelage.config import RenderSettings
from tutelage.errors import ConfigError, SourceNotFoundError, TemplateError
from tutelage.render import ChatTemplate, Renderer, Tokenizer
from tutelage.render.chat_template.builtin_templates import BuiltinTemplate, builtin_templates, find_builtin, is_path


@dataclass(frozen=True, slots=True)
class ChosenTemplate:
    """The Jinja text of a run, the one for rows with tools if there is another, and where they came from."""

    source: str
    tools_source: str | None
    name: str
    named: BuiltinTemplate | None = None


def renderer_for(model_folder: Path, settings: RenderSettings) -> Renderer:
    """The tokenizer of `model_folder` (or of a tokenizer's file) with its own template, or the one the settings name.

    Raises:
        TemplateError: there is no template, none of that name, or the named one does not fit the tokenizer.
        SourceNotFoundError: the named template file is missing.
        ConfigError: a token of `render.stop_tokens` is not one of the tokenizer's.
    """
    tokenizer = Tokenizer.load(model_folder, stop_tokens=settings.stop_tokens)
    chosen = chosen_template(tokenizer, settings.template)
    stops = list(settings.stop_tokens)
    if chosen.named is not None:
        chosen.named.check(tokenizer)
        stops += [chosen.named.stop] if chosen.named.stop is not None else []
    template = ChatTemplate(
        chosen.source,
        tools_source=chosen.tools_source,
        named_tokens=tokenizer.named_tokens,
        date=datetime.date.fromisoformat(settings.date),
        arguments=settings.template_arguments,
        name=chosen.name,
    )
    return Renderer(
        with_stops(tokenizer, stops),
        template,
        train_on=settings.train_on,
        turns=settings.turns,
        control_tokens=settings.control_tokens,
        missing_stop=settings.missing_stop,
        empty_reasoning=settings.empty_reasoning,
        closed_reasoning=settings.closed_reasoning,
        reasoning_field=settings.reasoning_field,
    )


def chosen_template(tokenizer: Tokenizer, requested: str | None) -> ChosenTemplate:
    """The template that `requested` names, a file or a format of ours; without it the checkpoint's own.

    Raises:
        TemplateError: the checkpoint has none, or no format has that name.
        SourceNotFoundError: the file is missing.
    """
    if requested is None:
        if tokenizer.template is None:
            raise _no_template(tokenizer)
        own = f"{tokenizer.folder.name}/chat_template"
        return ChosenTemplate(tokenizer.template, tokenizer.templates.get("tool_use"), own)
    if not is_path(requested):
        named = find_builtin(requested)
        return ChosenTemplate(named.source_for(tokenizer), None, f"the format '{requested}'", named)
    path = Path(requested)
    if not path.is_file():
        raise SourceNotFoundError(
            "The chat template is missing",
            where=requested,
            expected=f"a Jinja file, or one of {', '.join(builtin_templates())}",
            fix="check render.template (--template)",
        )
    try:
        return ChosenTemplate(path.read_text(encoding="utf-8"), None, requested)
    except UnicodeDecodeError as error:
        raise TemplateError(
            "The chat template is not text",
            where=requested,
            found=f"bytes that are not UTF-8, at {error.start}",
            expected="a Jinja file in UTF-8",
            fix="convert it with iconv, or check that it is the file you mean",
        ) from error


def with_stops(tokenizer: Tokenizer, tokens: Sequence[str]) -> Tokenizer:
    """The tokenizer with `tokens` among those that end a generation, and special: no text of a user may spell them.

    Raises:
        ConfigError: one of them is not a single token.
    """
    ids = {token: tokenizer.fast.token_to_id(token) for token in tokens}
    unknown = [token for token, token_id in ids.items() if token_id is None]
    if unknown:
        raise ConfigError(
            "A stop token is not a token of this tokenizer",
            where="render.stop_tokens",
            found=", ".join(unknown),
            expected="tokens such as " + ", ".join(list(tokenizer.special_tokens)[:6]),
            fix="name a token that the template writes after a reply",
        )
    added = {token_id for token_id in ids.values() if token_id is not None}
    tokenizer = tokenizer if added <= tokenizer.stop_ids else replace(tokenizer, stop_ids=tokenizer.stop_ids | added)
    return tokenizer.with_special(added)


def _no_template(tokenizer: Tokenizer) -> TemplateError:
    return TemplateError(
        "The checkpoint has several chat templates and none is the default"
        if tokenizer.templates
        else "This checkpoint has no chat template, so nothing says how it would be served",
        where=str(tokenizer.folder),
        found=", ".join(sorted(tokenizer.templates)) or None,
        expected="chat_template.jinja, or chat_template in tokenizer_config.json",
        fix="give the template it will be served with: --template FILE (render.template), or choose a format by name: "
        + ", ".join(builtin_templates()),
    )

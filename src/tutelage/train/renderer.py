"""A checkpoint's files and the settings -> the Renderer of a run. Imports without torch."""

from __future__ import annotations

import datetime
from pathlib import Path

from tutelage.config import RenderSettings
from tutelage.errors import SourceNotFoundError, TemplateError
from tutelage.render import ChatTemplate, Renderer, Tokenizer


def renderer_for(model_folder: Path, settings: RenderSettings) -> Renderer:
    """The tokenizer of `model_folder` with its own template, or the one that the settings name.

    Raises:
        TemplateError: there is no template.
        SourceNotFoundError: the named template file is missing.
    """
    tokenizer = Tokenizer.load(model_folder)
    if settings.template is not None:
        path = Path(settings.template)
        if not path.is_file():
            raise SourceNotFoundError(
                "The chat template is missing", where=settings.template, fix="check render.template (--template)"
            )
        source, name, tools_source = path.read_text(encoding="utf-8"), settings.template, None
    elif tokenizer.template is not None:
        source, name = tokenizer.template, f"{model_folder.name}/chat_template"
        tools_source = tokenizer.templates.get("tool_use")
    else:
        raise TemplateError(
            "The checkpoint has several chat templates and none is the default"
            if tokenizer.templates
            else "This checkpoint has no chat template, so nothing says how it would be served",
            where=str(model_folder),
            found=", ".join(sorted(tokenizer.templates)) or None,
            expected="chat_template.jinja, or chat_template in tokenizer_config.json",
            fix="give the template it will be served with: --template FILE (render.template)",
        )
    template = ChatTemplate(
        source,
        tools_source=tools_source,
        named_tokens=tokenizer.named_tokens,
        date=datetime.date.fromisoformat(settings.date),
        arguments=settings.template_arguments,
        name=name,
    )
    return Renderer(
        tokenizer,
        template,
        train_on=settings.train_on,
        turns=settings.turns,
        control_tokens=settings.control_tokens,
        missing_stop=settings.missing_stop,
        empty_reasoning=settings.empty_reasoning,
    )

"""What our HTML pages share: one file that needs no network and runs no script but its own, written in one move."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from functools import cache
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from tutelage.errors import ConfigError
from tutelage.system.files import write_bytes

BEGINNING = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="generator" content="tutelage">
"""
"""How each of our pages begins, and no other file: what begins otherwise is not ours to write over."""
HEAD = (
    BEGINNING
    + """<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{{ policy }}">
<meta name="color-scheme" content="light dark">
"""
)
"""What stands before the title in each template."""
SCRIPT_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
"""What must not stand raw in a script block: the parser would see a tag or an entity, older scripts a line end."""


def script_json(value: object) -> Markup:
    """JSON that can stand inside a `<script>` block whatever texts it holds."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character, escape in SCRIPT_ESCAPES.items():
        text = text.replace(character, escape)
    return Markup(text)  # noqa: S704 - every character that could end the block is escaped above


def own_parts(
    *,
    style: tuple[str, ...],
    script: tuple[str, ...],
    has_forms: bool = False,
    may_fetch: bool = False,
    library: tuple[str, ...] = (),
) -> dict[str, str]:
    """Style, script and the policy that allows these two alone, for a page's template; named by our own files.

    Args:
        style: our files of it.
        script: our files of it.
        has_forms: the page sends forms, to the server that it came from and no other.
        may_fetch: its script sends and asks, the same server alone.
        library: texts of scripts that draw, each a block of its own; they may set styles and show pictures that they
            bring, and no more.
    """
    styles, scripts = "\n".join(map(_asset, style)), "\n".join(map(_asset, script))
    allowed = " ".join(f"'{_digest(text)}'" for text in (*library, scripts))
    drawing = "style-src 'unsafe-inline'; img-src data:" if library else f"style-src '{_digest(styles)}'"
    return {
        "style": Markup(styles),  # noqa: S704 - our own files
        "script": Markup(scripts),  # noqa: S704 - our own files
        "policy": f"default-src 'none'; {drawing}; script-src {allowed}; "
        f"connect-src '{'self' if may_fetch else 'none'}'; "
        f"base-uri 'none'; form-action '{'self' if has_forms else 'none'}'",
    }


@cache
def template(name: str) -> Template:
    """One of our page templates, its file beginning behind `HEAD`; everything that it is given is escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(HEAD + _asset(name))


def require_free_or_own(target: Path, *, fix: str) -> None:
    """Refuse a place that holds anything but a page of ours: what is there would be lost.

    Args:
        target: where a page is to stand; a link leads on to what it names.
        fix: what to do instead.

    Raises:
        ConfigError: a file of another kind, a device or a pipe is there.
    """
    if not os.path.lexists(target):
        return
    obstacle = "a link that leads nowhere" if not target.exists() else "a device or a pipe"
    if target.is_file():
        expected = BEGINNING.encode("utf-8")
        with target.open("rb") as stream:
            if stream.read(len(expected)) == expected:
                return
        obstacle = "a file that tutelage did not write"
    raise ConfigError(
        "A page would take the place of something that is no page of ours",
        where=str(target),
        found=obstacle,
        expected="a new name, or an older page of tutelage",
        fix=fix,
    )


def write_in_one_move(page: str, target: Path) -> int:
    """Put a page beside `target` and then in its place, so that a reader never meets half a page.

    Returns:
        Its size in bytes.

    Raises:
        OSError: it could not be written; an older page is untouched.
    """
    assert page.startswith(BEGINNING), "a page of ours is known by how it begins"
    target = target.resolve()  # the page that a link leads to, not the link
    # A lone surrogate (half a character, legal in JSON) has no UTF-8; it is shown by its code.
    content = page.encode("utf-8", errors="backslashreplace")
    write_bytes(target, content, shared=True)
    return len(content)


@cache
def _asset(name: str) -> str:
    return resources.files("tutelage.report.html").joinpath(name).read_text(encoding="utf-8")


def _digest(content: str) -> str:
    """The name of an inline block in a content security policy: only this very text may run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode("utf-8")).digest()).decode("ascii")

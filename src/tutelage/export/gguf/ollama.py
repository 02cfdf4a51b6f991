"""A Modelfile for Ollama: the file, its stops and sampling spelled out, and the chat template in Go's language.

A template is not looked up: conversations of made-up words are rendered, the texts around the words taken apart, and
what is put together from them must be the template's own rendering of other conversations. Then it is written in Go.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tutelage.errors import TemplateError
from tutelage.render import Renderer
from tutelage.render.chat_template.template import TemplateRefusal
from tutelage.render.tokenizer import read_object
from tutelage.types import Message

USER, REPLY, AGAIN, SYSTEM = "qzuserzq", "qzreplyzq", "qzagainzq", "qzsystemzq"
SAMPLING = {"temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "min_p": "min_p",
            "repetition_penalty": "repeat_penalty"}  # fmt: skip
"""Generation settings of transformers by their names in a Modelfile. Source: Ollama's docs/modelfile.md."""


@dataclass(frozen=True, slots=True)
class ChatTexts:
    """What a chat template writes around the words of each turn.

    Attributes:
        start: before the first turn, BOS left out where the server adds it.
        user: before and after the words of a user's turn.
        reply: the same of a reply.
        system: the same of a system prompt; None where the template refuses one.
        in_first_user: the system prompt stands within the first user's turn, before its words.
        default_system: a system prompt that the template writes where none is given.
        asks: what asks for a reply.
    """

    start: str
    user: tuple[str, str]
    reply: tuple[str, str]
    system: tuple[str, str] | None
    in_first_user: bool
    default_system: str
    asks: str

    def render(self, messages: Sequence[Message]) -> str:
        """A served prompt, put together from the parts."""
        text, given = self.start, {message.role for message in messages}
        if self.default_system and "system" not in given and self.system is not None:
            text += self.system[0] + self.default_system + self.system[1]
        for index, message in enumerate(messages):
            words = str(message.content)
            if message.role == "system" and self.system is not None and not self.in_first_user:
                text += self.system[0] + words + self.system[1]
            elif message.role == "user":
                text += self.user[0]
                if self.in_first_user and self.system is not None and index == 1 and messages[0].role == "system":
                    text += self.system[0] + str(messages[0].content) + self.system[1]
                text += words + self.user[1]
            elif message.role == "assistant":
                text += self.reply[0] + words + self.reply[1]
        return text + self.asks


def modelfile(renderer: Renderer, folder: Path, model: str, *, add_bos: bool) -> str:
    """The text of a Modelfile.

    Args:
        renderer: of the folder, with the template as trained.
        folder: its generation settings are taken.
        model: name of the GGUF file beside it.
        add_bos: whether the file tells the server to add BOS.

    Raises:
        TemplateError: the template is not one whose turns stand one after the other with the same words around them.
    """
    texts = chat_texts(renderer, add_bos=add_bos)
    lines = [f"FROM ./{model}", f'TEMPLATE """{go_template(texts)}"""']
    if texts.default_system:
        lines.append(f'SYSTEM """{texts.default_system}"""')
    tokenizer = renderer.tokenizer
    lines += [f"PARAMETER stop {json.dumps(tokenizer.spelling(stop), ensure_ascii=False)}"
              for stop in sorted(tokenizer.stop_ids)]  # fmt: skip
    settings = read_object(folder / "generation_config.json")
    if settings.get("do_sample") is False:
        settings = {"temperature": 0}
    lines += [f"PARAMETER {name} {settings[key]}" for key, name in SAMPLING.items() if settings.get(key) is not None]
    return "\n".join(lines) + "\n"


def chat_texts(renderer: Renderer, *, add_bos: bool) -> ChatTexts:
    """Take the template apart, and see that the parts make the same texts again.

    Raises:
        TemplateError: they do not.
    """
    bos = renderer.tokenizer.named_tokens.get("bos_token", "") if add_bos else ""

    def written(*messages: Message, asking: bool = False) -> str:
        text = renderer.template.render(
            [{"role": message.role, "content": message.content} for message in messages], generation_prompt=asking
        )
        return text.removeprefix(bos)

    try:
        found = _apart(written)
    except (ValueError, TemplateRefusal) as error:
        raise _unrecognized(renderer, str(error)) from error
    for messages in _trials(found):
        if (expected := written(*messages, asking=True)) != found.render(messages):
            raise _unrecognized(renderer, f"turns {[message.role for message in messages]} are written {expected!r}")
    return found


def _apart(written: Callable[..., str]) -> ChatTexts:
    user, reply = Message("user", USER), Message("assistant", REPLY)
    once = written(user)
    asks = _after(written(user, asking=True), once)
    before, after_user = _around(once, USER)
    after_reply = _around(written(user, reply), REPLY)[1]
    between = written(user, reply, Message("user", AGAIN))
    before_reply = _after(_between(between, USER, REPLY), after_user)
    before_user = _after(_between(between, REPLY, AGAIN), after_reply)
    start = _before(before, before_user)
    system: tuple[str, str] | None = None
    default, inside = "", False
    try:
        with_system = written(Message("system", SYSTEM), user)
    except TemplateRefusal:
        with_system = ""
    if SYSTEM in with_system:
        ahead, gap = _around(with_system, SYSTEM)[0], _between(with_system, SYSTEM, USER)
        inside = ahead.endswith(before_user) and not gap.endswith(before_user)
        if inside:
            system = (_after(ahead, start + before_user), gap)
        else:
            behind = _before(gap, before_user)
            opening = ahead.removeprefix(start)
            if start.startswith(ahead) and start.endswith(behind) and len(start) > len(ahead) + len(behind):
                default, opening, start = start[len(ahead) : len(start) - len(behind)], ahead, ""
            system = (opening, behind)
    return ChatTexts(start, (before_user, after_user), (before_reply, after_reply), system, inside, default, asks)


def _trials(texts: ChatTexts) -> list[list[Message]]:
    """Other words, more turns, with and without a system prompt."""
    talk = [Message("user", "Is it 7?\n\nOr 8"), Message("assistant", "It is 8."), Message("user", "x < y & \"z\""),
            Message("assistant", "- a\n- b"), Message("user", "{{ no }}")]  # fmt: skip
    trials = [talk[:1], talk[:3], talk]
    if texts.system is not None:
        trials += [[Message("system", "Be brief: 1 line."), *part] for part in trials]
    return trials


def go_template(texts: ChatTexts) -> str:
    """The template in Go's language; all texts are string constants, so no white space is at stake.

    The last reply is one to be gone on with: nothing stands after it, and nothing asks for another.
    """
    last = "eq (len (slice $.Messages $i)) 1"
    merged = ""
    if texts.in_first_user and texts.system is not None:
        inner = f"{_quoted(texts.system[0])}{{{{ $.System }}}}{_quoted(texts.system[1])}"
        merged = f"{{{{ if and $.System (eq $i 1) }}}}{inner}{{{{ end }}}}"
    system = ""
    if texts.system is not None and not texts.in_first_user:
        inner = f"{_quoted(texts.system[0])}{{{{ $m.Content }}}}{_quoted(texts.system[1])}"
        system = f'{{{{ if eq $m.Role "system" }}}}{inner}{{{{ end }}}}'
    inner = f"{_quoted(texts.user[0])}{merged}{{{{ $m.Content }}}}{_quoted(texts.user[1])}"
    user = f'{{{{ if eq $m.Role "user" }}}}{inner}{{{{ end }}}}'
    reply = (
        f'{{{{ if eq $m.Role "assistant" }}}}{_quoted(texts.reply[0])}{{{{ $m.Content }}}}'
        f"{{{{ if not ({last}) }}}}{_quoted(texts.reply[1])}{{{{ end }}}}{{{{ end }}}}"
    )
    asks = f'{{{{ if and ({last}) (ne $m.Role "assistant") }}}}{_quoted(texts.asks)}{{{{ end }}}}'
    return f"{_quoted(texts.start)}{{{{ range $i, $m := .Messages }}}}{system}{user}{reply}{asks}{{{{ end }}}}"


def _quoted(text: str) -> str:
    return f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}" if text else ""


def _around(text: str, words: str) -> tuple[str, str]:
    before, found, after = text.partition(words)
    if not found or words in after:
        raise ValueError("the words of a turn are not written once")
    return before, after


def _between(text: str, first: str, second: str) -> str:
    return _around(_around(text, first)[1], second)[0]


def _after(text: str, start: str) -> str:
    if not text.startswith(start):
        raise ValueError(f"{text!r} does not begin with {start!r}")
    return text[len(start) :]


def _before(text: str, end: str) -> str:
    if not text.endswith(end):
        raise ValueError(f"{text!r} does not end with {end!r}")
    return text[: len(text) - len(end)]


def _unrecognized(renderer: Renderer, found: str) -> TemplateError:
    return TemplateError(
        "The chat template cannot be written in Ollama's language",
        where=renderer.template.name,
        found=found[:300],
        expected="turns one after the other, each with the same words around it",
        fix="serve the GGUF with llama.cpp, which runs the template itself: tutelage export RUN --to gguf",
    )

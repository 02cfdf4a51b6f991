"""A small grammar of chat templates: what well-known ones do, in any combination, written as Jinja text.

`Grammar.template` is the Jinja; `Grammar.body` says in Python, by its own rules, what the last assistant turn becomes.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from tutelage.types import Message

END = "</s>"
"""The `eos_token` of every checkpoint here."""


@dataclass(frozen=True)
class Style:
    """How turns are marked: `name` is the role as a Jinja expression, between `before` and `behind` it is the header.

    `lead` and `tail` stand around the words of an assistant turn.
    """

    before: str
    name: str
    behind: str
    end: str
    assistant: str
    lead: str = ""
    tail: str = ""


HEADER, HEADER_END = "<|start_header_id|>", "<|end_header_id|>\n\n"
STYLES = {
    "control": Style("<|im_start|>", "role", "\n", "<|im_end|>", "<|im_start|>assistant\n"),
    "headers": Style(HEADER, "role", HEADER_END, "<|eot_id|>", f"{HEADER}assistant{HEADER_END}"),
    "renamed": Style(
        "<start_of_turn>", "('model' if role == 'assistant' else role)", "\n", "<end_of_turn>", "<start_of_turn>model\n"
    ),
    "tight": Style("<|", "role", "|>", "<|end|>", "<|assistant|>"),
    "words": Style("", "role | upper", ":", " ", "ASSISTANT:", " "),
    "brackets": Style("", "('' if role == 'assistant' else '[INST] ')", "", " [/INST]", "", " ", " "),
}

TAGS = {
    "lines": ("<think>\n", "\n</think>\n\n"),
    "inline": ("<think>", "</think>"),
    "square": ("[THINK]", "[/THINK]"),
    "seed": ("<seed:think>", "</seed:think>"),
}

CONTROL_TOKENS = (
    *("<s>", END, "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|start_header_id|>", "<|end_header_id|>"),
    *("<|eot_id|>", "<start_of_turn>", "<end_of_turn>", "<|user|>", "<|assistant|>", "<|system|>", "<|tool|>"),
    *("<|end|>", "<|return|>"),
)

CHOICES: dict[str, tuple[str, ...]] = {
    "style": tuple(STYLES),
    "bos": ("never", "written"),
    "system": ("turn", "merged", "dropped", "refused", "default"),
    "trim": ("none", "user", "assistant", "both", "newlines"),
    "stop": ("token", "eos", "none", "last_only", "differs"),
    "separator": ("", "\n", "\n\n", " "),
    "prompt": ("header", "shorter", "longer", "opens", "closes", "ignored"),
    "history": ("keeps", "drops_reasoning", "marks_earlier", "last_question"),
    "reasoning": ("reasoning_content", "reasoning", "thinking", "inline", "cut", "none"),
    "tags": tuple(TAGS),
    "empty_block": ("no", "yes"),
    "calls": ("object", "text", "python", "none"),
    "results": ("role", "merged"),
    "content": ("text", "parts"),
    "writing": ("plus", "tilde", "outs", "join", "format", "macro", "set", "replace"),
    "layout": ("dashes", "lines", "packed"),
    "last": ("loop", "length", "namespace"),
}


@dataclass(frozen=True)
class Grammar:
    """One template: a choice for each of `CHOICES`."""

    style: str = "control"
    bos: str = "never"
    system: str = "turn"
    trim: str = "none"
    stop: str = "token"
    separator: str = "\n"
    prompt: str = "header"
    history: str = "keeps"
    reasoning: str = "none"
    tags: str = "lines"
    empty_block: str = "no"
    calls: str = "none"
    results: str = "role"
    content: str = "text"
    writing: str = "plus"
    layout: str = "dashes"
    last: str = "loop"

    @property
    def look(self) -> Style:
        """The marks of turns."""
        return STYLES[self.style]

    @property
    def stops(self) -> tuple[str, ...]:
        """What ends a generation of the model that has this template."""
        if self.stop == "differs":
            return ("<|return|>",)
        named = self.stop in ("eos", "none") or self.style in ("words", "brackets")
        return (END if named else self.look.end,)

    @property
    def prompted(self) -> str:
        """What the template writes where it is asked for a reply."""
        header, (opening, closing) = self.look.assistant, TAGS[self.tags]
        return {
            "header": header,
            "shorter": header.rstrip(),
            "longer": header.rstrip() + ("\n\n" if header.endswith("\n") and not header.endswith("\n\n") else " \n"),
            "opens": header + self.look.lead + opening,
            "closes": header + self.look.lead + opening.strip() + "\n\n" + closing.strip() + "\n\n",
            "ignored": "",
        }[self.prompt]

    @property
    def template(self) -> str:
        """The Jinja text."""
        return "".join(written(kind, text, self.layout) for kind, text in self._items())

    def sees(self, message: Message) -> dict[str, Any]:
        """A message as a client sends it to a server with this template."""
        said = message.content or ""
        content = [{"type": "text", "text": said}] if self.content == "parts" else said
        seen: dict[str, Any] = {"role": message.role, "content": content}
        if message.reasoning is not None:
            seen[self.reasoning if self.reasoning in REASONING_FIELDS else "reasoning_content"] = message.reasoning
        if message.tool_calls:
            seen["tool_calls"] = [
                {"type": "function", "function": {"name": call.name, "arguments": self._told(call.arguments)}}
                for call in message.tool_calls
            ]
        return seen

    def _told(self, arguments: Mapping[str, Any]) -> Any:
        return json.dumps(dict(arguments), ensure_ascii=False) if self.calls == "text" else dict(arguments)

    def body(self, message: Message) -> str:
        """What the last assistant turn becomes, between the header and the end of the turn."""
        said, thought = message.content or "", ""
        opening, closing = TAGS[self.tags]
        if self.reasoning in REASONING_FIELDS:
            thought = message.reasoning or ""
        elif self.reasoning in ("inline", "cut") and closing.strip() in said:
            before = said.split(closing.strip())[0]
            thought = before.split(opening.strip())[-1] if self.reasoning == "inline" else ""
            said = said.split(closing.strip())[-1].lstrip("\n")
        if self.trim in ("assistant", "both"):
            said = said.strip()
        elif self.trim == "newlines":
            said = said.strip("\n")
        block = opening + thought.strip() + closing if thought else ""
        if not thought and self.empty_block == "yes":
            block = opening.strip() + "\n\n" + closing.strip() + "\n\n"
        return (
            self.look.lead
            + block
            + said
            + "".join(self._call(call.name, call.arguments) for call in message.tool_calls)
        )

    def _call(self, name: str, arguments: Any) -> str:
        if self.calls == "object":
            made = {"name": name, "arguments": dict(arguments)}
            return "<tool_call>\n" + json.dumps(made, ensure_ascii=False) + "\n</tool_call>"
        if self.calls == "text":
            told = json.dumps(dict(arguments), ensure_ascii=False)
            return '<tool_call>{"name": "' + name + '", "arguments": ' + told + "}</tool_call>"
        if self.calls == "python":
            told = ", ".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in arguments.items())
            return f"[{name}({told})]"
        return ""

    def _items(self) -> Iterator[tuple[str, str]]:
        yield from self._macros()
        if self.bos == "written":
            yield "out", "bos_token"
        yield from self._opening()
        yield "block", "set seen = namespace(asked=-1, last=-1)"
        yield "block", "for message in turns"
        yield "block", "if message['role'] == 'user'"
        yield "block", "set seen.asked = loop.index0"
        yield "block", "endif"
        yield "block", "set seen.last = loop.index0"
        yield "block", "endfor"
        shown = "turns[seen.asked:] if seen.asked > 0 else turns" if self.history == "last_question" else "turns"
        yield "block", f"set shown = {shown}"
        yield "block", "set skipped = (turns | length) - (shown | length)"
        yield "block", "for message in shown"
        yield from self._turn()
        yield "block", "endfor"
        if self.prompted:
            yield "block", "if add_generation_prompt"
            yield "out", quoted(self.prompted)
            yield "block", "endif"

    def _macros(self) -> Iterator[tuple[str, str]]:
        if self.content == "parts":
            yield "block", "macro said(content)"
            yield "block", "for part in content"
            yield "out", "part['text']"
            yield "block", "endfor"
            yield "block", "endmacro"
        if self.writing == "macro":
            yield "block", "macro put(header, body, end)"
            yield "out", "header ~ body ~ end"
            yield "block", "endmacro"

    def _opening(self) -> Iterator[tuple[str, str]]:
        there = "messages and messages[0]['role'] == 'system'"
        if self.system == "refused":
            yield "block", f"if {there}"
            yield "out", "raise_exception('no system turn here')"
            yield "block", "endif"
        if self.system == "default":
            yield "block", f"if not ({there})"
            role = self.look.name.replace("role", "'system'")
            words = f"{quoted(self.look.before)} ~ {role} ~ {quoted(self.look.behind)} ~ 'You help.' ~ "
            yield "out", words + quoted(self.look.end + self.separator)
            yield "block", "endif"
        if self.system == "merged":
            yield "block", f"if {there}"
            yield "block", f"set first = {self._words('messages[0]')} ~ '\\n\\n'"
            yield "block", "set turns = messages[1:]"
            yield "block", "else"
            yield "block", "set first = ''"
            yield "block", "set turns = messages"
            yield "block", "endif"
        elif self.system == "dropped":
            yield "block", f"if {there} and messages[-1]['role'] != 'user'"
            yield "block", "set turns = messages[1:]"
            yield "block", "else"
            yield "block", "set turns = messages"
            yield "block", "endif"
        else:
            yield "block", "set turns = messages"

    def _turn(self) -> Iterator[tuple[str, str]]:
        yield "block", "set role = message['role']"
        yield "block", f"set words = {self._words('message')}"
        if self.system == "merged":
            yield "block", "if loop.first and skipped == 0 and role == 'user'"
            yield "block", "set words = first ~ words"
            yield "block", "endif"
        final = {
            "loop": "loop.last",
            "length": "loop.index0 == (shown | length) - 1",
            "namespace": "loop.index0 + skipped == seen.last",
        }[self.last]
        yield "block", f"set final = {final}"
        yield "block", "if role == 'assistant'"
        yield from self._assistant()
        if self.results == "merged":
            yield "block", "elif role == 'tool'"
            yield from self._merged_result()
        yield "block", "else"
        words = "words | trim" if self.trim in ("user", "both") else "words"
        yield from self._put(self._header(), words, quoted(self.look.end + self.separator))
        yield "block", "endif"

    def _merged_result(self) -> Iterator[tuple[str, str]]:
        yield "block", "if loop.first or loop.previtem['role'] != 'tool'"
        yield "out", self._header().replace("role", "'user'")
        yield "block", "endif"
        yield "out", "'<tool_response>\\n' ~ words ~ '\\n</tool_response>'"
        yield "block", "if loop.last or loop.nextitem['role'] != 'tool'"
        yield "out", quoted(self.look.end + self.separator)
        yield "block", "endif"

    def _assistant(self) -> Iterator[tuple[str, str]]:
        opening, closing = TAGS[self.tags]
        open_tag, close_tag = quoted(opening.strip()), quoted(closing.strip())
        yield "block", "set thought = ''"
        if self.reasoning in REASONING_FIELDS:
            yield "block", f"set thought = message['{self.reasoning}'] or ''"
        elif self.reasoning in ("inline", "cut"):
            yield "block", f"if {close_tag} in words"
            if self.reasoning == "inline":
                yield "block", f"set thought = words.split({close_tag})[0].split({open_tag})[-1]"
            yield "block", f"set words = words.split({close_tag})[-1].lstrip('\\n')"
            yield "block", "endif"
        if self.trim in ("assistant", "both", "newlines"):
            yield "block", "set words = words.strip('\\n')" if self.trim == "newlines" else "set words = words | trim"
        yield "block", "set block = ''"
        shown = "loop.index0 + skipped > seen.asked" if self.history == "drops_reasoning" else "true"
        yield "block", f"if thought and {shown}"
        yield "block", f"set block = {quoted(opening)} ~ (thought | trim) ~ {quoted(closing)}"
        if self.empty_block == "yes":
            yield "block", "elif not thought and final"
            yield "block", f"set block = {open_tag} ~ '\\n\\n' ~ {close_tag} ~ '\\n\\n'"
        yield "block", "endif"
        yield from self._calls()
        end, other = self._ends()
        yield "block", f"set end = {end} if final else {other}"
        yield from self._put(self._header(), f"{quoted(self.look.lead)} ~ block ~ words ~ calls", "end")

    def _ends(self) -> tuple[str, str]:
        """The end of the last turn, and that of an earlier one, as Jinja."""
        stop = "eos_token" if self.stop == "eos" or self.stops == (END,) else quoted(self.look.end)
        whole = f"{quoted(self.look.tail)} ~ {stop} ~ {quoted(self.separator)}"
        bare = quoted(self.look.tail + self.separator)
        last, earlier = {
            "token": (whole, whole),
            "eos": (whole, whole),
            "none": (bare, bare),
            "last_only": (whole, bare),
            "differs": (
                quoted(self.look.tail + "<|return|>" + self.separator),
                quoted(self.look.tail + "<|end|>" + self.separator),
            ),
        }[self.stop]
        return f"({last})", f"(' (earlier)' ~ {earlier})" if self.history == "marks_earlier" else f"({earlier})"

    def _calls(self) -> Iterator[tuple[str, str]]:
        yield "block", "set calls = ''"
        if self.calls == "none":
            return
        yield "block", "set calls"
        yield "block", "for call in message['tool_calls'] or []"
        if self.calls == "object":
            made = "{'name': call.function.name, 'arguments': call.function.arguments}"
            yield "out", f"'<tool_call>\\n' + {made} | tojson + '\\n</tool_call>'"
        elif self.calls == "text":
            told = "call.function.name + '\", \"arguments\": ' + call.function.arguments + '}</tool_call>'"
            yield "out", '\'<tool_call>{"name": "\' + ' + told
        else:
            yield "out", "'[' ~ call.function.name ~ '('"
            yield "block", "for key, value in call.function.arguments.items()"
            yield "out", "key ~ '=' ~ (value | tojson) ~ (', ' if not loop.last else '')"
            yield "block", "endfor"
            yield "out", "')]'"
        yield from (("block", "endfor"), ("block", "endset"))

    def _words(self, message: str) -> str:
        return f"said({message}['content'])" if self.content == "parts" else f"{message}['content']"

    def _header(self) -> str:
        look = self.look
        if self.writing == "replace":
            return f"({quoted(look.before + 'WHO' + look.behind)} | replace('WHO', {look.name}))"
        return f"({quoted(look.before)} ~ ({look.name}) ~ {quoted(look.behind)})"

    def _put(self, header: str, body: str, end: str) -> Iterator[tuple[str, str]]:
        """One turn of three pieces, in one of the ways that templates put pieces together."""
        if self.writing in ("outs", "replace"):
            yield from (("out", one) for one in (header, body, end))
        elif self.writing == "join":
            yield "out", f"[{header}, {body}, {end}] | join"
        elif self.writing == "format":
            yield "out", f"'%s%s%s' | format({header}, {body}, {end})"
        elif self.writing == "macro":
            yield "out", f"put({header}, {body}, {end})"
        elif self.writing == "set":
            yield "block", "set made"
            yield from (("out", one) for one in (header, body, end))
            yield from (("block", "endset"), ("out", "made"))
        else:
            sign = " + " if self.writing == "plus" else " ~ "
            yield "out", sign.join(f"({one})" for one in (header, body, end))


REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")


def quoted(text: str) -> str:
    """A Jinja literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n") + "'"


def written(kind: str, text: str, layout: str) -> str:
    """One tag of a template: with dashes, on a line of its own (as trim and lstrip blocks allow), or packed."""
    if layout == "packed":
        return "{{ " + text + " }}" if kind == "out" else "{% " + text + " %}"
    if layout == "lines":
        return "{{- " + text + " -}}\n" if kind == "out" else "    {% " + text + " %}\n"
    return "{{- " + text + " -}}\n" if kind == "out" else "{%- " + text + " -%}\n"


def enumerated() -> Iterator[Grammar]:
    """The fixed part of the grammar: every style, stop, prompt and history together, the rest drawn by the number."""
    core = ("style", "stop", "prompt", "history")
    for number, choice in enumerate(product(*(CHOICES[name] for name in core))):
        draw = random.Random(number)
        others = {name: draw.choice(CHOICES[name]) for name in CHOICES if name not in core}
        yield Grammar(**dict(zip(core, choice, strict=True)), **others)

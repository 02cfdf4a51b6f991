"""What a tokenizer makes of the text that a chat template writes: control tokens, the end of a reply, BOS."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator

from tutelage.audit.template_probe import SECOND_QUESTION, Behavior, Probe, assistant, control_like, system, user
from tutelage.audit.tool_findings import tool
from tutelage.render.chat_template.template import ChatTemplate
from tutelage.render.tokenizer import NAMED_TOKENS, Tokenizer
from tutelage.types import Finding

CONTROL_FORM = re.compile(r"<[|｜].*[|｜]>|\[\|.*\|\]|<\|\w+>|<\w+\|>|</?s>|<(?:start|end)_of_\w+>")
"""Spellings that are only ever meant as one token; `[INST]` and `<think>` are ordinary text to some models."""

EXCERPT_TOKENS = 8


def template_tokens(template: ChatTemplate, behavior: Behavior) -> tuple[str, ...]:
    """What looks like a control token in plain conversations as the template writes them, once each, in order."""
    return tuple(control_like("\n".join(_plain_texts(template, behavior))))


def token_findings(
    template: ChatTemplate,
    tokenizer: Tokenizer,
    behavior: Behavior,
    *,
    missing_stop: str,
    text_markers: Collection[str],
) -> Iterator[Finding]:
    """Findings about this tokenizer under this template."""
    yield from _control_tokens(template, tokenizer, behavior, text_markers)
    yield from _named_tokens(template, tokenizer)
    if behavior.reply_tail is not None:
        yield from _stops(tokenizer, behavior.reply_tail, missing_stop=missing_stop)
    yield from _bos(template, tokenizer, behavior)
    yield from _stripping(template, tokenizer, behavior)
    yield from _padding(tokenizer)
    yield from _stored_templates(template, tokenizer)


def _plain_texts(template: ChatTemplate, behavior: Behavior) -> list[str]:
    probe = Probe(template, behavior.content)
    first = [system()] if behavior.system in ("kept", "merged", "dropped_after_reply") else []
    texts = [
        probe.text([*first, user(), assistant(), user(SECOND_QUESTION)], prompt=True),
        probe.text([user()], prompt=True),
        probe.text([user(), assistant()], prompt=False),
    ]
    return [text for text in texts if text is not None]


def _control_tokens(
    template: ChatTemplate, tokenizer: Tokenizer, behavior: Behavior, text_markers: Collection[str]
) -> Iterator[Finding]:
    plain = template_tokens(template, behavior)
    pieces = {token: len(tokenizer.encode([token])[0]) for token in plain}
    split = [token for token in plain if pieces[token] > 1]
    broken = [token for token in split if CONTROL_FORM.fullmatch(token) and token not in text_markers]
    ends = control_like(behavior.reply_tail or "")[:1]
    if broken and (ends and ends[0] in broken):
        yield Finding(
            "control_tokens_split",
            "error",
            "The template does not belong to this checkpoint: the tokens that mark turns, and the one that ends a "
            "reply, are not tokens of this tokenizer and would be trained and served as loose pieces.",
            _in_pieces(broken, pieces),
            "name the template that the model was made with: --template",
        )
    elif broken:
        yield Finding(
            "role_tokens_split",
            "warning",
            "Marks of roles that look like control tokens are loose pieces to this tokenizer. Some models were made "
            "so; for others it means that the template does not belong to the checkpoint. Look at the loss on them.",
            _in_pieces(broken, pieces),
            "if the model was made with another template, name that: --template",
        )
    ordinary_texts = [token for token in split if token not in broken]
    if ordinary_texts:
        yield Finding(
            "markers_are_text",
            "info",
            "Some markers of this template are ordinary text to this tokenizer, as is usual for formats made of text.",
            _in_pieces(ordinary_texts, pieces),
        )
    yield from _beyond_embedding(tokenizer, plain)
    tools = Probe(template, behavior.content).text([user()], prompt=True, tools=[tool()]) or ""
    tool_tokens = [token for token in control_like(tools) if token not in plain and CONTROL_FORM.fullmatch(token)]
    loose = [token for token in tool_tokens if len(tokenizer.encode([token])[0]) > 1]
    if loose and not broken:
        yield Finding(
            "tool_tokens_split",
            "warning",
            "Control tokens that this template writes around tools are not tokens of this tokenizer.",
            ", ".join(loose[:EXCERPT_TOKENS]),
            "train on rows without tools, or name the template that the model was made with: --template",
        )


def _in_pieces(tokens: list[str], pieces: dict[str, int]) -> str:
    return ", ".join(f"{token} is {pieces[token]} tokens" for token in tokens[:EXCERPT_TOKENS])


def _beyond_embedding(tokenizer: Tokenizer, plain: tuple[str, ...]) -> Iterator[Finding]:
    rows = tokenizer.vocabulary_size
    beyond = {token: index for token, index in tokenizer.special_tokens.items() if index >= rows}
    written = [token for token in beyond if token in plain]
    if written:
        yield Finding(
            "control_tokens_without_embedding",
            "error",
            "Control tokens that this template writes have no row in the model's embedding: rows with them are "
            "dropped, so nothing can be trained.",
            f"{', '.join(f'{token} is id {beyond[token]}' for token in written[:EXCERPT_TOKENS])}; "
            f"the model has {rows}",
            "use the tokenizer that belongs to this model, or resize its embedding and train the new rows",
        )
    elif beyond:
        yield Finding(
            "ids_without_embedding",
            "info",
            "Some control tokens have no row in the model's embedding; rows of data that hold one are dropped.",
            f"{len(beyond)} of them, such as {next(iter(beyond))} with id {min(beyond.values())}; the model has {rows}",
        )


def _named_tokens(template: ChatTemplate, tokenizer: Tokenizer) -> Iterator[Finding]:
    missing = [name for name in NAMED_TOKENS if name in template.variables and name not in template.arguments]
    if missing:
        yield Finding(
            "named_tokens_undefined",
            "warning",
            "The template asks for named tokens that this tokenizer does not define; they come out as nothing.",
            f"{', '.join(missing)} not in {tokenizer.folder.name}/tokenizer_config.json",
            "define them in tokenizer_config.json, if the model was trained with them",
        )


def _stops(tokenizer: Tokenizer, tail: str, *, missing_stop: str) -> Iterator[Finding]:
    ids = tokenizer.encode([tail])[0]
    stops = _spelled(tokenizer)
    first = next((index for index, token in enumerate(ids) if token in tokenizer.stop_ids), None)
    candidates = [token for token in control_like(tail) if len(tokenizer.encode([token])[0]) == 1]
    if first is None:
        consequence = "that token is appended to each trained reply" if missing_stop == "append" else "rows are dropped"
        yield Finding(
            "no_stop_after_reply",
            "warning",
            f"The template ends a reply without a token that the model stops on, so {consequence} "
            "(render.missing_stop).",
            f"after the reply it writes {tail!r}; the model stops on {stops}",
            f"if the model is to be served with {candidates[0]} as a stop: render.stop_tokens = [{candidates[0]!r}]"
            if candidates
            else None,
        )
        return
    ending = tokenizer.decode([ids[first]])
    prefix_text, suffix_text = tail[: tail.find(ending)], tail[tail.find(ending) + len(ending) :]
    if prefix_text.strip():
        yield Finding(
            "text_before_stop",
            "warning",
            "Between the reply and its stop token the template writes more, which the model must emit and learns.",
            f"before {ending} it writes {prefix_text!r}",
            f"if a server stops earlier, at {candidates[0]}: render.stop_tokens = [{candidates[0]!r}]"
            if candidates and candidates[0] != ending
            else None,
        )
    elif prefix_text:
        yield Finding(
            "space_before_stop",
            "info",
            "The template writes white space between the reply and its stop token; the model is trained to emit it.",
            f"before {ending} it writes {prefix_text!r}",
        )
    if suffix_text:
        yield Finding(
            "text_after_stop",
            "info",
            "What the template writes after the stop token never comes from the model: it is context of the next turn "
            "and is not trained.",
            f"after {ending} it writes {suffix_text!r}",
        )
    eos = tokenizer.named_tokens.get("eos_token")
    if eos is not None and eos != ending:
        yield Finding(
            "eos_differs",
            "info",
            "Replies end in another token than eos_token. The generation settings name it as a stop, so it is trained.",
            f"replies end in {ending}; eos_token is {eos}",
        )


def _spelled(tokenizer: Tokenizer) -> str:
    return ", ".join(tokenizer.decode([stop_token_id]) for stop_token_id in sorted(tokenizer.stop_ids)) or "nothing"


def _bos(template: ChatTemplate, tokenizer: Tokenizer, behavior: Behavior) -> Iterator[Finding]:
    bos = tokenizer.named_tokens.get("bos_token")
    if bos is None:
        return
    served = Probe(template, behavior.content).text([user()], prompt=True) or ""
    written = 0
    while served[written * len(bos) :].startswith(bos):
        written += 1
    index = tokenizer.fast.token_to_id(bos)
    added = tokenizer.encode_document("x")[:1] == [index]
    if written > 1:
        yield Finding(
            "bos_written_twice",
            "warning",
            "The template itself begins a conversation with BOS more than once; that is trained and served.",
            f"the served prompt begins with {bos} x {written}",
        )
    elif written and added:
        yield Finding(
            "bos_added_twice",
            "info",
            "The template writes the first token (BOS), and the tokenizer adds another when a client lets it. Training "
            "has one; make sure the server encodes the prompt without adding special tokens.",
            f"the served prompt begins with {bos}; encoding plain text adds {bos}, too",
        )
    elif not written and added:
        yield Finding(
            "bos_not_written",
            "info",
            "The template does not write the first token (BOS) that the tokenizer puts before plain text: chats are "
            "trained without it, as they are served.",
            f"encoding plain text adds {bos}; the served prompt begins with {served[:40]!r}",
        )


def _stripping(template: ChatTemplate, tokenizer: Tokenizer, behavior: Behavior) -> Iterator[Finding]:
    text = "\n".join(_plain_texts(template, behavior))
    for token in tokenizer.fast.get_added_tokens_decoder().values():
        swallowed = [
            match.group()
            for sides, pattern in ((token.lstrip, rf"\s+{re.escape(token.content)}"),
                                   (token.rstrip, rf"{re.escape(token.content)}\s+"))
            if sides and (match := re.search(pattern, text))
        ]  # fmt: skip
        if swallowed:
            yield Finding(
                "white_space_swallowed",
                "warning",
                f"{token.content} takes the white space beside it with it: what the template writes there is neither "
                "trained nor served, and two texts become the same ids.",
                f"the template writes {swallowed[0]!r}",
            )


def _padding(tokenizer: Tokenizer) -> Iterator[Finding]:
    pad = tokenizer.named_tokens.get("pad_token")
    index = None if pad is None else tokenizer.fast.token_to_id(pad)
    if index is not None and index in tokenizer.stop_ids:
        yield Finding(
            "pad_is_stop",
            "info",
            "The padding token is a stop token. Tools that mask by padding never train the stop then; here rows are "
            "packed, nothing is padded with it, and the mask comes from the proof.",
            f"pad_token is {pad}, which ends a generation",
        )


def _stored_templates(template: ChatTemplate, tokenizer: Tokenizer) -> Iterator[Finding]:
    others = sorted(name for name in tokenizer.templates if name not in ("default", "tool_use"))
    is_own_template = template.source == tokenizer.template
    if is_own_template and template.tools_source is not None:
        yield Finding(
            "two_templates",
            "info",
            "Rows with tools are rendered with the checkpoint's template tool_use, all others with its default.",
            f"templates: {', '.join(sorted(tokenizer.templates))}",
        )
    if others:
        yield Finding(
            "further_templates",
            "info",
            "The checkpoint has further templates that no row uses.",
            ", ".join(others),
            "if the model is served with one of them, save it to a file and name that: --template FILE",
        )
    path = tokenizer.folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    older = settings.get("chat_template") if isinstance(settings, dict) else None
    if isinstance(older, str) and is_own_template and older != template.source:
        yield Finding(
            "stored_twice",
            "warning",
            "The checkpoint holds two different default templates. chat_template.jinja is used here; a server that "
            "reads tokenizer_config.json serves the other.",
            "chat_template.jinja and chat_template in tokenizer_config.json differ",
            "remove the one that is not served",
        )

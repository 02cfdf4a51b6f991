"""Parity: what the server renders for OpenAI's own client is, id for id, what training rendered."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.serve.conftest import NAME
from tests.support.served import Running, running
from tutelage import formats
from tutelage.builders.renderer import renderer_for
from tutelage.builders.served_models import ServedModels, open_served_models
from tutelage.config import RenderSettings
from tutelage.ledger import Ledger
from tutelage.render import Renderer
from tutelage.types import Conversation, Drop, Message

ROOT = Path(__file__).resolve().parents[2]
TRAPS = ROOT / "benchmarks/masks/conversations.jsonl"
BUILTIN = sorted((ROOT / "src/tutelage/render/chat_template/builtin").glob("*.jinja"))
MATERIAL = sorted((ROOT.parent / "shared/material/templates").glob("*.jinja"))
TAKEN = 6
"""Templates whose prompts `make test` asks for."""


def traps() -> list[Conversation]:
    return list(formats.read([str(TRAPS)], ledger=Ledger()))


def in_words_of_the_api(message: Message) -> dict[str, Any]:
    turn: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.reasoning is not None:
        turn["reasoning_content"] = message.reasoning
    if message.tool_calls:
        turn["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(dict(call.arguments), ensure_ascii=False)},
            }
            for call in message.tool_calls
        ]
    named = {"name": message.name, "tool_call_id": message.tool_call_id}
    return turn | {name: value for name, value in named.items() if value is not None}


def trained_prompts(
    renderer: Renderer, conversations: Sequence[Conversation]
) -> Iterator[tuple[Conversation, int, list[int]]]:
    """Each proven row, its trained turns, and what training laid in front of each."""
    for conversation, outcome in zip(conversations, renderer.prove(conversations), strict=True):
        if isinstance(outcome, Drop) or conversation.is_text:
            continue
        as_proven = renderer.as_proven(conversation)
        for example in outcome.examples:
            for turn in example.turns:
                if not turn.message:
                    continue  # it opens the conversation: OpenAI's API has no request without a message
                yield as_proven, turn.message, example.ids[: turn.prompt_end].tolist()


def differing(server: Running, name: str, conversations: Sequence[Conversation]) -> tuple[int, list[str]]:
    """How many prompts were asked for, and those that are others than training's."""
    client, renderer, asked, others = server.client(), server.service.models[name].renderer, 0, []
    for conversation, message, expected in trained_prompts(renderer, conversations):
        reply = client.chat.completions.create(
            model=name,
            messages=[in_words_of_the_api(turn) for turn in conversation.messages[:message]],
            max_tokens=1,
            **(
                {"tools": [dict(tool) for tool in conversation.tools], "tool_choice": "none"}
                if conversation.tools
                else {}
            ),
            extra_body={"return_token_ids": True, "chat_template_kwargs": dict(conversation.template_arguments)},
        )
        asked += 1
        if reply.prompt_token_ids != expected:
            others.append(f"{name}, {conversation.address}, message {message}")
    return asked, others


def with_templates(folder: Path, templates: Sequence[Path], **settings: Any) -> ServedModels:
    """The tiny model under a name for each template."""
    served = open_served_models([f"{NAME}={folder}"], active_replies=8, log=lambda _line: None)
    model = served.models[NAME]
    for template in templates:
        renderer = renderer_for(folder, RenderSettings(template=str(template), **settings))
        served.add(replace(model, name=template.stem, renderer=renderer, positions=None))
    return served


@pytest.mark.parametrize("control_tokens", ["drop", "escape"])
def test_prompts_of_trap_conversations_are_those_of_training(tiny_model_folder: Path, control_tokens: str) -> None:
    templates = (BUILTIN + MATERIAL)[:TAKEN] if control_tokens == "drop" else BUILTIN[:1]
    served = with_templates(tiny_model_folder, templates, control_tokens=control_tokens)
    with running(served=served, prompt_tokens=100_000, body_bytes=2**22) as server:
        results = [differing(server, template.stem, traps()) for template in templates]
    assert [other for _, others in results for other in others] == []
    assert sum(asked for asked, _ in results) > 60


@pytest.mark.nightly
@pytest.mark.timeout(3000)
@pytest.mark.skipif(not MATERIAL, reason="the published templates are not on this machine")
def test_prompts_of_all_published_templates_are_those_of_training(tiny_model_folder: Path) -> None:
    served = with_templates(tiny_model_folder, MATERIAL)
    with running(served=served, prompt_tokens=100_000, body_bytes=2**22) as server:
        results = [differing(server, template.stem, traps()) for template in MATERIAL]
    assert [other for _, others in results for other in others] == []
    assert sum(asked for asked, _ in results) > 2000

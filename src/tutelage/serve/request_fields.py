"""The fields of requests, as OpenAI's API names and bounds them; what is not listed is refused by name.

Fields that change nothing of a reply here (who asks, what is stored) are taken and not read. Fields that would change
it, and that nothing here does, are refused where they ask for more than their default.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MOST_CHOICES = 16
MOST_PROMPTS = 64
MOST_STOPS = 16
MOST_TOP_LOGPROBS = 20
LARGEST_SEED = 2**63 - 1

Stop = str | list[str] | None
Penalty = Annotated[float, Field(ge=-2, le=2)]


class StreamOptions(BaseModel):
    """What a stream has beside its text."""

    model_config = ConfigDict(extra="forbid")

    include_usage: bool = False
    include_obfuscation: bool = False


class GenerationFields(BaseModel):
    """What both kinds of requests have."""

    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())

    model: str
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: int | None = Field(default=1, ge=1, le=MOST_CHOICES)
    seed: int | None = Field(default=None, ge=-LARGEST_SEED - 1, le=LARGEST_SEED)
    temperature: float | None = Field(default=1.0, ge=0, le=2)
    top_p: float | None = Field(default=1.0, gt=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)
    stop: Stop = None
    presence_penalty: Penalty | None = 0.0
    frequency_penalty: Penalty | None = 0.0
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    # Of this engine, and named as other servers of open models name them.
    top_k: int | None = Field(default=0, ge=-1)
    min_p: float | None = Field(default=0.0, ge=0, le=1)
    repetition_penalty: float | None = Field(default=1.0, gt=0, le=10)
    return_token_ids: bool = False
    # Of no account here.
    user: str | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """The texts before which a reply ends."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class FunctionName(BaseModel):
    """The function that is to be called."""

    model_config = ConfigDict(extra="forbid")

    name: str


class NamedTool(BaseModel):
    """The tool that is to be called."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["function"]
    function: FunctionName


class JsonSchema(BaseModel):
    """What a reply is to be, as a JSON Schema."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), populate_by_name=True)

    name: str
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class ResponseFormat(BaseModel):
    """What kind of text a reply is."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class ChatFields(GenerationFields):
    """A request to `/v1/chat/completions`."""

    messages: list[dict[str, Any]] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = False
    top_logprobs: int | None = Field(default=None, ge=0, le=MOST_TOP_LOGPROBS)
    tools: list[dict[str, Any]] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = True
    response_format: ResponseFormat | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    # Of no account here.
    store: bool | None = None
    metadata: dict[str, str] | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prediction: dict[str, Any] | None = None
    modalities: list[Literal["text"]] | None = None

    @property
    def forced(self) -> Literal["required"] | NamedTool | None:
        """What is to be called; None where the model may reply as it will."""
        return self.tool_choice if self.tool_choice == "required" or isinstance(self.tool_choice, NamedTool) else None


class CompletionFields(GenerationFields):
    """A request to `/v1/completions`."""

    prompt: str | list[str] | list[int] | list[list[int]] = Field(min_length=1)
    logprobs: int | None = Field(default=None, ge=0, le=MOST_TOP_LOGPROBS)
    echo: bool | None = False
    best_of: int | None = Field(default=None, ge=1)
    suffix: None = None

"""A model's name -> what steps of curation ask: how likely replies are, and vectors of rows. One model, one process.

Rows are written by the renderer of training, so the losses are those of the tokens that would be trained, on the
context that a server would give. Documents are packed side by side as in training; nothing crosses from one to another.

Shape legend: S = tokens of a sequence, D = hidden width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import transformers

from tutelage.builders.renderer import renderer_for
from tutelage.config import RenderSettings
from tutelage.curate.scoring_model import ModelRequest, ReplyLosses, Unread, Vector
from tutelage.errors import ConfigError, FitError, TemplateError
from tutelage.evaluate.heldout import heldout_by_document
from tutelage.model.architecture import Architecture, architecture_of
from tutelage.model.checksums import model_sha256
from tutelage.model.configuration import CONFIG_FILE, causal_configuration
from tutelage.model.load import load
from tutelage.model.locate import model_folder
from tutelage.model.loss import hidden_states, row_loss
from tutelage.model.out_of_memory import release_memory
from tutelage.model.positions import stated_positions
from tutelage.model.precision import cast_model, device_here, resolve_precision
from tutelage.pack.packing import pack_rows
from tutelage.render import Renderer
from tutelage.render.rendered_row import RenderedRow
from tutelage.render.required_text import Unproven
from tutelage.render.row_size import too_deep
from tutelage.system.files import cache_folder
from tutelage.system.seals import file_sha256
from tutelage.system.source_code import source_code_sha256
from tutelage.types import Address, Conversation, Drop, Example, PackedSequence, TokenIds, Turn

ROW_TOKENS = 2048
"""Tokens that are computed together, unless one row has more."""
DECIDING_PACKAGES = (
    "tutelage.render",
    "tutelage.render.chat_template",
    "tutelage.model",
    "tutelage.model.attention",
    "tutelage.pack",
)
"""Whose code decides the numbers, with this file."""
WITH_PROMPT, ALONE, WHOLE = "with its prompt", "alone", "whole"
Said = TypeVar("Said")
_Losses = dict[Address, tuple[float, int]]


def open_scoring_model(request: ModelRequest) -> LocalModel:
    """Find a model, its tokenizer and its template; weights are loaded when it is first asked.

    Raises:
        TutelageError: of the kind that fits: it is not installed or not there, is no causal language model, has no chat
            template, or torch is missing.
    """
    folder = model_folder(request.name, log=lambda _text: None)
    config = causal_configuration(folder / CONFIG_FILE, trust_remote_code=request.trust_remote_code)
    try:
        renderer = renderer_for(folder, RenderSettings(template=request.template))
    except TemplateError as error:
        raise TemplateError(
            error.what, where=error.where, found=error.found, expected=error.expected,
            fix=f"name the template that rows are to be written in: {request.setting}.template=chatml, or a file",
        ) from error  # fmt: skip
    most_tokens = min(request.max_tokens, stated_positions(config) or request.max_tokens)
    return LocalModel(request, folder, replace(renderer, most_tokens=most_tokens, too_long="drop"))


@dataclass
class LocalModel:
    """A model in a folder.

    Attributes:
        request: what is asked for.
        folder: of its files.
        renderer: writes rows; `most_tokens` is the longest that is read.
    """

    request: ModelRequest
    folder: Path
    renderer: Renderer
    _has_answered: bool = field(default=False, init=False)

    @property
    def name(self) -> str:
        """As the user named it."""
        return self.request.name

    @cached_property
    def facts(self) -> dict[str, Any]:
        """All that its answers depend on beside the rows."""
        tokenizer = self.renderer.tokenizer
        return {
            "weights": model_sha256(self.folder, cache=cache_folder() / "sha256", log=lambda _text: None),
            "tokenizer": tokenizer.sha256(),
            "stop_ids": sorted(tokenizer.stop_ids),
            "template": [self.renderer.template.source, self.renderer.template.tools_source],
            "max_tokens": self.renderer.most_tokens,
            "device": device_here(),
            "precision": resolve_precision(self.request.precision),
            "code": [source_code_sha256(DECIDING_PACKAGES), file_sha256(Path(__file__))],
            "libraries": [torch.__version__, transformers.__version__],
        }

    def losses(self, conversations: Sequence[Conversation]) -> list[ReplyLosses | Unread]:
        """How well the model foresees the replies of each row, with their prompts and without."""
        return self._isolated(self._losses, conversations)

    def vectors(self, conversations: Sequence[Conversation]) -> list[Vector | Unread]:
        """The position-weighted mean of the last hidden states of each row's first tokens."""
        return self._isolated(self._vectors, conversations)

    @cached_property
    def _loaded(self) -> tuple[Any, Architecture]:
        model, _ = load(self.folder, trust_remote_code=self.request.trust_remote_code)
        cast_model(model, resolve_precision(self.request.precision))
        model.eval()
        return model, architecture_of(model)

    def _isolated(
        self, answer: Callable[[Sequence[Conversation]], list[Said | Unread]], conversations: Sequence[Conversation]
    ) -> list[Said | Unread]:
        """Answers for all rows together; where that fails, each by itself, so that one row breaks for itself alone.

        A model that breaks on every row before it has answered for one is at fault itself, and its error is raised.
        """
        try:
            answers = answer(conversations)
        except (MemoryError, RuntimeError, ValueError, LookupError, ArithmeticError, TypeError) as error:
            if isinstance(error, MemoryError) and not isinstance(error, FitError):
                raise
            if len(conversations) == 1 and self._has_answered:
                return [Unread("failed", f"{type(error).__name__}: {error}"[:400], failed=True)]
            first = error
        else:
            self._has_answered = True
            return answers
        release_memory()  # behind the handler, whose error holds on to what was computed
        alone: list[Said | Unread] = []
        for conversation in conversations:
            try:
                alone += answer([conversation])
                self._has_answered = True
            except (FitError, RuntimeError, ValueError, LookupError, ArithmeticError, TypeError) as error:
                alone.append(Unread("failed", f"{type(error).__name__}: {error}"[:400], failed=True))
        if not self._has_answered:
            raise first
        return alone

    def _losses(self, conversations: Sequence[Conversation]) -> list[ReplyLosses | Unread]:
        outcomes = self.renderer.prove(conversations)
        unread: dict[int, Unread] = {}
        documents: list[Example] = []
        for row, (conversation, outcome) in enumerate(zip(conversations, outcomes, strict=True)):
            if isinstance(outcome, Drop):
                unread[row] = Unread(outcome.reason, outcome.detail)
            elif conversation.is_text:
                unread[row] = Unread("no_prompt", "a document has no prompt and no reply")
            elif longest := self._too_long(outcome.examples):
                unread[row] = Unread("too_long", f"{longest} tokens; at most {self.renderer.most_tokens} are read")
            else:
                documents += self._documents(row, outcome.examples)
        sums = self._sums(documents)
        return [unread[row] if row in unread else _reply_losses(row, sums) for row in range(len(conversations))]

    def _vectors(self, conversations: Sequence[Conversation]) -> list[Vector | Unread]:
        found: dict[int, Vector | Unread] = {}
        documents: list[Example] = []
        for row, conversation in enumerate(conversations):
            try:
                ids = np.array(self._written(conversation)[: self.renderer.most_tokens], dtype=np.int32)
            except Unproven as finding:
                found[row] = Unread(finding.reason, str(finding))
                continue
            if len(ids):
                documents.append(Example(Address(WHOLE, row), 0, ids, np.zeros(len(ids), dtype=np.float32), ()))
            else:
                found[row] = Unread("empty", "no token is left of it")
        if documents:
            model, architecture = self._loaded
            if architecture.head == "whole":
                raise ConfigError(
                    "This kind of model shows no hidden states", where=f"{self.request.setting}.model",
                    found=self.name, expected="a decoder with an output head", fix="name another model",
                )  # fmt: skip
            for packed in self._packed(documents, architecture, share_prefixes=False):
                found |= dict(_weighted_means(model, packed, architecture))
        return [found[row] for row in range(len(conversations))]

    def _written(self, conversation: Conversation) -> list[int]:
        """The whole row as the template writes it, or a document as it stands."""
        if conversation.is_text:
            return self.renderer.tokenizer.encode_document(conversation.messages[0].content or "")
        if (finding := too_deep(conversation)) is not None:
            raise Unproven(finding.reason, finding.detail)
        row = RenderedRow(conversation, self.renderer.template, self.renderer.form)
        return self.renderer.tokenizer.encode([row.render(len(conversation.messages), generation_prompt=False)])[0]

    def _too_long(self, examples: Sequence[Example]) -> int:
        """The tokens of the longest, or 0 where all can be read."""
        assert self.renderer.most_tokens is not None
        longest = max(len(example.ids) for example in examples)
        return longest if longest > self.renderer.most_tokens else 0

    def _documents(self, row: int, examples: Sequence[Example]) -> Iterator[Example]:
        """The sequences of a row as they are trained, every reply counting alike, and each of its replies alone."""
        for example in examples:
            weights = (example.weights != 0).astype(np.float32)
            yield Example(Address(WITH_PROMPT, row), example.part, example.ids, weights, ())
            for turn in example.turns:
                yield _alone(row, self._opening(example, turn), example.ids[turn.prompt_end : turn.reply_end])

    def _opening(self, example: Example, turn: Turn) -> TokenIds:
        """What stands before a reply that stands alone: the token that texts begin with, and the turn's opening."""
        prompt, opening = example.ids[: turn.prompt_end].tolist(), self._turn_opening
        if prompt[len(prompt) - len(opening) :] != opening:  # the row's own arguments of the template open it otherwise
            opening = []
        if prompt[0] == self._start_id and opening[:1] != prompt[:1]:  # some models begin each turn with that token
            opening = [prompt[0], *opening]
        return np.array(opening or [self.renderer.tokenizer.stop_id], dtype=np.int32)

    @cached_property
    def _start_id(self) -> int | None:
        tokenizer = self.renderer.tokenizer
        start_id: int | None = tokenizer.fast.token_to_id(tokenizer.named_tokens.get("bos_token", ""))
        return start_id

    @cached_property
    def _turn_opening(self) -> list[int]:
        """Ids of what the template writes where an assistant's turn is to begin."""
        asked = [{"role": "user", "content": "a"}]
        before, after = (self.renderer.template.render(asked, generation_prompt=on) for on in (False, True))
        return self.renderer.tokenizer.encode([after[len(before) :]])[0] if after.startswith(before) else []

    def _sums(self, documents: Sequence[Example]) -> _Losses:
        """Summed loss and tokens by the address of the documents."""
        if not documents:
            return {}
        model, architecture = self._loaded

        def loss(model: Any, row: PackedSequence, **kept: Any) -> tuple[torch.Tensor, int]:
            return row_loss(model, row, architecture=architecture, **kept)

        return dict(heldout_by_document(model, self._packed(documents, architecture), row_loss=loss).documents)

    def _packed(
        self, documents: Sequence[Example], architecture: Architecture, *, share_prefixes: bool = True
    ) -> tuple[PackedSequence, ...]:
        return pack_rows(
            documents,
            row_tokens=max(ROW_TOKENS, *(len(document.ids) for document in documents)),
            share_prefixes=share_prefixes and architecture.shares_prefixes and device_here() == "cpu",
            documents_isolated=architecture.documents_isolated,
        )


@torch.no_grad()
def _weighted_means(model: Any, row: PackedSequence, architecture: Architecture) -> Iterator[tuple[int, Vector]]:
    """Of each document its number and the mean of its states [S, D], in which the t-th counts t times."""
    states_RD = hidden_states(model, row, architecture=architecture)[0][0].float()
    start = 0
    for address, tokens in zip(row.addresses, row.document_tokens, strict=True):
        weights_S = torch.arange(1, tokens + 1, dtype=torch.float32, device=states_RD.device)
        mean_D = (weights_S / weights_S.sum()) @ states_RD[start : start + tokens]
        yield address.number, mean_D.cpu().numpy()
        start += tokens


def _alone(row: int, opening: TokenIds, reply: TokenIds) -> Example:
    ids = np.concatenate([opening, reply])
    weights = np.zeros(len(ids), dtype=np.float32)
    weights[len(opening) :] = 1
    return Example(Address(ALONE, row), 0, ids, weights, ())


def _reply_losses(row: int, sums: _Losses) -> ReplyLosses | Unread:
    (nats, tokens), (nats_alone, tokens_alone) = sums[Address(WITH_PROMPT, row)], sums[Address(ALONE, row)]
    assert tokens == tokens_alone, "the same tokens are scored"
    if not np.isfinite(nats + nats_alone):
        return Unread("not_finite", "the model's loss is no finite number", failed=True)
    return ReplyLosses(nats / tokens, nats_alone / tokens, tokens)

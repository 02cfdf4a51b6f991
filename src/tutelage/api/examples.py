"""Renderer, examples and batches, for those who write their own loop. Imports without torch."""

from __future__ import annotations

import html
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, overload

from tutelage import render, types
from tutelage.api.data import NO_DATA, Data, data_keywords
from tutelage.api.messages import Prompts, conversations_of
from tutelage.builders.base_model import start_folder, with_adapters_own
from tutelage.builders.dataset import prepared_cache, prepared_examples
from tutelage.builders.renderer import renderer_for
from tutelage.builders.row_limit import held_to_positions
from tutelage.config.keywords import from_keywords
from tutelage.errors import ConfigError
from tutelage.ledger import Ledger
from tutelage.pack import ExampleStore, Sampler
from tutelage.render.token_text import MARKERS, colored, colored_rows
from tutelage.report.console.terminal import Terminal
from tutelage.types import TokenIds


class Renderer:
    """A model's tokenizer and chat template, with the policies of `[render]`.

    >>> renderer = Renderer(model)
    >>> renderer.decode(renderer.prompt("Hello")).splitlines()[-1]
    '<|im_start|>assistant'

    Args:
        model: a short name, folder or hub id.
        settings: of `[render]`, by keyword: `template="chatml"`, `train_on="all"`, `turns="last"`.

    Raises:
        ConfigError: a wrong setting, or one that is not of `[render]`.
        TemplateError: there is no template.
    """

    def __init__(self, model: str | os.PathLike[str], **settings: Any) -> None:
        keywords = {"model.name": os.fspath(model)} | NO_DATA | settings
        renderer_settings = from_keywords(keywords, where="tutelage.Renderer(...)")
        self.model: str = renderer_settings.model.name
        self._settings = renderer_settings
        folder = start_folder(renderer_settings.model, weights=False, log=Terminal(stderr=True).write_line)
        self._renderer: render.Renderer = renderer_for(folder, renderer_settings.render)

    def prompt(self, prompt: Prompts) -> TokenIds:
        """The ids that a server would feed the model: int32 [S].

        >>> len(Renderer(model).prompt([{"role": "user", "content": "Hello"}])) > 3
        True

        Args:
            prompt: a text, or messages.

        Raises:
            DataError: it is none of these.
            TemplateRefusal: the template does not accept them.
        """
        conversations, _ = conversations_of(prompt, system=None)
        return self._renderer.serve(conversations[0])

    def decode(self, ids: Sequence[int] | TokenIds) -> str:
        """The text of ids, special tokens included.

        >>> renderer = Renderer(model)
        >>> "Hello" in renderer.decode(renderer.prompt("Hello"))
        True

        Args:
            ids: of this tokenizer.
        """
        return self._renderer.tokenizer.decode([int(token_id) for token_id in ids])


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class Example(types.Example):
    """One proven token sequence: `ids`, `weights` (0 is context only), `turns`, and the `address` of its row.

    >>> example = load_data(rows, model)[0]
    >>> example.trained_tokens <= len(example.ids)
    True
    """

    tokenizer: render.Tokenizer = field(kw_only=True)

    def show(self) -> None:
        """Print the sequence: trained tokens in color, context dim, stop tokens marked.

        >>> load_data(rows, model)[0].show()  # doctest: +ELLIPSIS
        <data>[0]: ... tokens, ... trained
        ...
        """
        screen = Terminal()
        screen.write_line(f"{self.address}: {len(self.ids)} tokens, {self.trained_tokens} trained")
        screen.print(colored(self, self.tokenizer, markers=None if screen.is_terminal else MARKERS))

    def __repr__(self) -> str:
        return f"<Example {self.address}, {len(self.ids)} tokens, {self.trained_tokens} trained>"

    def _repr_html_(self) -> str:
        """The same for a notebook."""
        (row,) = colored_rows([self], self.tokenizer)
        pieces = []
        for token in row["tokens"]:
            style = "background:#fd8" if token["stop"] else "background:#cec" if token["weight"] else "color:#888"
            pieces.append(f'<span style="{style}">{html.escape(token["text"])}</span>')
        return f'<pre style="white-space:pre-wrap">{html.escape(str(self.address))}\n{"".join(pieces)}</pre>'


class Examples(Sequence[types.Example]):
    """The proven examples of some data, read from files as they are asked for; `load_data` makes them.

    Attributes:
        ledger: rows in, kept and dropped, and why.
    """

    def __init__(self, store: ExampleStore, renderer: Renderer, ledger: Ledger) -> None:
        self._store, self._renderer = store, renderer
        self.ledger = ledger

    def __len__(self) -> int:
        return len(self._store)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Examples: ...
    def __getitem__(self, index: int | slice) -> Example | Examples:
        if isinstance(index, slice):
            return Examples(self._store[index], self._renderer, self.ledger)
        plain = self._store[index]
        values = {member.name: getattr(plain, member.name) for member in fields(types.Example)}
        return Example(**values, tokenizer=self._renderer._renderer.tokenizer)

    @property
    def trained_tokens(self) -> int:
        """Tokens with a non-zero weight, of all examples.

        >>> load_data(rows, model).trained_tokens > 0
        True
        """
        return self._store.totals().trained_tokens

    def batches(
        self, *, batch_size: int = 16, seed: int = 0, epochs: float = 1.0, max_steps: int | None = None
    ) -> Iterator[tuple[Example, ...]]:
        """The examples of each optimizer step, in the order in which a run of these settings visits them.

        >>> [len(batch) for batch in load_data(rows, model).batches(batch_size=16)]
        [16, 8]

        Args:
            batch_size: examples of a step; the last one of the last epoch may have fewer.
            seed: of the order; another one for each epoch is made from it.
            epochs: passes over the data.
            max_steps: an earlier end.
        """
        order = Sampler(len(self), batch_size, epochs, seed, max_steps)
        for _, _, chosen in order.indices():
            yield tuple(self[int(index)] for index in chosen)

    def __repr__(self) -> str:
        ledger = self.ledger
        return (
            f"<Examples: {len(self)}, of {ledger.rows_in} rows {ledger.rows_kept} kept, {ledger.rows_dropped} dropped>"
        )


def load_data(data: Data, renderer: Renderer | str | os.PathLike[str], **settings: Any) -> Examples:
    """Read rows, prove which of their tokens are trained and on which context, and account for those that are not.

    >>> examples = load_data(rows, Renderer(model), max_seq_length=256)
    >>> examples.ledger.rows_dropped
    0

    Args:
        data: as for `train`.
        renderer: of the model that will train on them, or its name.
        settings: of `[data]` and `[pack]`, by keyword: `format="alpaca"`, `columns={"prompt": "question"}`,
            `max_seq_length=512`, `too_long="cut"`, `max_rows=100`, `strict=True`.

    Raises:
        ConfigError: a wrong setting.
        DataError: no row is left; or, with strict, one was dropped.
    """
    renderer = renderer if isinstance(renderer, Renderer) else Renderer(renderer)
    keywords: Mapping[str, Any] = {"model.name": renderer.model} | data_keywords(data=data) | settings
    data_settings = with_adapters_own(from_keywords(keywords, where="tutelage.load_data(...)"))
    if "render" in data_settings.model_fields_set:
        raise ConfigError(
            "The renderer has its own settings",
            where="tutelage.load_data(...)",
            found="a setting of [render]",
            fix="give it to tutelage.Renderer(...)",
        )
    inner = renderer._renderer
    data_settings, _ = held_to_positions(data_settings, inner.tokenizer.folder, log=Terminal(stderr=True).write_line)
    ledger = Ledger(strict=data_settings.data.strict)
    store = prepared_examples(data_settings, inner, ledger, cache=prepared_cache())
    return Examples(store, renderer, ledger)

"""BOS, EOS, further stops and the chat template of a GGUF file, as the model was trained."""

from __future__ import annotations

from dataclasses import dataclass

from gguf import GGUFWriter

from tutelage.errors import ConfigError
from tutelage.render.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Ids that llama.cpp treats specially.

    Attributes:
        bos: stands before a text; None where there is none.
        stops: end a generation, the tokenizer's own EOS first.
        unknown: where the tokenizer names one.
        padding: where the tokenizer names one.
        add_bos: whether llama.cpp puts `bos` before what it is given.
        add_eos: whether it puts the EOS after.
    """

    bos: int | None
    stops: tuple[int, ...]
    unknown: int | None
    padding: int | None
    add_bos: bool
    add_eos: bool

    def write(self, writer: GGUFWriter) -> None:
        """Write them.

        Raises:
            ConfigError: more tokens end a reply than a file can name.
        """
        handlers = (writer.add_eos_token_id, writer.add_eot_token_id, writer.add_eom_token_id)
        if len(self.stops) > len(handlers):
            raise ConfigError(
                "More tokens end a reply than a GGUF file can name",
                found=f"{len(self.stops)} stops: {', '.join(map(str, self.stops))}",
                expected=f"at most {len(handlers)}",
                fix="train with fewer stop tokens",
            )
        for add, stop in zip(handlers, self.stops, strict=False):
            add(stop)
        for add, token in (
            (writer.add_bos_token_id, self.bos),
            (writer.add_unk_token_id, self.unknown),
            (writer.add_pad_token_id, self.padding),
        ):
            if token is not None:
                add(token)
        writer.add_add_bos_token(self.add_bos)
        writer.add_add_eos_token(self.add_eos)


def special_tokens_of(tokenizer: Tokenizer, served_prompt: list[int] | None) -> SpecialTokens:
    """Read and try them.

    What was trained decides whether BOS is put first: served prompts of the chat template where there is one, and the
    tokenizer's own habit elsewhere. llama.cpp takes away a BOS that the template writes where it puts one itself.

    Args:
        tokenizer: of the folder.
        served_prompt: ids of any conversation as the template writes it; None without a template.
    """
    bos = _id(tokenizer, "bos_token")
    document = tokenizer.encode_document("a")
    shown = document if served_prompt is None else served_prompt
    first = tokenizer.stop_id
    return SpecialTokens(
        bos=bos,
        stops=(first, *sorted(tokenizer.stop_ids - {first})),
        unknown=_id(tokenizer, "unk_token"),
        padding=_id(tokenizer, "pad_token"),
        add_bos=bos is not None and bool(shown) and shown[0] == bos,
        add_eos=len(document) > 1 and document[-1] == first,
    )


def _id(tokenizer: Tokenizer, name: str) -> int | None:
    text = tokenizer.named_tokens.get(name)
    index = None if text is None else tokenizer.fast.token_to_id(text)
    return None if index is None else int(index)

"""Settings -> the general texts of a run. Imports without torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tutelage import formats
from tutelage.errors import DataError
from tutelage.evaluate.general_text import GeneralText, general_text
from tutelage.formats.sniff import sniff
from tutelage.formats.sources import SourceFile
from tutelage.ledger import Ledger
from tutelage.render import Tokenizer
from tutelage.types import Address


def read_general_texts(
    files: Sequence[SourceFile], tokenizer: Tokenizer, *, most_tokens: int
) -> tuple[GeneralText, ...]:
    """The texts of files: a file of plain text is one, whole, and so is the `text` of each row of any other.

    Args:
        files: where they stand.
        tokenizer: the model's.
        most_tokens: where each is cut.

    Raises:
        DataError: a row without a text, or a text that is too short, or no UTF-8.
    """
    return tuple(
        general_text(tokenizer, text, address, most_tokens=most_tokens)
        for file in files
        for address, text in _texts(file)
    )


def _texts(file: SourceFile) -> Iterator[tuple[Address, str]]:
    if file.unit == "line" and sniff(file.path, file.display_name).kind == "text":
        yield Address(file.display_name, 1), _whole(file)
        return
    ledger = Ledger()
    for conversation in formats.read([], ledger=ledger, shape="text", files=[file]):
        yield conversation.address, conversation.messages[0].content or ""
    for drops in ledger.drop_samples.values():
        raise DataError(
            "A row of general text cannot be read",
            where=str(drops[0].address),
            found=f"{drops[0].reason}: {drops[0].detail}",
            expected="a row with a text",
            fix="mend this row, or leave the file out of evaluate.general_text",
        )


def _whole(file: SourceFile) -> str:
    try:
        return file.path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            "A general text is not UTF-8",
            where=file.display_name,
            found=f"byte {error.start} cannot be read",
            expected="text in UTF-8",
            fix="save it as UTF-8, or leave it out of evaluate.general_text",
        ) from error

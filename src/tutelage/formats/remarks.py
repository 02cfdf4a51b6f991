"""What is said once of a file: keys below its columns that nothing reads, and nulls that were passed over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, Literal

TreePaths = Literal["kept", "all"]

NO_SCHEMAS: Final[Mapping[str, Any]] = MappingProxyType({})
KEYS_NAMED: Final = 20
TOOL_BYTES_KEPT: Final = 1 << 21
"""Of lists of tools, as they were written: those are read once for all rows of a file that offer them."""

_KEY_CHARACTERS: Final = 60


@dataclass(frozen=True, slots=True)
class ToolList:
    """The tools of a row, and for each by name the JSON Schema of its parameters, None where it states none."""

    tools: tuple[Mapping[str, Any], ...]
    schemas: Mapping[str, Any]


class FileRemarks:
    """Notes about one file, each given once, as soon as a row gives cause for it.

    Args:
        display_name: the file's name as addresses show it.
        note: takes each sentence.

    Attributes:
        tools: lists of tools that its rows offer, as they were written -> as they were read.
        tool_bytes_left: how much more of them may be kept.
        tools_unshared: how many more were read than had been read before.
    """

    def __init__(self, display_name: str, note: Callable[[str], None]) -> None:
        self.display_name, self._note = display_name, note
        self._sentences: set[str] = set()
        self._keys = 0
        self.tools: dict[tuple[bool, str | int], tuple[Any, ToolList]] = {}
        self.tool_bytes_left = TOOL_BYTES_KEPT
        self.tools_unshared = 0

    def note(self, sentence: str) -> None:
        """Note this of the file, unless it was."""
        if sentence not in self._sentences:
            self._sentences.add(sentence)
            self._note(f"{self.display_name}: {sentence}")

    def unread(self, container: str, keys: Iterable[object]) -> None:
        """Name keys of `container` (a turn, a call) that nothing reads, the first 20 of the file."""
        for key in sorted(map(str, keys)):
            sentence = f"`{key[:_KEY_CHARACTERS]}` of a {container} is not used"
            if sentence in self._sentences:
                continue
            self._keys += 1
            if self._keys > KEYS_NAMED:
                self.note("more keys below the columns are not used")
                return
            self.note(sentence)

    def nulls(self, container: str) -> None:
        """Say that nulls in `container` are read as keys that are not there."""
        self.note(f"nulls inside {container} are read as absent; Arrow and Parquet write both alike")


@dataclass(slots=True)
class RowContext:
    """What the readers of a row's turns know besides the turns; one serves all rows of a file in turn.

    Attributes:
        remarks: takes what is worth saying once of the file.
        filled: the file cannot tell a null inside a nested column from a key that is not there.
        text: the JSON that the row was decoded from, where it was, and its numbers are finite.
        schemas: for each tool that the row offers, the JSON Schema of its parameters.
        mask_hides: whether the row's turns show that `mask` hides a turn from the loss; None while nobody has asked.
        has_side_columns: whether the row has a column that may stand beside a conversation, such as a system text.
        wrapped_results: whether a tool's turn spells the marks around its result.
        tree_paths: which paths of a tree of messages are read: the one that was kept, or all.
    """

    remarks: FileRemarks
    filled: bool = False
    text: str | bytes | None = None
    schemas: Mapping[str, Any] = field(default_factory=dict)
    mask_hides: bool | None = None
    wrapped_results: bool = False
    has_side_columns: bool = True
    tree_paths: TreePaths = "kept"

    def begin(self, *, filled: bool, text: str | bytes | None, has_side_columns: bool = True) -> None:
        """Forget the row before."""
        self.filled, self.text, self.schemas, self.wrapped_results = filled, text, NO_SCHEMAS, False
        self.has_side_columns = has_side_columns

"""Finds out what a file holds by looking inside; its name is only a hint."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.errors import DataError
from tutelage.formats.bytestream import GZIP_MAGIC, ByteStream
from tutelage.formats.names import COMPRESSIONS, ENDINGS, KIND_TITLES, MAGIC, MAGIC_FIXES, FileKind
from tutelage.formats.zstdstream import ZSTD_MAGIC

HEAD_BYTES = 1 << 16
ARROW_MAGIC = b"ARROW1"
ARROW_STREAM_START = b"\xff\xff\xff\xff"
"""What a stream of Arrow's messages, without a file's frame, begins with."""

TAR_PLACE, TAR_MAGIC = 257, b"ustar"
READABLE = "JSON, JSON lines, CSV, TSV, Parquet, Arrow or text in UTF-8, plain or compressed by gzip or zstd"
_TEXT_CONTROLS = frozenset(b"\t\n\r\x0b\x0c\x1b\x1c\x1d\x1e\x1f\x08\x07")
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")


@dataclass(frozen=True, slots=True)
class Sniffed:
    """What a file holds, and a remark where its name says otherwise."""

    kind: FileKind
    note: str | None = None


def ending(path: Path) -> str:
    """The ending that names the content: `.jsonl` for x.jsonl, x.jsonl.gz and x.jsonl.zst."""
    name = path.name.lower()
    for compression in COMPRESSIONS:
        name = name.removesuffix(compression)
    return Path(name).suffix


def sniff(path: Path, display_name: str) -> Sniffed:
    """Look at the start of a file.

    Raises:
        DataError: empty, unreadable, a Git LFS pointer, UTF-16, binary, a damaged gzip file, or an unknown ending with
            content that is no JSON.
    """
    stream = ByteStream(path, display_name)
    start = stream.read_compressed(256)
    if not start:
        raise DataError(
            "The file is empty", where=display_name, found="0 bytes", fix="check how it was written or copied"
        )
    expected = ENDINGS.get(ending(path))
    if start.startswith(b"PAR1"):
        return _sniffed(display_name, "parquet", expected)
    if start.startswith(ARROW_MAGIC) or (expected == "arrow" and start.startswith(ARROW_STREAM_START)):
        return _sniffed(display_name, "arrow", expected)
    if start.startswith(b"version https://git-lfs"):
        raise DataError(
            "The file is a Git LFS pointer, not the data",
            where=display_name,
            found=start[:40].decode("ascii", "replace"),
            expected="the data itself",
            fix="run `git lfs pull` in its repository",
        )
    head = stream.read_first(HEAD_BYTES)
    _refuse_binary(start, head, display_name)
    if not head.strip():
        damage = f"a damaged gzip stream ({stream.damage})" if stream.damage else "nothing but white space"
        raise DataError(
            "The file holds no rows", where=display_name, found=damage, fix="check how it was written or copied"
        )
    return _sniffed(display_name, _text_kind(head, stream, expected), expected)


def _sniffed(display_name: str, kind: FileKind, expected: FileKind | None) -> Sniffed:
    if expected in {None, kind}:
        return Sniffed(kind)
    return Sniffed(kind, f"{display_name} holds {KIND_TITLES[kind]}; read as such")


def _refuse_binary(start: bytes, head: bytes, display_name: str) -> None:
    for data in (start, head):
        if data.startswith(_UTF16_BOMS):
            raise DataError(
                "The file is UTF-16 or UTF-32, not UTF-8",
                where=display_name,
                found=f"byte-order mark {data[:2].hex(' ')}",
                expected="UTF-8",
                fix="convert it: iconv -f UTF-16 -t UTF-8 OLD > NEW",
            )
        for magic, title in MAGIC.items():
            if data.startswith(magic):
                raise DataError(
                    f"The file is {title}",
                    where=display_name,
                    found=f"first bytes {data[:6].hex(' ')}",
                    expected=READABLE,
                    fix=MAGIC_FIXES.get(title, "unpack or convert it first"),
                )
    if head[TAR_PLACE : TAR_PLACE + len(TAR_MAGIC)] == TAR_MAGIC:
        raise DataError(
            "The file is a tar archive",
            where=display_name,
            found=f"`ustar` at byte {TAR_PLACE}",
            expected=READABLE,
            fix="unpack it, and name the folder: tar -xf FILE -C FOLDER",
        )
    if head.startswith((GZIP_MAGIC, ZSTD_MAGIC, b"PAR1")) or _looks_binary(head[:4096]):
        raise DataError(
            "The file is binary",
            where=display_name,
            found=f"first bytes {head[:8].hex(' ')}",
            expected=READABLE,
            fix="check that this is the data file, or convert it to JSON lines",
        )


def _looks_binary(sample: bytes) -> bool:
    """One odd byte may be content; a tenth of them is no text. Bytes that are no UTF-8 count only beside controls."""
    controls = sum(byte < 32 and byte not in _TEXT_CONTROLS for byte in sample)
    if not controls:
        return False
    undecodable = sum("\udc80" <= character <= "\udcff" for character in sample.decode("utf-8", "surrogateescape"))
    return (controls + undecodable) * 10 > len(sample)


def _text_kind(head: bytes, stream: ByteStream, expected: FileKind | None) -> FileKind:
    stripped = head.lstrip()
    opening = stripped[:1]
    first_line, _, remaining_lines = stripped.partition(b"\n")
    if expected in {"csv", "tsv", "text"}:
        return _table_or_json(first_line, remaining_lines, expected)
    if opening == b"{":
        return _object_kind(stripped, stream, expected)
    if opening == b"[":
        arrays_in_lines = first_line.rstrip().endswith(b"]") and remaining_lines.lstrip()[:1] == b"["
        return "json_lines" if arrays_in_lines and expected == "json_lines" else "json_document"
    if expected is None or expected == "parquet":
        raise DataError(
            "Cannot tell what the file holds",
            where=stream.display_name,
            found=f"the ending '{stream.path.suffix}' and content that starts {stripped[:20]!r}",
            expected="JSON, or one of the endings " + " ".join(ENDINGS),
            fix="rename it with the ending of what it holds",
        )
    return "json_lines"


def _table_or_json(first_line: bytes, remaining_lines: bytes, expected: FileKind | None) -> FileKind:
    if isinstance(_parsed(first_line), dict):
        return "json_lines"
    if first_line.strip() == b"[" and remaining_lines.lstrip()[:1] == b"{":
        return "json_document"
    if expected == "csv" and b"\t" in first_line and b"," not in first_line:
        return "tsv"
    if expected == "tsv" and b"," in first_line and b"\t" not in first_line:
        return "csv"
    assert expected is not None
    return expected


def _object_kind(stripped: bytes, stream: ByteStream, expected: FileKind | None) -> FileKind:
    first_line, newline, remaining_lines = stripped.partition(b"\n")
    if first_line.strip() == b"{":
        return "json_document"
    if not newline or not remaining_lines.strip():
        # The line may go on past the head: only the whole file tells a long first row from one long document.
        lines = (line for line in stream.lines() if line.strip())
        first_line = next(lines, b"")  # a stream that breaks off inside its first line gives none
        if next(lines, None) is None:
            return "json_lines" if expected == "json_lines" else "json_document"
    if expected == "json_lines" or _parsed(first_line) is not None:
        return "json_lines"
    starts_of_rows = [line for line in remaining_lines.split(b"\n") if line.startswith(b"{")]
    return "json_lines" if any(isinstance(_parsed(line), dict) for line in starts_of_rows) else "json_document"


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None

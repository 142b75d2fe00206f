"""The records of a CSV file in blocks, each proved to be whole: no quote can swallow rows without a word.

A block ends where a record ends, so that it can be parsed by itself, and the number of its records is known
before it is parsed. A quote opens a field only at its beginning; inside, two quotes are one; behind the
closing quote the field ends. Elsewhere a quote is a character like any other (`12" vinyl`).
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from features.errors import DataError

BLOCK = 2**24  # bytes read at a time
_LONGEST = 2**26  # bytes of one record
_PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_FOREIGN = {
    b"PK\x03\x04": "a zip archive; unpack it",
    b"PAR1": "Parquet; set format: parquet",
    b"BZh": "packed by bzip2; unpack it, or pack it by gzip or zstd",
    b"\xfd7zXZ": "packed by xz; unpack it, or pack it by gzip or zstd",
}
_MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@dataclass(frozen=True)
class Dialect:
    """How a text file is written.

    Attributes:
        separator: one character.
        quote: one character, or None where a quote means nothing.
        encoding: a name that Python knows.
        sure: the quote was declared: a field may hold lines that look like records.
    """

    separator: str = ","
    quote: str | None = '"'
    encoding: str = "utf-8"
    sure: bool = False


@dataclass(frozen=True)
class Block:
    """Whole records.

    Attributes:
        data: their bytes, UTF-8.
        ends: int64 (records,) position behind each record's last byte, its line end included.
        lines: int64 (records,) the line where each begins, from 1.
        quoted: whether any field is quoted.
    """

    data: bytes
    ends: np.ndarray
    lines: np.ndarray
    quoted: bool

    def record(self, index: int) -> str:
        """The text of one record."""
        begin = int(self.ends[index - 1]) if index else 0
        return self.data[begin : int(self.ends[index])].decode("utf-8", "replace").strip("\r\n")


def read_blocks(
    file: Path, dialect: Dialect, *, size: int = BLOCK, check_size: Callable[[int], None] | None = None
) -> Iterator[Block]:
    """The records of a file, in blocks of about `size` bytes; blank lines are none.

    Args:
        file: plain, or packed by gzip or zstd.
        dialect: how it is written.
        size: bytes read at a time.
        check_size: told how many bytes were unpacked so far; may refuse.

    Raises:
        DataError: quotes that do not close, bytes of another encoding, files of another kind; names the line.
    """
    rest, line, first, unpacked = b"", 1, True, 0
    with file.open("rb") as raw:
        for data, last in _pieces(raw, file, dialect.encoding, size):
            unpacked += len(data)
            if check_size is not None:
                check_size(unpacked)
            data = rest + (data.removeprefix(codecs.BOM_UTF8) if first else data)
            first = False
            block, cut, line = _whole_records(data, line, dialect, file, last=last)
            rest = data[cut:]
            if len(rest) > max(_LONGEST, 4 * size):
                raise DataError(
                    f"{file}: a record must end within {_LONGEST:,} bytes, the one that begins in line "
                    f"{line} does not; {_quote_remedy(dialect)}"
                )
            if len(block.ends):
                yield block


def _pieces(raw: BinaryIO, file: Path, encoding: str, size: int) -> Iterator[tuple[bytes, bool]]:
    """Pieces of the text as UTF-8, and whether each is the last."""
    head = raw.read(8)
    raw.seek(0)
    for mark, kind in _FOREIGN.items():
        if head.startswith(mark):
            raise DataError(f"{file} must be CSV, but is {kind}")
    for mark, name in _MARKS.items():
        if head.startswith(mark) and not encoding.lower().replace("_", "-").startswith("utf-16"):
            raise DataError(f"{file} begins as a text in {name}; set encoding: {name} in the table")
    packed = next((name for magic, name in _PACKED.items() if head.startswith(magic)), None)
    stream = raw if packed is None else pa.CompressedInputStream(pa.PythonFile(raw), packed)
    plain = codecs.lookup(encoding).name in ("utf-8", "ascii")
    decoder = codecs.getincrementaldecoder(encoding)()
    while True:
        try:
            data = stream.read(size)
            last = not data
            text = data if plain else decoder.decode(data, final=last).encode()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{file} is no {encoding}: {error.reason}; correct encoding in the table"
            ) from None
        except OSError as error:
            raise DataError(f"{file} cannot be read: {error}; write it again or delete it") from None
        yield text, last
        if last:
            return


def _whole_records(
    data: bytes, line: int, dialect: Dialect, file: Path, *, last: bool
) -> tuple[Block, int, int]:
    """The whole records of some bytes, where they end, and the line that follows them."""
    if last and data and not data.endswith((b"\n", b"\r")):
        data += b"\n"
    bytes_ = np.frombuffer(data, dtype=np.uint8)
    breaks = _line_breaks(bytes_, last=last)
    inside, quoted = np.zeros(len(breaks), dtype=bool), False
    if dialect.quote is not None and dialect.quote.encode() in data:
        opens, closes = quoted_fields(data, bytes_, dialect, line, breaks, file, last=last)
        quoted = len(opens) > 0
        if quoted:
            field_of = np.searchsorted(opens, breaks) - 1
            inside = (field_of >= 0) & (breaks < closes[np.maximum(field_of, 0)])
            _check_spans(data, breaks, inside, opens, line, dialect, file)
    numbers = line + 1 + np.arange(len(breaks))  # the line behind each break
    ends, after = breaks[~inside] + 1, numbers[~inside]
    begins = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
    first_lines = np.concatenate([[line], after[:-1]]) if len(ends) else after
    filled = _filled(bytes_, begins, ends)
    cut = int(ends[-1]) if len(ends) else 0
    block = Block(data[:cut], ends[filled], first_lines[filled], quoted)
    return block, cut, int(after[-1]) if len(ends) else line


def _line_breaks(data: np.ndarray, *, last: bool) -> np.ndarray:
    """Positions of the last byte of every line end: LF, CR LF, or CR alone."""
    feeds = data == 10
    returns = np.flatnonzero(data == 13)
    if len(returns):
        # A CR at the very end may be the first half of CR LF.
        alone = returns[returns + 1 < len(data)] if not last else returns
        follow = np.minimum(alone + 1, len(data) - 1)
        feeds[alone[(data[follow] != 10) | (follow == alone)]] = True
    return np.flatnonzero(feeds)


def _filled(data: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Which lines hold more than their own end."""
    length = ends - begins
    ends_in_crlf = (length == 2) & (data[begins] == 13) if len(begins) else length > 0
    return (length > 1) & ~ends_in_crlf


def quoted_fields(
    data: bytes,
    bytes_: np.ndarray,
    dialect: Dialect,
    line: int,
    breaks: np.ndarray,
    file: Path,
    *,
    last: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Where quoted fields open and close, the positions of their quotes.

    Raises:
        DataError: text behind a closing quote, or a quote that never closes; names the lines.
    """
    assert dialect.quote is not None
    at = np.flatnonzero(bytes_ == ord(dialect.quote))
    stops = np.array([ord(dialect.separator), 10, 13], dtype=np.uint8)
    begins = (at == 0) | np.isin(bytes_[np.maximum(at - 1, 0)], stops)
    beyond = at + 1 >= len(bytes_)
    ends = beyond | np.isin(bytes_[np.minimum(at + 1, len(bytes_) - 1)], stops)
    # The common case: quotes alternate between those that open and those that close; doubled ones touch.
    opening, closing = at[::2], at[1::2]
    again = opening[1:] == closing[: len(opening) - 1] + 1  # a doubled quote goes on with the field
    touch, goes_on = np.concatenate([[False], again]), np.append(again, False)[: len(closing)]
    if (begins[::2] | touch).all() and (ends[1::2] | goes_on).all() and not (last and len(at) % 2):
        closes = closing[~goes_on]
        return opening[~touch], np.append(closes, len(bytes_)) if len(at) % 2 else closes
    return _one_by_one(at, begins, ends, dialect, line, breaks, file, last=last, size=len(bytes_))


def _one_by_one(
    at: np.ndarray, begins: np.ndarray, ends: np.ndarray, dialect: Dialect, line: int,
    breaks: np.ndarray, file: Path, *, last: bool, size: int,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """The same where quotes also stand inside unquoted fields, or a field goes on in the next piece."""
    opens: list[int] = []
    closes: list[int] = []
    inside, skip = False, -1
    positions = at.tolist()
    for i, position in enumerate(positions):
        if position == skip:
            continue
        if not inside:
            if begins[i]:
                inside = True
                opens.append(position)
        elif i + 1 < len(positions) and positions[i + 1] == position + 1:
            skip = position + 1
        elif ends[i]:
            inside = False
            closes.append(position)
        else:
            begun, now = (line + int(np.searchsorted(breaks, p)) for p in (opens[-1], position))
            raise DataError(
                f"{file}: a quoted field must end at its closing quote, but the one that begins in line "
                f"{begun} goes on behind a quote in line {now}; {_quote_remedy(dialect)}"
            )
    if inside and last:
        begun = line + int(np.searchsorted(breaks, opens[-1]))
        raise DataError(f"{file}: the quote in line {begun} is never closed; {_quote_remedy(dialect)}")
    if inside:
        closes.append(size)
    return np.array(opens, dtype=np.int64), np.array(closes, dtype=np.int64)


def _check_spans(
    data: bytes,
    breaks: np.ndarray,
    inside: np.ndarray,
    opens: np.ndarray,
    line: int,
    dialect: Dialect,
    file: Path,
) -> None:
    """Refuse a quoted field of several lines each of which looks like a whole record."""
    if dialect.sure or not inside.any():
        return
    separator = dialect.separator.encode()
    starts = np.flatnonzero(inside & ~np.concatenate([[False], inside[:-1]]))
    fields = None
    for start in starts.tolist():
        stop = start + int(np.argmin(inside[start:])) if not inside[start:].all() else len(inside)
        if stop == len(inside):
            return  # it goes on in the next piece
        edges = [int(breaks[start - 1]) + 1 if start else 0, *(int(b) + 1 for b in breaks[start : stop + 1])]
        counts = {data[a:b].count(separator) for a, b in pairwise(edges)}
        if fields is None:
            fields = _most_common_count(data, breaks, inside, separator)
        if counts == {fields} and fields > 0:
            raise DataError(
                f"{file}: lines {line + start} to {line + stop} are one quoted field, but each of them looks "
                f"like a record of its own; {_quote_remedy(dialect)}; if they are one field, set quote: "
                f"'{dialect.quote}' in the table"
            )


def _most_common_count(data: bytes, breaks: np.ndarray, inside: np.ndarray, separator: bytes) -> int:
    """How many separators a plain line has."""
    counts: dict[int, int] = {}
    begin = 0
    plain = ~inside & ~np.concatenate([[False], inside[:-1]])
    for position, single in zip(breaks[:2000].tolist(), plain[:2000].tolist(), strict=True):
        if single:
            count = data[begin : position + 1].count(separator)
            counts[count] = counts.get(count, 0) + 1
        begin = position + 1
    return max(counts, key=lambda c: counts[c]) if counts else -1


def _quote_remedy(dialect: Dialect) -> str:
    return (
        "write a quote inside a quoted field twice, or, if quotes are characters like any other, set quote: "
        "none in the table"
    )

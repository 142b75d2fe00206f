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
    rest, unpacked, cutter = b"", 0, _Cutter(file, dialect)
    with file.open("rb") as raw:
        for text, last in _pieces(raw, file, dialect.encoding, size):
            unpacked += len(text)
            if check_size is not None:
                check_size(unpacked)
            block, rest = cutter.cut(rest + text, last=last)
            if len(rest) > max(_LONGEST, 4 * size):
                raise DataError(
                    f"{file}: a record must end within {_LONGEST:,} bytes, the one that begins in line "
                    f"{cutter.line} does not; {cutter.remedy}"
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
    begun = False
    while True:
        try:
            data = stream.read(size if begun else max(size, len(codecs.BOM_UTF8)))
            last = not data
            text = data if plain else decoder.decode(data, final=last).encode()
        except UnicodeError as error:
            raise DataError(f"{file} is no {encoding}: {error}; correct encoding in the table") from None
        except OSError as error:
            raise DataError(f"{file} cannot be read: {error}; write it again or delete it") from None
        text, begun = text if begun else text.removeprefix(codecs.BOM_UTF8), True
        yield text, last
        if last:
            return


class _Cutter:
    """Cuts bytes where records end, and knows the line that comes next."""

    def __init__(self, file: Path, dialect: Dialect) -> None:
        self._file, self._dialect = file, dialect
        self._separators: int | None = None  # of the first line, which is the header where there is one
        self.line = 1

    @property
    def remedy(self) -> str:
        """What to do about quotes."""
        return (
            "write a quote inside a quoted field twice, or, if quotes are characters like any other, set "
            "quote: none in the table"
        )

    def cut(self, data: bytes, *, last: bool) -> tuple[Block, bytes]:
        """The whole records of some bytes, and what follows them."""
        if last and data and not data.endswith((b"\n", b"\r")):
            data += b"\n"
        codes = np.frombuffer(data, dtype=np.uint8)
        breaks = _line_breaks(codes, last=last)
        inside, quoted = np.zeros(len(breaks), dtype=bool), False
        if self._separators is None and len(breaks):
            self._separators = data[: breaks[0]].count(self._dialect.separator.encode())
        if self._dialect.quote is not None and self._dialect.quote.encode() in data:
            opens, closes = self._quoted_fields(codes, breaks, last=last)
            quoted = len(opens) > 0
            inside = _between(breaks, opens, closes)
            self._refuse_swallowed(data, breaks, inside)
        ends = breaks[~inside] + 1
        after = (self.line + 1 + np.arange(len(breaks)))[~inside]  # the line behind each record
        begins = np.concatenate([[0], ends])[: len(ends)]
        lines = np.concatenate([[self.line], after])[: len(ends)]
        self.line = int(after[-1]) if len(after) else self.line
        stop = int(ends[-1]) if len(ends) else 0
        filled = _filled(codes, begins, ends)
        return Block(data[:stop], ends[filled], lines[filled], quoted), data[stop:]

    def _quoted_fields(
        self, codes: np.ndarray, breaks: np.ndarray, *, last: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Where quoted fields open and close: the positions of their quotes; the end for one that goes on.

        Raises:
            DataError: text behind a closing quote, or a quote that never closes; names the lines.
        """
        at = np.flatnonzero(codes == ord(self._dialect.quote or ""))
        stops = np.array([ord(self._dialect.separator), 10, 13], dtype=np.uint8)
        begins = (at == 0) | np.isin(codes[np.maximum(at - 1, 0)], stops)
        ends = (at + 1 == len(codes)) | np.isin(codes[np.minimum(at + 1, len(codes) - 1)], stops)
        # The common case: quotes alternate between those that open and those that close; doubled ones touch.
        opening, closing = at[::2], at[1::2]
        again = opening[1:] == closing[: len(opening) - 1] + 1  # a doubled quote goes on with the field
        touch, goes_on = np.concatenate([[False], again]), np.append(again, False)[: len(closing)]
        if (begins[::2] | touch).all() and (ends[1::2] | goes_on).all() and not (last and len(at) % 2):
            closes = closing[~goes_on]
            return opening[~touch], np.append(closes, len(codes)) if len(at) % 2 else closes
        return self._one_by_one(at.tolist(), begins, ends, breaks, end=None if last else len(codes))

    def _one_by_one(
        self, at: list[int], begins: np.ndarray, ends: np.ndarray, breaks: np.ndarray, *, end: int | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The same where quotes also stand inside unquoted fields."""
        opens: list[int] = []
        closes: list[int] = []
        doubled = -1
        for i, position in enumerate(at):
            if position == doubled:
                continue
            if len(opens) == len(closes):
                if begins[i]:
                    opens.append(position)
            elif i + 1 < len(at) and at[i + 1] == position + 1:
                doubled = position + 1
            elif ends[i]:
                closes.append(position)
            else:
                begun, now = (self._line_of(p, breaks) for p in (opens[-1], position))
                raise DataError(
                    f"{self._file}: a quoted field must end at its closing quote, but the one that begins in "
                    f"line {begun} goes on behind a quote in line {now}; {self.remedy}"
                )
        if len(opens) > len(closes):
            if end is None:
                begun = self._line_of(opens[-1], breaks)
                raise DataError(f"{self._file}: the quote in line {begun} is never closed; {self.remedy}")
            closes.append(end)
        return np.array(opens, dtype=np.int64), np.array(closes, dtype=np.int64)

    def _line_of(self, position: int, breaks: np.ndarray) -> int:
        return self.line + int(np.searchsorted(breaks, position))

    def _refuse_swallowed(self, data: bytes, breaks: np.ndarray, inside: np.ndarray) -> None:
        """Refuse a quoted field of several lines each of which looks like a whole record."""
        if self._dialect.sure:
            return
        edges, separator = [0, *(breaks + 1).tolist()], self._dialect.separator.encode()
        counts = [data[a:b].count(separator) for a, b in pairwise(edges)] if inside.any() else []
        start = None
        for i, (within, count) in enumerate(zip(inside, counts, strict=False)):
            start = i if start is None and within else start
            if start is not None and count != self._separators:
                start = -1  # a line of another shape: the field is what it says
            if not within and start is not None:
                if start >= 0 and self._separators:
                    raise DataError(
                        f"{self._file}: lines {self.line + start} to {self.line + i} are one quoted field, "
                        f"but each of them looks like a record of its own; {self.remedy}; if they are one "
                        f"field, set quote: '{self._dialect.quote}' in the table"
                    )
                start = None


def _between(breaks: np.ndarray, opens: np.ndarray, closes: np.ndarray) -> np.ndarray:
    """Which line ends lie inside a quoted field."""
    if not len(opens):
        return np.zeros(len(breaks), dtype=bool)
    field_of = np.searchsorted(opens, breaks) - 1
    return (field_of >= 0) & (breaks < closes[np.maximum(field_of, 0)])


def _line_breaks(codes: np.ndarray, *, last: bool) -> np.ndarray:
    """Positions of the last byte of every line end: LF, CR LF, or CR alone."""
    feeds = codes == 10
    returns = np.flatnonzero(codes == 13)
    if len(returns):
        # A CR at the very end may be the first half of CR LF.
        alone = returns[returns + 1 < len(codes)] if not last else returns
        follow = np.minimum(alone + 1, len(codes) - 1)
        feeds[alone[(codes[follow] != 10) | (follow == alone)]] = True
    return np.flatnonzero(feeds)


def _filled(codes: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Which lines hold more than their own end."""
    length = ends - begins
    ends_in_crlf = (length == 2) & (codes[begins] == 13) if len(begins) else length > 0
    return (length > 1) & ~ends_in_crlf

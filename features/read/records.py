"""The records of a CSV file in blocks, each proved to be whole: no quote can swallow rows without a word.

A block ends where a record ends, so that it can be parsed by itself, and the number of its records is known
before it is parsed. A quote opens a field only at its beginning; inside, two quotes are one; behind the
closing quote the field ends. Elsewhere a quote is a character like any other (`12" vinyl`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from features.errors import DataError
from features.read.escapes import NULL, alone, behind_escapes, unsure
from features.read.text_file import utf8_pieces

BLOCK = 2**24  # bytes read at a time
_LONGEST = 2**26  # bytes of one record


@dataclass(frozen=True)
class Dialect:
    """How a text file is written.

    Attributes:
        separator: one character.
        quote: one character, or None where a quote means nothing.
        encoding: a name that Python knows.
        sure: the quote was declared: a field may hold lines that look like records.
        escape: a character that makes the next one literal, or None where there is none.
        null: whether an escaped N alone in a field is declared to mean missing.
    """

    separator: str = ","
    quote: str | None = '"'
    encoding: str = "utf-8"
    sure: bool = False
    escape: str | None = None
    null: bool = False


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
        for text, last in utf8_pieces(raw, file, dialect.encoding, size):
            unpacked += len(text)
            if check_size is not None:
                check_size(unpacked)
            block, rest = cutter.cut(rest + text, last=last)
            if len(rest) > max(_LONGEST, 4 * size):
                raise DataError(
                    f"{file}: a record must end within {_LONGEST:,} bytes, the one that begins in line "
                    f"{cutter.line} does not; {cutter.remedy(rest)}"
                )
            if len(block.ends):
                yield block


class _Cutter:
    """Cuts bytes where records end, and knows the line that comes next."""

    def __init__(self, file: Path, dialect: Dialect) -> None:
        self._file, self._dialect = file, dialect
        self._separators: int | None = None  # of the first line, which is the header where there is one
        self.line = 1

    def remedy(self, data: bytes) -> str:
        """What to do about quotes."""
        quote = (self._dialect.quote or "").encode()
        escaped = self._dialect.escape is None and b"\\" + quote in data
        mark = "if a backslash stands before quotes that are part of the field, set escape: '\\'"
        return (
            f"{mark if escaped else 'write a quote inside a quoted field twice'}, or, if quotes are "
            "characters like any other, set quote: none in the table"
        )

    def cut(self, data: bytes, *, last: bool) -> tuple[Block, bytes]:
        """The whole records of some bytes, and what follows them."""
        if last and data and not data.endswith((b"\n", b"\r")):
            data += b"\n"
        codes = np.frombuffer(data, dtype=np.uint8)
        breaks, literal = _line_breaks(codes, last=last), self._literal(codes)
        if self._separators is None and len(breaks):
            self._separators = data[: breaks[0]].count(self._dialect.separator.encode())
        opens = closes = np.zeros(0, dtype=np.int64)
        if self._dialect.quote is not None and self._dialect.quote.encode() in data:
            opens, closes = self._quoted_fields(data, breaks, literal, last=last)
        inside = _between(breaks, opens, closes)
        self._refuse_swallowed(data, breaks, inside)
        if len(literal):
            self._refuse_unsure(data, breaks, literal, _between(literal, opens, closes))
            inside |= np.isin(breaks, literal)
            if last and len(inside) and inside[-1]:
                raise DataError(
                    f"{self._file}: the last record must end, but an escape stands at its end; correct it"
                )
        ends = breaks[~inside] + 1
        after = (self.line + 1 + np.arange(len(breaks)))[~inside]  # the line behind each record
        begins = np.concatenate([[0], ends])[: len(ends)]
        lines = np.concatenate([[self.line], after])[: len(ends)]
        self.line = int(after[-1]) if len(after) else self.line
        stop = int(ends[-1]) if len(ends) else 0
        filled = _filled(codes, begins, ends)
        return Block(data[:stop], ends[filled], lines[filled], len(opens) > 0), data[stop:]

    def _literal(self, codes: np.ndarray) -> np.ndarray:
        """Positions of the bytes that an escape makes literal."""
        if self._dialect.escape is None:
            return np.zeros(0, dtype=np.int64)
        literal = behind_escapes(codes, self._dialect.escape)
        return literal[literal < len(codes)]

    def _refuse_unsure(
        self, data: bytes, breaks: np.ndarray, literal: np.ndarray, within: np.ndarray
    ) -> None:
        """Refuse an escape before a character that programs read differently."""
        known, codes = self._dialect, np.frombuffer(data, dtype=np.uint8)
        wrong = unsure(codes, literal, [c for c in (known.escape, known.separator, known.quote) if c])
        null = (codes[wrong] == ord(NULL)) & alone(codes, wrong, known.separator)
        null &= ~within[np.searchsorted(literal, wrong)]
        wrong = wrong[~null] if known.null else wrong
        if len(wrong):
            at, is_null = int(wrong[0]), bool(null[0]) and not known.null
            came = data[at - 1 : at + 1].decode("utf-8", "replace")
            remedy = f"if it means missing, add nulls: ['{came}']" if is_null else "write the escape twice"
            raise DataError(
                f"{self._file}: an escape must stand before a quote, a separator, a line end or an escape, "
                f"but line {self._line_of(at, breaks)} holds {came!r}, which programs read differently; "
                f"{remedy}, or write the table as Parquet"
            )

    def _quoted_fields(
        self, data: bytes, breaks: np.ndarray, literal: np.ndarray, *, last: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Where quoted fields open and close: the positions of their quotes; the end for one that goes on.

        Raises:
            DataError: text behind a closing quote, or a quote that never closes; names the lines.
        """
        codes = np.frombuffer(data, dtype=np.uint8)
        at = np.flatnonzero(codes == ord(self._dialect.quote or ""))
        stops = np.array([ord(self._dialect.separator), 10, 13], dtype=np.uint8)
        if len(literal):
            at = at[~np.isin(at, literal)]
            if not len(at):
                return at, at
        begins = (at == 0) | np.isin(codes[np.maximum(at - 1, 0)], stops)
        if len(literal):
            begins &= ~np.isin(at - 1, literal)
        ends = (at + 1 == len(codes)) | np.isin(codes[np.minimum(at + 1, len(codes) - 1)], stops)
        # The common case: quotes alternate between those that open and those that close; doubled ones touch.
        opening, closing = at[::2], at[1::2]
        again = opening[1:] == closing[: len(opening) - 1] + 1  # a doubled quote goes on with the field
        touch, goes_on = np.concatenate([[False], again]), np.append(again, False)[: len(closing)]
        if (begins[::2] | touch).all() and (ends[1::2] | goes_on).all() and not (last and len(at) % 2):
            closes = closing[~goes_on]
            return opening[~touch], np.append(closes, len(codes)) if len(at) % 2 else closes
        return self._one_by_one(at.tolist(), begins, ends, breaks, data, last=last)

    def _one_by_one(
        self,
        at: list[int],
        begins: np.ndarray,
        ends: np.ndarray,
        breaks: np.ndarray,
        data: bytes,
        *,
        last: bool,
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
                    f"line {begun} goes on behind a quote in line {now}; {self.remedy(data)}"
                )
        if len(opens) > len(closes):
            if last:
                begun = self._line_of(opens[-1], breaks)
                raise DataError(
                    f"{self._file}: the quote in line {begun} is never closed; {self.remedy(data)}"
                )
            closes.append(len(data))
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
                        f"but each of them looks like a record of its own; {self.remedy(data)}; if they are "
                        f"one field, set quote: '{self._dialect.quote}' in the table"
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

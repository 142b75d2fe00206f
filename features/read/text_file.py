"""The bytes of a text file as UTF-8, unpacked and decoded piece by piece; other kinds of files are named."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from features.errors import DataError

_PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_FOREIGN = {
    b"PK\x03\x04": "a zip archive; unpack it",
    b"PAR1": "Parquet; set format: parquet",
    b"BZh": "packed by bzip2; unpack it, or pack it by gzip or zstd",
    b"\xfd7zXZ": "packed by xz; unpack it, or pack it by gzip or zstd",
}
_MARKS = {  # the longer one first: UTF-32 begins like UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def utf8_pieces(raw: BinaryIO, file: Path, encoding: str, size: int) -> Iterator[tuple[bytes, bool]]:
    """Pieces of the text as UTF-8, and whether each is the last.

    Args:
        raw: the opened file, plain or packed by gzip or zstd.
        file: its name, for messages.
        encoding: a name that Python knows.
        size: bytes read at a time.

    Raises:
        DataError: a file of another kind or encoding; names the line where the text is wrong.
    """
    head = raw.read(8)
    raw.seek(0)
    for mark, kind in _FOREIGN.items():
        if head.startswith(mark):
            raise DataError(f"{file} must be CSV, but is {kind}")
    for mark, name in _MARKS.items():
        if head.startswith(mark):
            if not codecs.lookup(encoding).name.startswith(name):
                raise DataError(f"{file} begins as a text in {name}; set encoding: {name} in the table")
            break
    packed = next((name for magic, name in _PACKED.items() if head.startswith(magic)), None)
    stream = raw if packed is None else pa.CompressedInputStream(pa.PythonFile(raw), packed)
    plain = codecs.lookup(encoding).name in ("utf-8", "ascii")
    decoder = codecs.getincrementaldecoder(encoding)()
    begun, line = False, 1
    while True:
        try:
            data = stream.read(size if begun else max(size, len(codecs.BOM_UTF8)))
            last = not data
            text = data if plain else decoder.decode(data, final=last).encode()
        except UnicodeDecodeError as error:
            line += error.object[: error.start].decode(encoding, "replace").count("\n")
            raise DataError(
                f"{file} is no {encoding}: byte 0x{error.object[error.start]:02x} in line {line} is none of "
                "its characters; correct encoding in the table"
            ) from None
        except UnicodeError as error:
            raise DataError(f"{file} is no {encoding}: {error}; correct encoding in the table") from None
        except OSError as error:
            raise DataError(f"{file} cannot be read: {error}; write it again or delete it") from None
        text, begun = text if begun else text.removeprefix(codecs.BOM_UTF8), True
        line += 0 if plain else text.count(b"\n")
        yield text, last
        if last:
            return

"""The options of a run as a tree, for tests that visit all of them."""

from __future__ import annotations

from pydantic.fields import FieldInfo

from ctr.options.kinds import one_of
from ctr.options.knobs import Knobs, section_of


def sections_of(field: FieldInfo) -> list[type[Knobs]]:
    """The classes that an option may be of, one for each kind; none for plain values."""
    mark, inner = one_of(field), section_of(field)
    return list(mark.kinds.values()) if mark else [inner] if inner else []

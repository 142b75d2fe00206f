"""Whether the parts of a log have as many rows as its owner, or a published comparison, says."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from features.spec import Spec
from features.store.manifest import SplitInfo

_log = logging.getLogger(__name__)


def compare_published(spec: Spec, splits: Mapping[str, SplitInfo], tell: Callable[[str], None]) -> None:
    """Compare the rows of the parts, of exploded lines the lines, with `split.published`.

    Args:
        spec: may name editions of the log with their counts.
        splits: the counts of each part.
        tell: told the edition whose counts these are; a warning says that they are those of none.
    """
    exploded = spec.impressions.explode is not None
    have = {name: part.requests if exploded else part.impressions for name, part in splits.items()}
    others = []
    for edition, published in spec.split.published.items():
        found = {key: sum(have[part] for part in key.split("+")) for key in published}
        if found == published:
            tell(f"as many rows as {edition} is published with: {_shown(published)}")
            return
        others.append(f"{edition} with {_shown(published)}, and these files have {_shown(found)}")
    if others:
        _log.warning(
            "data set %r is published as %s: figures of other rows cannot stand beside the published ones; "
            "fetch the files again, or delete split.published if they are meant to be others",
            spec.name,
            "; as ".join(others),
        )


def _shown(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{key} {count:,}" for key, count in counts.items())

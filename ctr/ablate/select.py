"""What a plan's names stand for in a data set: features, token groups, domains and side info."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence

from ctr.ablate.plan import Parts
from features.dataset import Manifest
from features.errors import ConfigError

GROUP = "group:"


def parts(manifest: Manifest, wanted: Parts) -> list[str]:
    """The items that `features`, `groups`, `domains` or `sides` stands for, or those that a list names."""
    if isinstance(wanted, tuple):
        for item in wanted:
            members(manifest, [item])
        return list(wanted)
    return {
        "features": [c.name for c in manifest.features],
        "groups": [f"{GROUP}{name}" for name in manifest.tokens],
        "domains": list(manifest.domains),
        "sides": [f"{d}.{c.name}" for d, info in manifest.domains.items() for c in info.side],
    }[wanted]


def members(manifest: Manifest, items: Iterable[str]) -> set[str]:
    """The features, domains and domain.side fields that items name.

    Args:
        manifest: of the data set.
        items: names as in a run's `drop` (with * and ?), or group:<token group> for its features.

    Raises:
        ConfigError: an item that names nothing.
    """
    found: set[str] = set()
    names = {c.name for c in manifest.features} | set(manifest.domains) | set(parts(manifest, "sides"))
    for item in items:
        if item.startswith(GROUP):
            groups = fnmatch.filter(manifest.tokens, item.removeprefix(GROUP))
            hits = [name for group in groups for name in manifest.tokens[group]]
        else:
            hits = fnmatch.filter(names, item)
        if not hits:
            raise ConfigError(
                f"a plan must name features, domains, domain.side fields or group:<token group> of data set "
                f"{manifest.name!r}, got {item!r}; it has {', '.join(sorted(names)[:40])}, and groups "
                f"{', '.join(manifest.tokens)}"
            )
        found.update(hits)
    return found


def complement(manifest: Manifest, items: Sequence[str]) -> set[str]:
    """What must be dropped so that only the items stay; a kept domain keeps its side info unless named."""
    kept = members(manifest, items)
    gone = {c.name for c in manifest.features} - kept
    for domain, info in manifest.domains.items():
        sides = {f"{domain}.{c.name}" for c in info.side}
        if named := sides & kept:
            gone |= sides - named
        elif domain not in kept:
            gone.add(domain)
    return gone


def tidy(manifest: Manifest, gone: set[str]) -> list[str]:
    """Sorted names to drop, so that equal views read equal: no side info of a domain that goes as a whole."""
    return sorted(name for name in gone if name in manifest.domains or not _covered(manifest, name, gone))


def _covered(manifest: Manifest, name: str, gone: set[str]) -> bool:
    return any(name.startswith(f"{domain}.") for domain in manifest.domains if domain in gone)

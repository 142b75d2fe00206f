"""Simulate a click log and write it to a directory."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from features.errors import ConfigError
from features.synthetic.accidents import accidental_clicks, check_share
from features.synthetic.best import BestAuc
from features.synthetic.block import UserBlock, simulate_block
from features.synthetic.catalogue import Catalogue, make_catalogue
from features.synthetic.clicks import ClickModel
from features.synthetic.purchases import PurchaseModel, draw_purchases
from features.synthetic.settings import START, Sizes
from features.synthetic.tables import users_table
from features.synthetic.write import TableWriter, new_log, write_catalogue, write_part

_CATALOGUE, _BLOCK, _ACCIDENTS, _PURCHASES = 0, 1, 2, 3  # keys of the independent streams of random numbers
_log = logging.getLogger(__name__)
_DEFAULT = Sizes()


def simulate(
    out_dir: Path | str,
    *,
    seed: int = 7,
    users: int = _DEFAULT.users,
    items: int = _DEFAULT.items,
    days: int = _DEFAULT.days,
    requests_per_user: int = _DEFAULT.requests_per_user,
    candidates: int = _DEFAULT.candidates,
    events_per_user: int = _DEFAULT.events_per_user,
    categories: int = _DEFAULT.categories,
    chunk_users: int = _DEFAULT.chunk_users,
    accidental: float = 0.0,
    purchases: bool = False,
) -> dict[str, Any]:
    """Write a raw click log with known click probabilities; the same arguments give the same log.

    A block of 1,024 users is in memory at a time; the rows and their order do not depend on `chunk_users`.
    Nothing appears at `out_dir` until everything is written. `docs/simulator.md` lists files and formulas.

    Args:
        out_dir: a directory that does not exist or is empty.
        seed: any whole number from 0.
        users: number of users.
        items: number of items, at least 8 per category and 8 per candidate.
        days: length of the period of requests; behaviour begins 7 days earlier.
        requests_per_user: mean number of requests.
        candidates: shown items of a request.
        events_per_user: mean number of events before those that the impressions cause.
        categories: number of categories; six brands each.
        chunk_users: users in one part file, rounded up to whole blocks of 1,024.
        accidental: share of clicked views that are accidents, on top of the others; column `accidental`.
        purchases: whether clicks are followed by purchases; columns `bought` and `bought_at`.

    Returns:
        What `truth/meta.json` holds: arguments, row counts, click model and the best possible AUC (`best`).

    Raises:
        ConfigError: an argument outside its range, or `out_dir` holds something.
    """
    sizes = Sizes(
        users=users,
        items=items,
        days=days,
        requests_per_user=requests_per_user,
        candidates=candidates,
        events_per_user=events_per_user,
        categories=categories,
        chunk_users=chunk_users,
    )
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ConfigError(f"seed must be a whole number from 0, got {seed!r}; choose another seed")
    with new_log(Path(out_dir)) as root:
        bought = PurchaseModel() if purchases else None
        meta = _write_log(root, seed, sizes, ClickModel(), check_share(accidental), bought)
    best = meta["best"]
    _log.info("best possible AUC %s (without history %s)", best["auc"], best["auc_static"])
    return meta


def _write_log(
    root: Path,
    seed: int,
    sizes: Sizes,
    model: ClickModel,
    accidental: float,
    bought: PurchaseModel | None,
) -> dict[str, Any]:
    """Write every file of the log under `root`."""
    catalogue = make_catalogue(_generator(seed, _CATALOGUE, 0), sizes)
    write_catalogue(root, catalogue)
    rows, best = Counter(items=len(catalogue.item_id)), BestAuc()
    with TableWriter(root / "users.parquet") as users:
        for part in range(-(-sizes.blocks // sizes.blocks_per_part)):
            blocks = _with_accidents(
                _part_blocks(seed, sizes, model, catalogue, part), seed, catalogue, accidental
            )
            if bought is not None:
                blocks = _with_purchases(blocks, seed, sizes, catalogue, model, bought)
            rows.update(write_part(root, part, catalogue, _observed(blocks, users, best)))
        rows["users"] = users.rows
    meta = {
        "seed": seed,
        "sizes": asdict(sizes),
        "start": START,
        "rows": dict(rows),
        "click_model": asdict(model),
        "best": best.summary(),
    } | ({"accidental": accidental} if accidental else {})
    if bought is not None:
        meta |= {"purchase_model": asdict(bought), "log_end": sizes.end}
    text = json.dumps(meta, indent=2)
    (root / "truth" / "meta.json").write_text(text + "\n", encoding="utf-8")
    plain: dict[str, Any] = json.loads(text)  # as a reader of the file sees it: lists, not tuples
    return plain


def _generator(seed: int, stream: int, number: int) -> np.random.Generator:
    """Random numbers of the catalogue or of one block: a function of these three numbers only."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(stream, number))))


def _part_blocks(
    seed: int, sizes: Sizes, model: ClickModel, catalogue: Catalogue, part: int
) -> Iterator[UserBlock]:
    """Simulate the blocks of one part file, one after the other."""
    begin = part * sizes.blocks_per_part
    for number in range(begin, min(begin + sizes.blocks_per_part, sizes.blocks)):
        yield simulate_block(_generator(seed, _BLOCK, number), catalogue, sizes, model, number)


def _with_accidents(
    blocks: Iterator[UserBlock], seed: int, catalogue: Catalogue, share: float
) -> Iterator[UserBlock]:
    """Add accidental clicks; with a share of 0 the blocks stay as they are."""
    for block in blocks:
        if share:
            rng = _generator(seed, _ACCIDENTS, int(block.people.user_id[0]))
            block = replace(block, accidents=accidental_clicks(rng, catalogue, block.events, share))
        yield block


def _with_purchases(
    blocks: Iterator[UserBlock],
    seed: int,
    sizes: Sizes,
    catalogue: Catalogue,
    clicks: ClickModel,
    model: PurchaseModel,
) -> Iterator[UserBlock]:
    """Add what becomes of the clicks."""
    for block in blocks:
        rng = _generator(seed, _PURCHASES, int(block.people.user_id[0]))
        users = (model, clicks, catalogue, block.people)
        rounds = [
            draw_purchases(rng, *users, done.shown, done.clicked, log_end=sizes.end) for done in block.rounds
        ]
        yield replace(block, purchases=rounds)


def _observed(blocks: Iterator[UserBlock], users: TableWriter, best: BestAuc) -> Iterator[UserBlock]:
    """Pass blocks on, having written their users and counted their clicks."""
    for block in blocks:
        users.add(users_table(block.people))
        clicked, p, p_static = (
            np.concatenate([getattr(done, name) for done in block.rounds])
            for name in ("clicked", "p", "p_static")
        )
        best.add(clicked=clicked, p=p, p_static=p_static)
        yield block

"""The simulated log as Arrow tables: what a company would have logged, and apart from it the truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from features.synthetic.block import Round, UserBlock
from features.synthetic.catalogue import SEGMENTS, TAG_COUNT, Catalogue
from features.synthetic.clicks import HISTORY_TERMS, PAGES, STATIC_TERMS
from features.synthetic.events import CART, OUTCOMES, QUERIES_PER_CATEGORY, SEARCH, VIEW, Events, concat
from features.synthetic.people import AGE_BANDS, COUNTRIES, DEVICES, People
from features.synthetic.purchases import Purchases


def users_table(people: People) -> pa.Table:
    """One row per user; age_band and country are null where the user did not say."""
    return pa.table(
        {
            "user_id": people.user_id,
            "segment": _names(SEGMENTS, people.segment),
            "age_band": _names(AGE_BANDS, people.age_band),
            "country": _names(COUNTRIES, people.country),
            "joined": people.joined,
            "noise_user": people.noise.astype(np.int32),
        }
    )


def items_table(catalogue: Catalogue) -> pa.Table:
    """One row per item; brand_id and price may be null, tags may be empty."""
    order = np.argsort(catalogue.item_id)
    return pa.table(
        {
            "item_id": catalogue.item_id[order],
            "category_id": _ids(catalogue.category[order]),
            "brand_id": _ids(catalogue.brand[order]),
            "price": pa.array(catalogue.price[order], from_pandas=True),
            "tags": _tag_lists(catalogue.tags[order]),
            "created": catalogue.created[order],
            "noise_item": catalogue.noise[order].astype(np.int32),
        }
    )


def impressions_table(block: UserBlock, catalogue: Catalogue) -> pa.Table:
    """One row per shown item, round after round, so sorted neither by time nor by user."""
    rounds = [_impressions_of(r, block.people, catalogue) for r in block.rounds]
    if block.purchases is not None:
        rounds = [
            _with_bought(shown, p, p.bought & (p.time < p.log_end))
            for shown, p in zip(rounds, block.purchases, strict=True)
        ]
    return pa.concat_tables(rounds)


def view_table(block: UserBlock, catalogue: Catalogue) -> pa.Table:
    """Views: organic ones, then those that impressions caused, then accidents; dwell in seconds."""
    views = block.events.where(block.events.domain == VIEW)
    truth = {}
    if block.accidents is not None:
        truth = {"accidental": np.repeat(np.array([0, 1], np.int8), [len(views), len(block.accidents)])}
        views = concat([views, block.accidents])
    return pa.table(
        _event_columns(views, block.people, catalogue)
        | {"dwell": views.dwell, "outcome": _names(OUTCOMES, views.outcome)}
        | truth
    )


def cart_table(block: UserBlock, catalogue: Catalogue) -> pa.Table:
    """Items put into the cart."""
    carts = block.events.where(block.events.domain == CART)
    return pa.table(_event_columns(carts, block.people, catalogue))


def search_table(block: UserBlock, catalogue: Catalogue) -> pa.Table:
    """Searches: a query belongs to one category."""
    searches = block.events.where(block.events.domain == SEARCH)
    category = catalogue.category[searches.item]
    return pa.table(
        {
            "user_id": block.people.user_id[searches.user],
            "query_id": _ids(category * QUERIES_PER_CATEGORY + searches.query),
            "category_id": _ids(category),
            "time": searches.time,
        }
    )


def truth_table(block: UserBlock, catalogue: Catalogue) -> pa.Table:
    """Per impression: p, p without the history terms, and each term of the score."""
    rounds = [_truth_of(r, catalogue) for r in block.rounds]
    if block.purchases is not None:
        rounds = [
            _with_bought(known.append_column("p_buy", pa.array(p.p)), p, p.bought)
            for known, p in zip(rounds, block.purchases, strict=True)
        ]
    return pa.concat_tables(rounds)


def truth_items_table(catalogue: Catalogue) -> pa.Table:
    """The hidden quality of each item."""
    order = np.argsort(catalogue.item_id)
    return pa.table({"item_id": catalogue.item_id[order], "quality": catalogue.quality[order]})


def truth_tags_table(catalogue: Catalogue) -> pa.Table:
    """The hidden effect of each tag."""
    return pa.table({"tag": _names(_TAGS, np.arange(TAG_COUNT)), "effect": catalogue.tag_effect})


def truth_affinity_table(catalogue: Catalogue) -> pa.Table:
    """The hidden effect of each (segment, category)."""
    segment, category = np.indices(catalogue.affinity.shape).reshape(2, -1)
    return pa.table(
        {
            "segment": _names(SEGMENTS, segment),
            "category_id": _ids(category),
            "affinity": catalogue.affinity.ravel(),
        }
    )


_TAGS = tuple(f"tag{i:02d}" for i in range(TAG_COUNT))


def _impressions_of(done: Round, people: People, catalogue: Catalogue) -> pa.Table:
    shown = done.shown
    return pa.table(
        {
            "request_id": done.request_id,
            "user_id": people.user_id[shown.user],
            "item_id": catalogue.item_id[shown.item],
            "time": shown.time,
            "position": shown.position.astype(np.int32),
            "device": _names(DEVICES, shown.device),
            "page": _names(PAGES, shown.page),
            "noise_context": done.noise.astype(np.int32),
            "clicked": done.clicked.astype(np.int8),
        }
    )


def _with_bought(rows: pa.Table, purchases: Purchases, bought: np.ndarray) -> pa.Table:
    """Rows with `bought` and `bought_at` of those purchases that are known of."""
    rows = rows.append_column("bought", pa.array(bought.astype(np.int8)))
    return rows.append_column("bought_at", pa.array(purchases.time, mask=~bought))


def _truth_of(done: Round, catalogue: Catalogue) -> pa.Table:
    return pa.table(
        {
            "request_id": done.request_id,
            "item_id": catalogue.item_id[done.shown.item],
            "time": done.shown.time,
            "clicked": done.clicked.astype(np.int8),
            "p": done.p,
            "p_static": done.p_static,
            **{
                f"term_{name}": done.terms[name].astype(np.float32)
                for name in (*STATIC_TERMS, *HISTORY_TERMS)
            },
        }
    )


def _event_columns(events: Events, people: People, catalogue: Catalogue) -> dict[str, pa.Array | np.ndarray]:
    """The columns that views and carts share: keys, time, and the item's side information."""
    return {
        "user_id": people.user_id[events.user],
        "item_id": catalogue.item_id[events.item],
        "category_id": _ids(catalogue.category[events.item]),
        "brand_id": _ids(catalogue.brand[events.item]),
        "price": pa.array(catalogue.price[events.item], from_pandas=True),
        "time": events.time,
    }


def _ids(index: np.ndarray) -> pa.Array:
    """Logged IDs from 1 of indices from 0; null for -1."""
    return pa.array((index + 1).astype(np.int32), mask=index < 0)


def _names(names: Sequence[str], index: np.ndarray) -> pa.Array:
    """Strings of indices; null for -1."""
    indices = pa.array(index.astype(np.int32), mask=index < 0)
    return pa.DictionaryArray.from_arrays(indices, pa.array(names)).cast(pa.string())


def _tag_lists(tags: np.ndarray) -> pa.Array:
    """Lists of tag names of rows of indices; -1 is left out."""
    present = tags >= 0
    offsets = np.concatenate([[0], present.sum(axis=1).cumsum()]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), _names(_TAGS, tags[present]))

"""Users are spread over clusters whatever their IDs have in common, and alike wherever they are drawn."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from ctr.compare import paired_sums
from ctr.metrics import MetricAccumulator
from ctr.metrics.clusters import CLUSTERS, clusters_of, codes_of, mix64, pair_codes

USERS = 20_000
K = np.arange(USERS)
IDS = {
    "sequential": 10**9 + K,
    "shared low bits": K << 16,
    "more shared low bits": K << 44,
    "shared high bits": (0x5A5A << 46) + K * 7,
    "multiples of 65,536 and 65,521": K * 65_536 * 65_521,
    "multiples of a power of ten": 10**12 * (1 + K),
    "negative": -1 - K,
    "random": np.random.default_rng(0).integers(0, 2**62, USERS),
    "text": pa.array([f"user-{k:010d}" for k in K]),
    "text with a common end": pa.array([f"{k:010d}@example.com" for k in K]),
}


@pytest.mark.parametrize("name", IDS)
def test_users_are_spread_as_by_chance(name: str) -> None:
    clusters = clusters_of(codes_of(IDS[name]))
    assert clusters.min() >= 0 and clusters.max() < CLUSTERS
    used = len(np.unique(clusters))
    expected = CLUSTERS * (1 - (1 - 1 / CLUSTERS) ** USERS)
    assert abs(used - expected) < 5 * np.sqrt(expected * 0.15)
    assert np.bincount(clusters).max() <= 8


def test_users_numbered_from_0_never_share_a_cluster() -> None:
    assert clusters_of(codes_of(np.arange(CLUSTERS))).tolist() == list(range(CLUSTERS))


def test_each_bit_of_an_id_turns_half_of_the_hash() -> None:
    codes = np.random.default_rng(1).integers(0, 2**63, 2_000).astype(np.uint64)
    for bit in range(64):
        turned = mix64(codes) ^ mix64(codes ^ np.uint64(1 << bit))
        shares = [float(((turned >> np.uint64(k)) & np.uint64(1)).mean()) for k in range(64)]
        assert min(shares) > 0.44 and max(shares) < 0.56


def test_pairs_of_small_numbers_have_codes_of_their_own() -> None:
    first, second = (grid.ravel().astype(np.uint64) for grid in np.mgrid[0:300, 0:300])
    assert len(np.unique(pair_codes(first, second))) == 300 * 300


def test_users_with_common_bits_have_the_interval_of_their_number() -> None:
    rng = np.random.default_rng(2)
    user = np.repeat(np.arange(500), 6)
    label = (rng.random(500) < 0.4)[user].astype(np.int8)
    score = 1 / (1 + np.exp(-(rng.normal(size=500)[user] + label)))
    widths = []
    for ids in (user, user << 16):
        with MetricAccumulator(draws=200) as accumulator:
            accumulator.update(label, score, user=ids)
            auc = accumulator.compute().metrics["auc"]
        assert auc.low is not None and auc.high is not None, auc.reason
        widths.append(auc.high - auc.low)
        pair = paired_sums(label, score, {"v": score**2}, user=ids)["v"]
        assert pair.clusters >= 495
    assert widths[1] == pytest.approx(widths[0], rel=0.2)

"""Every shipped plan says its command; each of its variants can be built on its data set."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctr.ablate.ablation import check
from ctr.ablate.expand import Variant, expand
from ctr.ablate.plan import Plan, load_plan, parse_plan
from features.dataset import Column, DomainInfo, Manifest, TableInfo
from features.read.columns import is_request_level
from features.safe_yaml import parse_yaml
from features.spec import CalendarFeature, DenseFeature, IdFeature, SincePrevious, Spec, load_spec
from tests.documents import ROOT, fenced

CONFIGS = ROOT / "pipelines" / "configs"
PLANS = sorted((CONFIGS / "ablations").glob("*.yaml"))
LISTS = {"tags", "genres", "filters"}  # several values in a row


def column(name: str, feature: object, level: str) -> Column:
    """What `ctr prepare` would make of a feature, with some width for dense ones."""
    if isinstance(feature, DenseFeature):
        return Column(name=name, level=level, kind="dense", dim=2, fields=["a", "b"])  # type: ignore[arg-type]
    table = "gap"
    if isinstance(feature, IdFeature):
        table = feature.table
    elif isinstance(feature, CalendarFeature):
        table = f"calendar.{feature.calendar}"
    else:
        assert isinstance(feature, SincePrevious)
    kind = "ids" if name in LISTS else "id"
    return Column(name=name, level=level, kind=kind, table=table)  # type: ignore[arg-type]


def manifest_of(spec: Spec) -> Manifest:
    """The manifest of a data set that has not been prepared: its names, with small tables."""
    levels = {n: "request" if is_request_level(spec, f) else "candidate" for n, f in spec.features.items()}
    features = [column(name, feature, levels[name]) for name, feature in spec.features.items()]
    domains = {
        name: DomainInfo(
            events=1,
            max_len=domain.max_len,
            side=[column(side, feature, "event") for side, feature in domain.side.items()],
            time_range=None,
        )
        for name, domain in spec.domains.items()
    }
    used = {c.table for c in features} | {c.table for info in domains.values() for c in info.side}
    return Manifest(
        name=spec.name,
        spec_sha256="0" * 64,
        users=1,
        items=1,
        features=features,
        tables={name: TableInfo(rows=9, encode="vocabulary") for name in used if name},
        domains=domains,
        tokens=spec.tokens,
        slices=list(spec.slices),
        splits={},
        files={},
    )


def built(plan: Plan) -> list[Variant]:
    """The variants of a plan, each of which can be built."""
    assert isinstance(plan.base, dict)
    name = Path(plan.base["dataset"]).name.removesuffix("-dataset")
    manifest = manifest_of(load_spec(CONFIGS / "specs" / f"{name}.yaml"))
    variants = expand(plan, manifest)
    for variant in variants:
        check(variant, manifest)
    return variants


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_a_shipped_plan_can_be_built(path: Path) -> None:
    plan = load_plan(path)
    assert plan.name == path.stem
    assert f"ctr ablate pipelines/configs/ablations/{path.name}" in path.read_text()
    configs = [v.config for v in built(plan) if not v.permute]
    assert all(config not in configs[:i] for i, config in enumerate(configs))  # no variant is another one


def test_the_plan_of_the_page_can_be_built() -> None:
    example, *_ = fenced(ROOT / "docs" / "ablations.md", "yaml")
    assert built(parse_plan(parse_yaml(example, "docs/ablations.md"), folder=CONFIGS / "ablations"))


def test_there_is_a_plan_of_each_kind_for_each_data_set() -> None:
    kinds = ("hyformer-table2", "longer-table2", "feature-groups")
    wanted = {f"{data}-{kind}" for data in ("simulator", "ml-1m", "trivago") for kind in kinds}
    assert wanted <= {path.stem for path in PLANS}

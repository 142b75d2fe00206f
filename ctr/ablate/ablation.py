"""A plan that has met its data set: every variant can be built, every training is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ctr.ablate.expand import Variant, base_config, expand
from ctr.ablate.plan import Plan
from ctr.ablate.subruns import SubRun, plan_subruns
from ctr.build import build_model, run_view
from features.dataset import Dataset, Manifest
from features.errors import ConfigError, CtrError


@dataclass(frozen=True)
class Ablation:
    """What is to be compared, and the trainings that it takes."""

    plan: Plan
    dataset: Dataset
    variants: list[Variant]  # the base first
    subruns: list[SubRun]

    @classmethod
    def open(cls, plan: Plan) -> Ablation:
        """Expand a plan and build every model once, so that no training fails for its configuration.

        Raises:
            ConfigError: naming the variant that is no valid run.
            DataError: the data set of the base is not there.
        """
        dataset = Dataset(base_config(plan).dataset)
        variants = expand(plan, dataset.manifest)
        for variant in variants:
            check(variant, dataset.manifest)
        subruns = plan_subruns(
            variants, dataset, seeds=plan.seeds, windows=plan.windows, directory=plan.directory
        )
        return cls(plan, dataset, variants, subruns)

    @property
    def names(self) -> list[str]:
        """The variants, the base first."""
        return [variant.name for variant in self.variants]

    def unfinished(self, names: Sequence[str]) -> list[SubRun]:
        """Trainings that some of these variants still need, in order."""
        wanted = set(names)
        own = [s for s in self.subruns if any(trial.variant in wanted for trial in s.trials)]
        return [subrun for subrun in own if not subrun.is_finished()]


def check(variant: Variant, manifest: Manifest) -> None:
    """Build a variant's model on its view of a data set.

    Raises:
        ConfigError: it cannot be built, or asks for longer histories than there are.
    """
    config = variant.config
    try:
        view = run_view(config, manifest)
        build_model(view, config.model, dim=config.embedding.dim, seed=config.seed, tasks=config.tasks)
        held = {domain: info.max_len for domain, info in view.domains.items()}
        for domain, length in config.loader.max_len.items():
            if length > held.get(domain, 0):
                raise ConfigError(f"max_len must lie within {held}, got {domain}: {length}; lower it")
    except CtrError as error:
        raise ConfigError(f"variant {variant.name} must be a run that can be built: {error}") from error

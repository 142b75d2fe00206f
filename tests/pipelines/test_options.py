"""An option that the asked form of a command does not read is refused by name, before anything is opened."""

from __future__ import annotations

import pytest

from pipelines.cli import main

COMPARE = "evaluate --compare a.parquet b.parquet"
SPLIT = "score runs/gone --split test --out x"


@pytest.mark.parametrize(
    ("command", "options", "belongs_to"),
    [
        ("evaluate runs/gone", "--metric auc", "--compare"),
        ("evaluate runs/gone", "--alpha 0.1", "--compare"),
        ("evaluate runs/gone", "--noise pooled", "--compare"),
        ("evaluate runs/gone", "--task buy", "--compare"),
        ("evaluate runs/gone", "--where age=1", "--compare"),
        ("evaluate runs/gone", "--out x", "--compare"),
        (COMPARE, "--split valid", "the evaluation of one run"),
        (COMPARE, "--checkpoint last", "the evaluation of one run"),
        (COMPARE, "--raw", "the evaluation of one run"),
        (COMPARE, "--dataset x", "the evaluation of one run"),
        (COMPARE, "--baseline logistic", "the evaluation of one run"),
        (COMPARE, "--line x", "the evaluation of one run"),
        (COMPARE, "--importance", "the evaluation of one run"),
        (SPLIT, "--port 80", "--serve"),
        ("score runs/gone --requests x --out x", "--timeout 3", "--serve"),
        (SPLIT, "--counters x", "--requests and --serve"),
        (SPLIT, "--max-candidates 5", "--requests and --serve"),
        ("generate decode gone.yaml", "--runs x", "combine"),
        ("generate train gone.yaml", "--out x", "combine"),
        ("bench train", "--page x", "--write-docs"),
        ("bench train", "--lengths 5", "the suites score and retrieval"),
        ("bench train", "--candidates 5", "the suites score and retrieval"),
        ("bench train --dataset gone", "--rows-per-request 1", "synthetic data"),
        ("baseline gone", "--seeds 3", "LightGBM"),
        ("predict runs/gone --user-vectors x", "--raw", "scores"),
    ],
)
def test_an_option_of_another_form_is_refused(
    command: str, options: str, belongs_to: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command.split(), *options.split()]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {options.split()[0]} is for {belongs_to}")
    assert "would do nothing here; leave it out" in said

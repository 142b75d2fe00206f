"""The operators that make scores of logits in a graph give what `ctr predict` gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ctr.export.outputs import ScoreOutputs, score_array
from ctr.export.programs import write_onnx
from ctr.training.calibration import Calibrators
from ctr.training.outputs import Outputs
from features.dataset import TargetScale, TaskInfo

PLATT = {"kind": "platt", "slope": 2.5, "offset": -1.5}
STEPS = {"kind": "isotonic", "logit": [-1.0, -0.5, 0.5, 2.0], "probability": [0.1, 0.2, 0.2, 0.7]}
POINT = {"kind": "isotonic", "logit": [0.3], "probability": [0.4]}
TASKS = [
    TaskInfo(name="click"),
    TaskInfo(name="buy", given="click"),
    TaskInfo(name="stay", kind="regression"),
    TaskInfo(name="seconds", kind="regression", scale=TargetScale(kind="log")),
    TaskInfo(name="depth", kind="regression", scale=TargetScale(kind="quantile", quantiles=[0.0, 3.0, 50.0])),
]
LOGITS = np.concatenate(
    [np.random.default_rng(0).normal(0, 2, (200, 5)), [[0.5] * 5, [-60.0] * 5, [40.0] * 5]]
).astype(np.float32)


@pytest.mark.parametrize("calibrated", [{}, {"": PLATT}, {"": STEPS}, {"": POINT}], ids=str)
def test_one_label(calibrated: dict[str, Any]) -> None:
    found = Calibrators.from_plain({"step": 1, "outputs": calibrated}) if calibrated else None
    outputs = Outputs((), found)
    got = ScoreOutputs(outputs)(torch.from_numpy(LOGITS[:, 0]))
    np.testing.assert_allclose(got, score_array(outputs, LOGITS[:, 0]), rtol=1e-12)


CALIBRATED = Calibrators.from_plain(
    {"step": 1, "outputs": {"click": STEPS, "buy": PLATT, "click_and_buy": PLATT}}
)


@pytest.mark.parametrize("calibration", [CALIBRATED, None], ids=["calibrated", "raw"])
def test_several_tasks_their_chains_and_calibrators(calibration: Calibrators | None) -> None:
    outputs = Outputs(TASKS, calibration)
    got = ScoreOutputs(outputs)(torch.from_numpy(LOGITS)).numpy()
    assert got.shape == (len(LOGITS), len(outputs.names))
    np.testing.assert_allclose(got, score_array(outputs, LOGITS), rtol=1e-12, atol=1e-300)


@pytest.mark.slow
def test_as_a_graph_and_as_an_onnx_file(tmp_path: Path) -> None:
    outputs, changing = Outputs(TASKS, CALIBRATED), [{0: torch.export.Dim.DYNAMIC}]
    sample = (torch.from_numpy(LOGITS[:7]),)
    program = torch.export.export(ScoreOutputs(outputs), sample, dynamic_shapes=changing)
    expected = score_array(outputs, LOGITS)
    got = program.module()(torch.from_numpy(LOGITS)).numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-300)
    onnxruntime = pytest.importorskip("onnxruntime")
    assert write_onnx(program, tmp_path / "scores.onnx") is None
    session = onnxruntime.InferenceSession(str(tmp_path / "scores.onnx"))
    (got,) = session.run(None, {session.get_inputs()[0].name: LOGITS})
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)

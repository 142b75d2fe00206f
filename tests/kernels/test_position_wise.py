"""Compiled position-wise networks: parity with the formula, sizes of every kind, torch's own checks."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any, Literal, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kernels.position_wise import Activation, Norm, available, feed_forward, linear
from kernels.position_wise.ops import ACTIVATIONS, NORMS, forward
from kernels.position_wise.reference import position_wise

if not available(torch.empty(1, 16), 16):
    pytest.skip("this machine has no GCC", allow_module_level=True)

TILE, PIECES = 72, 16  # of position_wise.cpp


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def inputs(
    rows: int,
    sizes: tuple[int, int, int] = (32, 40, 32),
    *,
    norm: str = "layer",
    activation: str = "gelu",
    biases: bool = True,
    seed: int = 0,
) -> list[Tensor | None]:
    """x, gain, shift, w1, b1, w2, b2, as far as these settings have them."""
    wide, hidden, out = sizes
    make = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=make)

    first = {"none": out, "gelu": hidden, "swiglu": 2 * hidden}[activation]
    two = activation != "none"
    return [
        random(rows, wide) * 2 + 0.5,
        None if norm == "none" else 1 + 0.2 * random(wide),
        0.2 * random(wide) if norm == "layer" else None,
        random(first, wide) / wide**0.5,
        0.3 * random(first) if biases else None,
        random(out, hidden) / hidden**0.5 if two else None,
        0.3 * random(out) if biases and two else None,
    ]


def results(given_: list[Tensor | None], settings_: tuple[Any, ...], *, exact: bool) -> list[Tensor]:
    """Output and gradients: of the kernel, or of the formula in float64."""
    dtype = torch.float64 if exact else torch.float32
    leaves = [None if x is None else x.detach().to(dtype).requires_grad_() for x in given_]
    out = (position_wise if exact else forward)(*leaves, *settings_)
    out.backward(torch.randn(out.shape, generator=torch.Generator().manual_seed(9)).to(dtype))
    return [out.detach(), *(cast(Tensor, leaf.grad) for leaf in leaves if leaf is not None)]


def agree(given_: list[Tensor | None], settings_: tuple[Any, ...]) -> None:
    found, wanted = (results(given_, settings_, exact=exact) for exact in (False, True))
    for a, b in zip(found, wanted, strict=True):
        scale = max(1.0, float(b.abs().max())) if b.numel() else 1.0
        torch.testing.assert_close(a.double(), b, atol=1e-5 * scale, rtol=0)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("norm", NORMS)
def test_outputs_and_gradients_are_those_of_the_formula(norm: str, activation: str, residual: bool) -> None:
    for biases, rows in product((False, True), (1, 5, TILE, TILE + 1, 1000)):
        given_ = inputs(rows, norm=norm, activation=activation, biases=biases)
        agree(given_, (norm, 1e-5, activation, residual))


@pytest.mark.parametrize("sizes", [(16, 3, 16), (64, 256, 64), (128, 88, 16), (16, 512, 80), (48, 1, 144)])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_widths_of_every_kind(activation: str, sizes: tuple[int, int, int]) -> None:
    agree(inputs(100, sizes, activation=activation), ("layer", 1e-3, activation, sizes[0] == sizes[2]))


def test_more_rows_than_pieces_of_one_tile() -> None:
    rows = TILE * (2 * PIECES + 3) + 7
    agree(inputs(rows, (16, 16, 16), activation="swiglu"), ("layer", 1e-5, "swiglu", True))


def test_no_rows() -> None:
    for activation in ACTIVATIONS:
        out, dx, *others = results(
            inputs(0, activation=activation), ("layer", 1e-5, activation, True), exact=False
        )
        assert out.shape == dx.shape == (0, 32)
        assert all(not bool(gradient.any()) for gradient in others)


@given(
    rows=st.integers(1, 200),
    wide=st.integers(1, 6),
    hidden=st.integers(1, 70),
    out=st.integers(1, 6),
    norm=st.sampled_from(NORMS),
    activation=st.sampled_from(ACTIVATIONS),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_any_sizes(
    rows: int, wide: int, hidden: int, out: int, norm: str, activation: str, seed: int
) -> None:
    sizes = (16 * wide, hidden, 16 * out)
    given_ = inputs(rows, sizes, norm=norm, activation=activation, biases=bool(seed % 2), seed=seed)
    agree(given_, (norm, 1e-5, activation, wide == out and bool(seed % 3)))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_number_of_threads_changes_no_bit(activation: str) -> None:
    given_, found = inputs(20 * TILE + 5, activation=activation), []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        found.append(results(given_, ("layer", 1e-5, activation, True), exact=False))
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_row_does_not_depend_on_the_others(activation: str) -> None:
    x, *weights = inputs(300, activation=activation)
    assert x is not None
    whole = forward(x, *weights, "layer", 1e-5, activation, True)
    for part in (slice(0, 1), slice(7, 12), slice(70, 299)):
        assert torch.equal(forward(x[part], *weights, "layer", 1e-5, activation, True), whole[part])


@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
def test_large_values_saturate_as_in_the_formula(activation: str) -> None:
    x = torch.tensor([0.0, -0.0, 1e-6, 3.0, -3.0, 12.0, -12.0, 90.0, -90.0, 1e4, -1e4, 1e18, -1e18]).diag()
    x = torch.cat([x, x.new_zeros(len(x), 3)], dim=1)
    one = torch.eye(16)
    w1 = one if activation == "gelu" else torch.cat([one, one])
    rest = (None, None, w1, None, one, None, "none", 0.0, activation, False)
    leaf, exact = x.clone().requires_grad_(), x.double().requires_grad_()
    wide = [r.double() if isinstance(r, Tensor) else r for r in rest]
    out, wanted = forward(leaf, *rest), position_wise(exact, *wide)
    out.sum().backward()
    wanted.sum().backward()
    kept = wanted.abs() < 1e30  # a square of the larger ones has no float32
    torch.testing.assert_close(out.double()[kept], wanted[kept], rtol=1e-6, atol=1e-6)
    assert leaf.grad is not None and exact.grad is not None
    torch.testing.assert_close(leaf.grad.double(), exact.grad, rtol=1e-5, atol=1e-6)


def test_a_nan_stays_in_its_row_and_shows_there() -> None:
    for activation in ACTIVATIONS:
        x, *weights = inputs(100, activation=activation)
        assert x is not None
        x[41, 3] = torch.nan
        bad = forward(x, *weights, "layer", 1e-5, activation, True).isnan()
        assert bool(bad[41].all()) and int(bad.any(dim=1).sum()) == 1


def test_gradients_that_nobody_needs() -> None:
    x, gain, shift, w1, b1, w2, b2 = inputs(80)
    assert x is not None and w1 is not None
    w1.requires_grad_()
    forward(x, gain, shift, w1, b1, w2, b2, "layer", 1e-5, "gelu", True).sum().backward()
    assert x.grad is None and w1.grad is not None
    want = results([x, gain, shift, w1, b1, w2, b2], ("layer", 1e-5, "gelu", True), exact=True)
    assert want
    frozen = w1.detach()
    x.requires_grad_()
    forward(x, gain, shift, frozen, b1, w2, b2, "none", 1e-5, "gelu", True).sum().backward()
    assert x.grad is not None and frozen.grad is None


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("norm", NORMS)
def test_torch_finds_the_operator_well_made(norm: str, activation: str) -> None:
    leaves = [None if x is None else x.requires_grad_() for x in inputs(20, norm=norm, activation=activation)]
    torch.library.opcheck(forward, (*leaves, norm, 1e-5, activation, True))


def test_strided_rows_and_weights() -> None:
    x = torch.randn(50, 64)[:, ::2]
    weight = torch.randn(32, 48).t()
    torch.testing.assert_close(linear(x, weight), x @ weight.t(), atol=1e-4, rtol=0)


def test_the_public_functions() -> None:
    x, gain, shift, w1, b1, w2, b2 = inputs(30)
    assert x is not None and gain is not None and w1 is not None and w2 is not None
    norm = Norm("layer", gain, shift, 1e-5)
    got = feed_forward(x, w1, b1, w2, b2, activation="gelu", norm=norm, residual=True)
    want = position_wise(x, gain, shift, w1, b1, w2, b2, "layer", 1e-5, "gelu", True)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=0)
    plain = linear(x, w2.new_ones(48, 32), norm=Norm("rms", gain, None, 1e-6))
    want = position_wise(x, gain, None, w2.new_ones(48, 32), None, None, None, "rms", 1e-6, "none", False)
    torch.testing.assert_close(plain, want, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"w1": (40, 16)}, "the first weight must be float32"),
        ({"b1": (39,)}, "the first bias must be"),
        ({"b2": (16,)}, "the second bias must be"),
        ({"x": (5, 24)}, "multiples of 16"),
        ({"w2": (48, 40), "b2": (48,)}, "as many outputs as inputs"),
    ],
)
def test_what_does_not_fit_is_refused(wrong: dict[str, tuple[int, ...]], message: str) -> None:
    shapes: dict[str, tuple[int, ...]] = {
        "x": (5, 32),
        "w1": (40, 32),
        "b1": (40,),
        "w2": (32, 40),
        "b2": (32,),
    }
    shapes |= wrong
    if "x" in wrong:
        shapes["w1"] = (40, 24)
    x, w1, b1, w2, b2 = (torch.randn(*shape) for shape in shapes.values())
    with pytest.raises(ValueError, match=message):
        feed_forward(x, w1, b1, w2, b2, activation="gelu", residual=True)


def test_other_dtypes_and_widths_are_not_available() -> None:
    assert not available(torch.empty(4, 32, dtype=torch.float64), 32)
    assert not available(torch.empty(4, 24), 32) and not available(torch.empty(4, 32), 40)
    assert not available(torch.empty(2, 4, 32), 32) and not available(torch.empty(4, 0), 32)
    activation: Activation = cast(Literal["gelu"], "gelu")
    with pytest.raises(ValueError, match="float32"):
        double = torch.empty(4, 32, dtype=torch.float64)
        feed_forward(double, double, None, torch.empty(32, 4), None, activation=activation)


def test_weights_of_another_type_or_place_and_unknown_activations_are_refused() -> None:
    x, w1, w2 = torch.randn(5, 32), torch.randn(40, 32), torch.randn(32, 40)
    for wrong, message in [
        (w2.bfloat16(), "the second weight must be float32"),
        (w2.double(), "the second weight must be float32"),
        (w2.to("meta"), "the second weight must be .* on cpu"),
        (w2.flatten(), "the first weight must be"),
    ]:
        with pytest.raises(ValueError, match=message):
            feed_forward(x, w1, None, wrong, None, activation="gelu")
    none: Activation = cast(Literal["gelu"], "none")
    with pytest.raises(ValueError, match="activation must be one of gelu, swiglu"):
        feed_forward(x, w1, None, w2, None, activation=none)
    norm = Norm("rms", torch.ones(32), torch.ones(32), 1e-6)
    with pytest.raises(ValueError, match="RMSNorm must have no shift"):
        linear(x, w1, norm=norm)


def test_a_second_derivative_is_refused_not_zero() -> None:
    x, weight = torch.randn(5, 32, requires_grad=True), torch.randn(48, 32, requires_grad=True)
    (first,) = torch.autograd.grad(linear(x, weight).pow(3).sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="CTR_NATIVE=0"):
        first.square().sum().backward()

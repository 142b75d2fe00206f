"""Straight lines y = c + b·z_β(x) for many β at once: the part of a power law that is solved exactly.

z_β(x) = ((x/m)^β − 1)/β with m the geometric mean of the measured x; at β = 0 it is log(x/m), its limit. So
αx^β + γ is such a line with α = m^−β b/β and γ = c − b/β, the line's height at z = −1/β.

G values of β, n measurements, P positions.

Source: Golub and Pereyra, SIAM J. Numer. Anal. 10 (1973): linear parameters apart from the others.
"""

from __future__ import annotations

import numpy as np


class Lines:
    """The least-squares line of each β.

    Args:
        betas: float64 (G,).
        u: log(x/m) of the measurements, float64 (n,), at least two of them different.
        y: float64 (n,).
    """

    def __init__(self, betas: np.ndarray, u: np.ndarray, y: np.ndarray) -> None:
        self.betas, self._n = betas, len(u)
        z = basis(betas, u)
        self._mean = z.mean(axis=1)
        centred = z - self._mean[:, None]
        self._spread = (centred**2).sum(axis=1)
        self.slope = (centred @ (y - y.mean())) / self._spread  # b
        self._height = float(y.mean())  # of every line, at its mean z
        residuals = y - self._height - self.slope[:, None] * centred
        self.rss = (residuals**2).sum(axis=1)

    def at(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Heights at P positions, and their variances in units of a measurement's, each (G, P)."""
        return self.at_z(basis(self.betas, np.asarray(u, dtype=np.float64)))

    def at_z(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same for positions given as z, (G, P)."""
        away = z - self._mean[:, None]
        value = self._height + self.slope[:, None] * away
        return value, 1 / self._n + away**2 / self._spread[:, None]

    def slope_variance(self) -> np.ndarray:
        """Of b, in units of a measurement's variance, (G,)."""
        return 1 / self._spread


def basis(betas: np.ndarray, u: np.ndarray) -> np.ndarray:
    """z_β: (e^(βu) − 1)/β, and u where β = 0.

    Args:
        betas: (G,).
        u: log(x/m), (P,).

    Returns:
        float64 (G, P).

    Example:
        >>> basis(np.array([0.0, 1.0]), np.log([1.0, 2.0])).round(4).tolist()
        [[0.0, 0.6931], [0.0, 1.0]]
    """
    beta = betas[:, None]
    flat = beta == 0
    return np.where(flat, u, np.expm1(beta * u) / np.where(flat, 1.0, beta))

"""The hyperplanes on which sigma' jumps, seen by the weights of one neuron.

To a neuron with sigma(z) = z for z > 0 and leak z elsewhere a sample x_i is the hyperplane
w . x_i = 0 in the space of its input weights. Samples on one line through 0 share a hyperplane:
of those with its unit normal v the ones along v are active above it, the others below. Where the
neuron is says for each plane which of two forces it contributes,

    dw/dtau = -u sum_h F_h v_h,  du/dtau = -w . sum_h F_h v_h,  u = sqrt(mobility ratio) a,

F_h being linear in e, one way above the plane and another below it (`Hyperplanes.forces`). So
u^2 - |w|^2 never changes, and without any sum over samples the neuron knows all that it needs of
the data.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from flowsim.kernels.interface import TwoLayerField

_PARALLEL = 1e-12
"""Distance of two unit normals that are one."""


@dataclass(frozen=True)
class Hyperplanes:
    """Hyperplanes of a two-layer field, and what a neuron on either side of them feels and gives.

    Attributes
    ----------
    normals : (d, planes) float64 array
        Unit vectors.
    plane : (n,) int64 array
        Each sample's hyperplane.
    along : (n,) float64 array
        x_i . normal: its sign is that of the side on which the sample is active.
    leak : float
        sigma'(z) where z < 0.
    ratio : float
        u / a, the root of the ratio of the mobilities.
    speed : float
        Rate at which a unit force moves (u, w): the root of the product of the mobilities, times
        the multiplier.
    multiplier : float
        Of f = multiplier sum_k a_k sigma(w_k . x).
    """

    normals: np.ndarray
    plane: np.ndarray
    along: np.ndarray
    leak: float
    ratio: float
    speed: float
    multiplier: float

    @classmethod
    def of(cls, field: TwoLayerField) -> Self:
        """The hyperplanes of a field.

        Raises
        ------
        ValueError
            If sigma is not piecewise linear, or a layer does not move.
        """
        leak = field.activation.leak
        if leak is None or not field.activation.kinked:
            raise ValueError(f"activation {field.activation.name!r} is not piecewise linear")
        if not (field.output_mobility > 0.0 and field.input_mobility > 0.0):
            raise ValueError("a layer with mobility 0 does not move")
        normals: list[np.ndarray] = []
        plane = np.zeros(len(field.x), np.int64)
        along = np.zeros(len(field.x))
        for i, x in enumerate(field.x):
            length = float(np.linalg.norm(x))
            if length == 0.0:
                continue  # f is 0 there for all weights
            for h, normal in enumerate(normals):
                sign = 1.0 if x @ normal > 0.0 else -1.0
                if np.linalg.norm(sign * x / length - normal) < _PARALLEL:
                    plane[i], along[i] = h, sign * length
                    break
            else:
                plane[i], along[i] = len(normals), length
                normals.append(x / length)
        ratio = np.sqrt(field.input_mobility / field.output_mobility)
        speed = field.multiplier * np.sqrt(field.input_mobility * field.output_mobility)
        table = np.array(normals).reshape(-1, field.x.shape[1]).T
        return cls(
            np.ascontiguousarray(table), plane, along, leak, float(ratio), float(speed),
            field.multiplier,
        )  # fmt: skip

    @property
    def n_planes(self) -> int:
        """How many there are: n, or fewer."""
        return self.normals.shape[1]

    def sides(self, w: np.ndarray) -> np.ndarray:
        """Pattern (planes, neurons) int8 of input weights w (d, neurons).

        0 where a preactivation is 0, which the first window decides.
        """
        return np.sign(self.normals.T @ w).astype(np.int8)

    @cached_property
    def slopes(self) -> np.ndarray:
        """sigma' of each sample (3, n) below, on and above its plane; 0 on it: see `forces`."""
        active = np.where(self.along > 0.0, 1.0, self.leak)
        other = np.where(self.along > 0.0, self.leak, 1.0)
        return np.stack([other, np.zeros_like(active), active])

    @cached_property
    def _forces(self) -> np.ndarray:
        """Derivatives (2, planes, n) of the forces below and above by e."""
        forces = np.zeros((2, self.n_planes, len(self.plane)))
        samples = np.arange(len(self.plane))
        used = self.along != 0.0
        for side, slopes in enumerate(self.slopes[::2]):
            values = self.speed / len(samples) * self.along * slopes
            forces[side, self.plane[used], samples[used]] = values[used]
        return forces

    def forces(self, residual: np.ndarray) -> np.ndarray:
        """Forces (2, planes, ...) below and above each plane, for e (n, ...).

        On a plane a neuron feels neither: it takes whatever between the two keeps it there.
        """
        return self._forces @ residual

    def outputs(self, sums: np.ndarray) -> np.ndarray:
        """f (..., n) for the sums (..., planes + d) over neurons of u max(z, 0) and of u w.

        z = w . normal counts as 0 for who is held on the plane.
        """
        above, flux = sums[..., : self.n_planes], sums[..., self.n_planes :]
        if not self.n_planes:
            return np.zeros((*sums.shape[:-1], len(self.plane)))
        below = above - flux @ self.normals
        above, below = above[..., self.plane], below[..., self.plane]
        forward = self.along > 0.0
        ahead, behind = np.where(forward, above, below), np.where(forward, below, above)
        scale = self.multiplier / self.ratio * np.abs(self.along)
        return np.asarray(scale * (ahead - self.leak * behind))

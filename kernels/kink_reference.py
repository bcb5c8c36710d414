"""Windows in plain NumPy: Euler's method with a great many steps, and no notion of a kink.

Along a given path of the forces each neuron is a small system whose velocity jumps at planes. Of
steps that go to 0 the limit is Filippov's solution, whatever it does: crosses, slides, leaves. So
this is the oracle of what passes kinks one by one, right to a few parts in `STEPS`.
"""

from __future__ import annotations

import numpy as np

from flowsim.kernels.hyperplanes import Hyperplanes
from flowsim.kernels.interface import TwoLayerField

STEPS = 20_000
"""Of a window."""

_ON_PLANE = 20.0
"""Last steps within which a neuron that is on a plane has been, times its speed."""


class ReferenceKinks:
    """`flowsim.kernels.kink_interface.Kinks` in NumPy.

    Parameters
    ----------
    field : TwoLayerField

    Raises
    ------
    ValueError
        See `Hyperplanes.of`.
    """

    def __init__(self, field: TwoLayerField) -> None:
        self.planes = Hyperplanes.of(field)
        self._field = field

    def pass_window(
        self,
        theta: np.ndarray,
        pattern: np.ndarray,
        forces: np.ndarray,
        nodes: np.ndarray,
        out: np.ndarray,
        out_pattern: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        planes, powers = self.planes, np.arange(forces.shape[2])
        u, w = planes.ratio * theta[0], theta[1:].copy()
        counts, rows, begin = np.zeros(5, np.int64), [], 0.0
        for node in nodes:
            steps = max(1, int(np.ceil(STEPS * (node - begin))))
            length = (node - begin) / steps
            for x in begin + length * (np.arange(steps) + 0.5):
                below, above = forces @ x**powers
                z = planes.normals.T @ w
                pull = planes.normals @ np.where(z > 0.0, above[:, None], below[:, None])
                u, w = u - length * (pull * w).sum(axis=0), w - length * u * pull
            begin = node
            z = planes.normals.T @ w
            rows.append(np.concatenate([np.maximum(z, 0.0) @ u, w @ u]))
        # A neuron that slides is thrown from side to side within a step of its plane.
        near = _ON_PLANE * length * np.abs(u) * np.abs(forces).sum(axis=2).max(axis=0)[:, None]
        out_pattern[:] = np.where(np.abs(z) <= near, 0, np.sign(z))
        out[0], out[1:] = u / planes.ratio, w
        return np.array(rows), counts

    def gram(self, theta: np.ndarray, pattern: np.ndarray) -> np.ndarray:
        planes, field = self.planes, self._field
        a, w = theta[0], theta[1:]
        slopes = planes.slopes[pattern[planes.plane] + 1, np.arange(len(field.x))[:, None]]
        values = slopes * (field.x @ w)
        gram = field.output_mobility * values @ values.T
        for k in range(len(a)):
            normals = planes.normals[:, pattern[:, k] == 0]
            # What is left of a neuron's freedom: the null space of the planes that hold it.
            free = np.eye(len(w)) - normals @ np.linalg.pinv(normals)
            moved = (slopes[:, k] * a[k])[:, None] * (field.x @ free)
            gram += field.input_mobility * moved @ moved.T
        return np.asarray(field.multiplier**2 * gram)

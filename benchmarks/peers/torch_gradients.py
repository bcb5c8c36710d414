"""Deep networks and their losses in PyTorch, differentiated by autograd."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from flowsim.kernels.interface import DeepField

SIGMA: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": torch.relu,
    "leaky_relu": lambda z: torch.nn.functional.leaky_relu(z, 0.01),
    "tanh": torch.tanh,
    "erf": torch.erf,
    "gelu": torch.nn.functional.gelu,
    "elu": torch.nn.functional.elu,
    # From its threshold on it returns z: by default from 20, where that is wrong by 2e-9.
    "softplus": lambda z: torch.nn.functional.softplus(z, threshold=500.0),
    "silu": torch.nn.functional.silu,
    "linear": lambda z: z,
    "x_tanh_x": lambda z: z * torch.tanh(z),
    "x2_tanh_x": lambda z: z * z * torch.tanh(z),
}
"""Activations by the names that flowsim has for them."""

RISKS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "square": lambda f, y: 0.5 * torch.sum((f - y) ** 2) / len(y),
    "logistic": lambda f, y: torch.nn.functional.soft_margin_loss(f, y),
    "softmax": lambda f, y: torch.nn.functional.cross_entropy(f, y),
}
"""R by the names of the losses."""


class TorchNetwork:
    """One state of a network.

    Parameters
    ----------
    field : DeepField
    theta : (copies, parameters) array
    y : (n,) or (n, o) array
    loss : str
    """

    def __init__(self, field: DeepField, theta: np.ndarray, y: np.ndarray, loss: str) -> None:
        self.field = field
        self.theta = torch.tensor(theta, requires_grad=True)
        f = torch.stack([self._outputs(row) for row in self.theta]).sum(dim=0)
        risk = RISKS[loss](f, torch.tensor(y.reshape(len(y), -1)))
        risk.backward()
        self.risk = float(risk.detach())

    def _outputs(self, row: torch.Tensor) -> torch.Tensor:
        """f (n, o) of one copy."""
        field, layout, signal = self.field, self.field.layout, torch.tensor(self.field.x)
        for layer, multiplier in enumerate(field.multipliers):
            fan_in, fan_out = layout.sizes[layer : layer + 2]
            own = row[layout.bounds[layer] : layout.bounds[layer + 1]]
            weights = own[: fan_in * fan_out].reshape(fan_in, fan_out)
            signal = float(multiplier) * (signal @ weights)
            bias = own[fan_in * fan_out :]
            if len(bias):
                assert field.bias_multipliers is not None
                signal = signal + float(field.bias_multipliers[layer]) * bias
            if layer < len(field.widths):
                signal = SIGMA[field.activation.name](signal)
        return signal

    def rates(self) -> np.ndarray:
        """d theta / d time (copies, parameters): minus mobilities times autograd's gradient."""
        assert self.theta.grad is not None
        lengths = np.diff(self.field.layout.bounds)
        return -np.repeat(self.field.mobilities, lengths) * self.theta.grad.numpy()

"""The tangent kernel K of infinitely wide networks at t = 0, in flowsim's variables and time.

Going through the layers with their multipliers M_l, mobilities and widths m_l (m_0 = 1, A_0 = x),

    C_1 = M_1^2 x x^T,   C_(l+1) = M_(l+1)^2 m_l E sigma sigma + (variance of biases),
    G_(L+1) = copies,    G_l = M_(l+1)^2 m_l G_(l+1) E sigma' sigma',
    K = sum_l mobility_l (M_l^2 m_(l-1) E sigma sigma + N_l^2) G_l,

entry by entry, with the means over preactivations of covariance C_(l-1) and C_l (Jacot, Gabriel &
Hongler, NeurIPS 2018). Two layers are the case M = (1, kappa), mobilities (kappa'/kappa,
1/(kappa kappa')):

    K = copies kappa m (E sigma sigma / kappa' + kappa' E sigma' sigma' x.x').

The widths stay in it: K is what that of a network of this width fluctuates about, and at gamma =
1/2 it grows like m^(1/2), since tau = t/alpha.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flowsim.errors import ConfigError
from flowsim.kernels.activations import Activation
from flowsim.limits.dual import scaled_dual
from flowsim.networks.deep import DeepNetwork
from flowsim.networks.two_layer import TwoLayerNetwork


@dataclass(frozen=True)
class _Chain:
    """A network as the recursion sees it: numbers of its layers, from the input layer on."""

    activation: Activation
    scale: float
    widths: tuple[int, ...]
    multipliers: np.ndarray
    mobilities: np.ndarray
    bias_multipliers: np.ndarray
    bias_variance: float
    copies: int

    @classmethod
    def of(cls, network: TwoLayerNetwork | DeepNetwork) -> _Chain:
        nowhere = np.zeros((1, 1))
        if isinstance(network, TwoLayerNetwork):
            field = network.field_on(nowhere)
            return cls(
                network.activation,
                field.activation_scale,
                (network.width,),
                np.array([1.0, field.multiplier]),
                np.array([field.input_mobility, field.output_mobility]),
                np.zeros(2),
                0.0,
                2 if network.antisymmetric else 1,
            )
        deep = network.field_on(nowhere)
        if any(network.scaling.means):
            raise ConfigError(
                "scaling.scheme: its initial weights have a mean, for which there is no kernel "
                "limit; take a centred scheme such as ntk"
            )
        biases = np.zeros(len(deep.multipliers))
        if deep.bias_multipliers is not None:
            biases[1:] = deep.bias_multipliers[1:]
        variance = network.scaling.bias_std**2 if network.biases else 0.0
        return cls(
            network.activation, 1.0, network.widths, deep.multipliers, deep.mobilities, biases,
            variance, network.copies,
        )  # fmt: skip


def kernel_grams(
    network: TwoLayerNetwork | DeepNetwork, x: np.ndarray, other: np.ndarray | None = None
) -> np.ndarray:
    """Limit of each layer's Gram matrix of the derivative of f, without mobilities.

    Parameters
    ----------
    network : TwoLayerNetwork or DeepNetwork
        In normalised variables. Of several outputs each has this kernel, and they have nothing to
        do with each other.
    x : (n, d) array
        Inputs, bias coordinate included.
    other : (k, d) array, optional
        By default ``x``.

    Returns
    -------
    (layers, n, k) float64 array
        From the input layer on.

    Raises
    ------
    ConfigError
        If the initial weights have a mean.
    """
    chain = _Chain.of(network)
    x = np.asarray(x, np.float64)
    other = x if other is None else np.asarray(other, np.float64)
    # Of sigma's arguments: their variances on either side, and their covariances.
    inputs = np.einsum("nd,nd->n", x, x), np.einsum("kd,kd->k", other, other), x @ other.T
    handed_on: list[tuple[np.ndarray, ...]] = [inputs]
    slopes: list[np.ndarray] = []
    for layer, width in enumerate(chain.widths):
        variance = chain.bias_variance if layer > 0 else 0.0
        q, p, c = (chain.multipliers[layer] ** 2 * part + variance for part in handed_on[-1])
        value, slope = scaled_dual(chain.activation, chain.scale, q[:, None], p[None, :], c)
        own = [scaled_dual(chain.activation, chain.scale, side, side, side)[0] for side in (q, p)]
        handed_on.append((width * own[0], width * own[1], width * value))
        slopes.append(width * slope)
    grams, back = np.empty((len(chain.multipliers), *handed_on[0][2].shape)), float(chain.copies)
    behind: np.ndarray = np.full(handed_on[0][2].shape, back)
    for layer in reversed(range(len(grams))):
        multiplier = chain.multipliers[layer] ** 2
        reach = multiplier * handed_on[layer][2] + chain.bias_multipliers[layer] ** 2
        grams[layer] = reach * behind
        if layer > 0:
            behind = behind * multiplier * slopes[layer - 1]
    return grams


def limit_kernel(
    network: TwoLayerNetwork | DeepNetwork, x: np.ndarray, other: np.ndarray | None = None
) -> np.ndarray:
    """K (n, k) between inputs, in 1/tau: the layers' Gram matrices with their mobilities.

    Parameters and errors are those of `kernel_grams`.
    """
    return np.tensordot(_Chain.of(network).mobilities, kernel_grams(network, x, other), axes=1)

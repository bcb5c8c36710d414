"""Dense objects in all the weights of a small flow: Phi, M, J, and states moved along."""

import numpy as np
from test_products import dense

from flowsim.kernels.interface import LEAST_PIVOT


def phi_of(flow, theta):
    """Phi (weights, n) and the mobility of every weight, from products tested elsewhere."""
    columns, scaled, slope = [], [], flow.empty(1)[0]
    for unit in np.eye(flow.y.size):
        cotangent = unit.reshape(flow.y.shape)
        flow.vjp(theta, cotangent, slope, mobilities=False)
        columns.append(dense(flow, slope).reshape(-1))
        flow.vjp(theta, cotangent, slope)
        scaled.append(dense(flow, slope).reshape(-1))
    phi, scaled = np.array(columns).T, np.array(scaled).T
    some = np.argmax(np.abs(phi), axis=1)
    rows = np.arange(len(phi))
    largest = phi[rows, some]
    # A weight that moves nothing may have any mobility.
    return phi, np.divide(scaled[rows, some], largest, out=np.ones(len(phi)), where=largest != 0.0)


def jacobian_of(flow, theta, hessian):
    """J = -M Phi H Phi^T / n (weights, weights) for a diagonal H (n o,)."""
    phi, mobilities = phi_of(flow, theta)
    return (
        -(mobilities[:, None] * phi) @ (np.reshape(hessian, -1)[:, None] * phi.T) / flow.n_samples
    )


def rate_of(flow, theta, residual=None):
    """d theta / dtau (weights,)."""
    slope = flow.empty(1)[0]
    flow.rate(theta, flow.residual(theta) if residual is None else residual, slope)
    return dense(flow, slope).reshape(-1)


def moved(flow, theta, change):
    """A state at some distance (weights,) from another."""
    values = np.array(theta, np.float64)
    return flow.state(values + np.reshape(change, values.shape))


def block_diagonal(blocks):
    """Blocks (neurons, 1 + d, 1 + d) as one matrix of all weights, in the order of a state."""
    neurons, rows, _ = blocks.shape
    full = np.zeros((rows, neurons, rows, neurons))
    for k, block in enumerate(blocks):
        full[:, k, :, k] = block
    return full.reshape(rows * neurons, rows * neurons)


def straightened(field, own, size):
    """Set the blocks without safe pivots to 0, by the eigenvalues' signs; return how many."""
    roots = np.sqrt([field.output_mobility, *[field.input_mobility] * field.x.shape[1]])
    count = 0
    for block in own:
        symmetric = np.eye(len(roots)) - size * block / roots[:, None] * roots
        minors = [np.linalg.det(symmetric[:k, :k]) for k in range(len(roots) + 1)]
        pivots = np.divide(minors[1:], minors[:-1])
        if min(pivots) < LEAST_PIVOT:
            block[:] = 0.0
            count += 1
    return count

"""K along a run, read from its file, and the decay of the loss beside its spectrum."""

import numpy as np
import pytest
from flows import PUBLISHED_X, PUBLISHED_Y
from synthetic_runs import write_run

import flowsim as fs
from flowsim.analysis.kernels import kernel_history, loss_decay
from flowsim.errors import FileFormatError
from flowsim.recording.reader import open_run


def test_the_loss_of_one_mode_decays_at_its_rate(tmp_path):
    with open_run(write_run(tmp_path / "run.h5")) as run:
        decay, history = loss_decay(run), kernel_history(run)
    # Made up so that all of e decays as the slowest mode.
    np.testing.assert_allclose(decay.rate, decay.least, rtol=1e-9)
    assert (decay.most > 1.9 * decay.least).all()
    assert history.alignment is None
    np.testing.assert_allclose(2.0 * history.rates[0, 0], decay.least[0], rtol=1e-12)


def simulate(**record):
    return fs.simulate(
        network={"width": 200},
        scaling={"gamma": 0.5, "gamma_prime": 0.0},
        x=PUBLISHED_X[:, :1],
        y=PUBLISHED_Y,
        integrate={"stop_loss": 1e-6, "threads": 1},
        record=record,
    )


def test_a_run_decays_between_the_rates_of_its_kernel():
    run = simulate(
        kernel={"schedule": "steps", "every": 1},
        observables={"schedule": "steps", "every": 1},
        separate={"kernel_alignment": {"schedule": "log", "per_decade": 2}},
    )
    decay, history = loss_decay(run), kernel_history(run)
    # Steps are of finite size; the bounds hold for the flow.
    assert (decay.rate > 0.9 * decay.least).all()
    assert (decay.rate < 1.1 * decay.most).all()
    assert decay.rate[-1] == pytest.approx(decay.least[-1], rel=0.05)
    assert history.distance[0] == 0.0
    assert history.alignment.shape == (len(history.alignment_time), 3)


def test_a_run_without_a_kernel_says_so():
    with pytest.raises(FileFormatError, match=r"record\.kernel"):
        kernel_history(simulate())

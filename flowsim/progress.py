"""The progress line of a single run: loss, tau, step size, rejected share."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from flowsim.steppers.events import StopRules

_EVERY_SECONDS = 0.1


@contextmanager
def show_progress(wanted: bool, rules: StopRules) -> Iterator[Callable[..., None] | None]:
    """Show a bar on standard error while a run lasts, or nothing where that is no terminal.

    The bar follows log R on its way to stop_loss, or tau on its way to t_max, whichever is
    further along.

    Parameters
    ----------
    wanted : bool
    rules : StopRules

    Yields
    ------
    callable or None
        ``callable(point, counters, attempt)``, to be called after every step.
    """
    if not (wanted and sys.stderr.isatty()):
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        BarColumn(),
        TextColumn("{task.fields[state]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("run", total=1.0, state="starting")
        first_loss: list[float] = []
        last_shown = [0.0]

        def update(point: Any, counters: Any, attempt: Any) -> None:
            if not point.watched:
                return  # R would have to be computed only to be shown
            if not first_loss:
                first_loss.append(point.loss)
            now = time.monotonic()
            if now - last_shown[0] < _EVERY_SECONDS:
                return
            last_shown[0] = now
            rejected = counters.n_rejected / (counters.n_steps + counters.n_rejected)
            bar.update(
                task,
                completed=_share_done(point, first_loss[0], rules),
                state=f"R {point.loss:.3e}  tau {point.time:.4g}  step {attempt.step:.3g}"
                f"  rejected {rejected:.0%}",
            )

        yield update


def _share_done(point: Any, first_loss: float, rules: StopRules) -> float:
    by_time = point.time / rules.t_max if math.isfinite(rules.t_max) else 0.0
    by_loss = 0.0
    if rules.stop_loss > 0.0 and first_loss > rules.stop_loss and point.loss > 0.0:
        by_loss = math.log(first_loss / point.loss) / math.log(first_loss / rules.stop_loss)
    return min(max(by_time, by_loss, 0.0), 1.0)

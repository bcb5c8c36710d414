"""Run one benchmark, or all that take no references: ``python -m benchmarks [NAME] [--quick]``."""

from __future__ import annotations

import argparse
from importlib import import_module

BENCHMARKS = {
    "work_precision": "error of RD against cost, every method, the published problem",
    "invariants": "conserved quantities, monotone loss, orders of the tableaux",
    "gradients": "rates of random deep networks against PyTorch's autograd",
    "activations": "a number through each smooth activation, against the C library, NumPy, PyTorch",
    "rhs": "residual and gradient against other programs and the machine's roofline",
    "steps": "what a step costs above its right-hand sides, or above a copy of the state",
    "width": "cost and memory against the width, to fifty million neurons",
    "deep": "a step of three layers against copies of the largest matrix, and against BLAS",
    "deep_facts": "exact facts, powers of m and wide limits of deep networks, measured",
    "threads": "what a second thread gains, pass by pass",
    "ensemble": "networks a second, a thousand small ones, against other solvers",
    "sweep": "the published phase diagram, sweeps under kill -9, what an engine costs a task",
    "stiff": "gradients and seconds in a stiff tail against error, beside other solvers",
    "stiff_costs": "a step of implicit and stabilised methods against the width and the samples",
    "auto": "auto beside the best single method at equal error, on five kinds of flows",
    "paths": "what a pass costs each way; makes the table that the choice is made by",
    "controllers": "attempts of rival step-size controllers",
    "recording": "what saving costs: plain, recorded, with checkpoints",
    "kinks": "kinks passed one by one: errors of RD, passes, problems at random (15 minutes)",
    "limits": "networks against their limits of infinite width; condensation (20 minutes)",
    "durability": "runs killed, stopped and starved at random moments (half an hour)",
    "gpu": "the backend cuda: right-hand sides, steps and a run of 1e8 neurons, on a GPU",
    "gpu_ensemble": "the backend cuda: ten thousand networks of width 1,000, on a GPU",
    "reference": "make the frozen references that are missing (minutes)",
}
"""Modules of this package, each with ``main(quick)``, and what they measure."""

NOT_BY_DEFAULT = ("reference", "durability", "kinks", "limits")


def main() -> None:
    """Parse the command line and run."""
    listing = "\n".join(f"  {name:<16} {text}" for name, text in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=f"Benchmarks of flowsim:\n{listing}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "name",
        nargs="?",
        choices=BENCHMARKS,
        help="by default all but reference, durability, kinks, limits",
    )
    parser.add_argument(
        "--quick", action="store_true", help="a small part, printed and not written"
    )
    arguments = parser.parse_args()
    default = [name for name in BENCHMARKS if name not in NOT_BY_DEFAULT]
    for name in [arguments.name] if arguments.name else default:
        import_module(f"benchmarks.{name}").main(arguments.quick)


if __name__ == "__main__":
    main()

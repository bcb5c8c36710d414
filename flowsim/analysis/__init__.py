"""Slopes, regimes and figures, read from run files only.

Everything is imported at first use, so that asking for a slope loads no plotting library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowsim.analysis.classification import Classification, LayerVerdict, Point
    from flowsim.analysis.comparison import Comparison, compare
    from flowsim.analysis.figures import FIGURES, plot
    from flowsim.analysis.regimes import classify
    from flowsim.analysis.slopes import SlopeFit, fit_slope
    from flowsim.analysis.zero_line import ZeroPoint, zero_crossings

_EXPORTS = {
    "Classification": "classification",
    "LayerVerdict": "classification",
    "Point": "classification",
    "Comparison": "comparison",
    "compare": "comparison",
    "FIGURES": "figures",
    "plot": "figures",
    "classify": "regimes",
    "SlopeFit": "slopes",
    "fit_slope": "slopes",
    "ZeroPoint": "zero_line",
    "zero_crossings": "zero_line",
}

__all__ = [
    "FIGURES",
    "Classification",
    "Comparison",
    "LayerVerdict",
    "Point",
    "SlopeFit",
    "ZeroPoint",
    "classify",
    "compare",
    "fit_slope",
    "plot",
    "zero_crossings",
]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)

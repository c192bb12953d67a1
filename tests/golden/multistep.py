"""diffusers' LMS without scipy, of which it takes one integral: of a cubic, which two points of Gauss give exactly."""

from __future__ import annotations

import functools
import importlib
import math
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any
from unittest.mock import patch


def quad(function: Callable[[float], float], start: float, end: float, **more: Any) -> tuple[float, float]:
    """The integral of a polynomial up to degree 3, and an error of 0."""
    middle, half = (start + end) / 2, (end - start) / 2
    return half * (function(middle - half / math.sqrt(3)) + function(middle + half / math.sqrt(3))), 0.0


@functools.cache
def _module() -> Any:
    scipy, integrate, stats = ModuleType("scipy"), ModuleType("scipy.integrate"), ModuleType("scipy.stats")
    integrate.quad = quad  # type: ignore[attr-defined]
    scipy.integrate, scipy.stats = integrate, stats  # type: ignore[attr-defined]
    stubs = {"scipy": scipy, "scipy.integrate": integrate, "scipy.stats": stats}
    with patch.dict(sys.modules, stubs):
        return importlib.import_module("diffusers.schedulers.scheduling_lms_discrete")


def lms_scheduler(**config: Any) -> Any:
    """diffusers' LMSDiscreteScheduler."""
    return _module().LMSDiscreteScheduler(**config)

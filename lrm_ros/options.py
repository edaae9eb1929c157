# SPDX-License-Identifier: Apache-2.0
"""Numbers on command lines: types for argparse that refuse what no program can mean, with the lowest that it can."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable


def whole(least: int) -> Callable[[str], int]:
    """Return a type for whole numbers from ``least`` on."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"'{text}': give a whole number from {least} on")
        return value

    return read


def number(least: float = 0.0, above: bool = False) -> Callable[[str], float]:
    """Return a type for finite numbers from ``least`` on, or above it."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (value > least if above else value >= least) or math.isinf(value):
            where = f"above {least:g}" if above else f"from {least:g} on"
            raise argparse.ArgumentTypeError(f"'{text}': give a number {where}")
        return value

    return read

"""Colours as screens show them, and in linear light, as glTF counts: both from 0 to 1.

Source: https://www.w3.org/Graphics/Color/srgb.  Imports numpy: for child processes only.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]


def to_linear(colours: Floats) -> Floats:
    return np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)


def from_linear(colours: Floats) -> Floats:
    bounded = colours.clip(0, 1)
    return np.where(bounded <= 0.0031308, bounded * 12.92, 1.055 * bounded ** (1 / 2.4) - 0.055)

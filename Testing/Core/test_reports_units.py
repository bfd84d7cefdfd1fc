"""The unit of an image changes nothing: every method finds the same transform; see docs/reports.md."""

import numpy as np
import pytest

from MMRegCore import register
from MMRegCore.config import load_preset, with_changes
from quick import QUICK, QUICK_MCBO
from scenes import box, error_mm, inner_points, scene

pytestmark = pytest.mark.slow

DNS_CHANGES = {"working_spacing_mm": "1.5"}
METHODS = {"lc2": QUICK, "mcbo": QUICK_MCBO, "dns": with_changes(load_preset("dns"), DNS_CHANGES)}


def moved(points):
    return points + np.array([1.5, -1.0, 0.5])


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("scale", "offset"), [(1e-12, 0.0), (1e12, 0.0), (1.0, 300.0)])
def test_methods(name, scale, offset):
    grid = box((22, 24, 26), 1.5)
    fixed, moving = scene(grid, moved, name="us"), scene(grid, inverted=True, name="mr")

    def found(factor, shift):
        images = [image.with_data((image.data.double() * factor + shift * factor).float()) for image in (fixed, moving)]
        return register(*images, settings=METHODS[name], device="cpu").transform

    one, two = found(1.0, 0.0), found(scale, offset)
    points = inner_points(grid)
    assert np.abs(one.apply(points) - two.apply(points)).max() < 0.05
    assert error_mm(one, moved, grid) == pytest.approx(error_mm(two, moved, grid), abs=0.05)

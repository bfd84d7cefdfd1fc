"""A second search, further off, where the first one's result would be rejected."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from known_motion import texture
from MMRegCore import SpatialTransform, Volume, load_preset, register
from MMRegCore.config import Lc2Settings, RegistrationSettings
from MMRegCore.geometry import Grid
from MMRegCore.similarity import lc2_regressors

SIZE, CORE = 78, 30
SETTINGS = RegistrationSettings(
    method="lc2",
    margin_mm=5.0,
    lc2=Lc2Settings(lattice_mm=(2.0, 1.0), radius=(2, 2), reach_mm=6.0, wide_reach_mm=18.0, iterations=10),
)
OFF_MM = np.array([14.0, -11.0, 9.0])


@pytest.fixture(scope="module")
def pair() -> tuple[Volume, Volume]:
    """An ultrasound in the middle of an MR, with the MR's structure and noise."""
    moving = Volume(texture(1, SIZE)[0], Grid((SIZE,) * 3, np.eye(4)), name="MR")
    seen = lc2_regressors(moving.data[None], torch.ones(1, 1, SIZE, SIZE, SIZE))
    low = (SIZE - CORE) // 2
    part = (..., *[slice(low, low + CORE)] * 3)
    noise = 0.2 * torch.randn((1, CORE, CORE, CORE), generator=torch.Generator().manual_seed(3))
    fixed = (seen[:, :1] + 0.5 * seen[:, 1:])[part][0] + noise
    at = np.eye(4)
    at[:3, 3] = low
    return Volume(fixed, Grid((CORE,) * 3, at), name="US"), moving


def error_mm(
    pair: tuple[Volume, Volume], settings: RegistrationSettings, off_mm: np.ndarray, *, second: str | None
) -> float:
    start = np.eye(4)
    start[:3, 3] = off_mm
    found = register(*pair, settings=settings, initial_transform=SpatialTransform.from_matrix(start))
    assert found.provenance["second_search"] == second
    points = pair[0].grid.points_ras()[::5, ::5, ::5].reshape(-1, 3)
    return float(np.linalg.norm(found.transform.apply(points) - points, axis=1).mean())


def test_what_the_first_search_cannot_reach_is_found_by_the_second(pair):
    narrow = replace(SETTINGS, lc2=replace(SETTINGS.lc2, wide_reach_mm=0.0))
    assert error_mm(pair, narrow, OFF_MM, second=None) > 5
    assert error_mm(pair, SETTINGS, OFF_MM, second="used") < 1


def test_where_nothing_is_related_nothing_that_was_found_far_off_counts(pair):
    fixed, moving = pair
    noise = torch.randn(fixed.data.shape, generator=torch.Generator().manual_seed(4))
    result = register(fixed.with_data(noise), moving, settings=SETTINGS)
    assert result.provenance["second_search"] == "in doubt"
    assert result.assessment.numbers["verdict"]["level"] == "reject"
    assert float(np.abs(result.transform.apply(fixed.grid.corners_ras()) - fixed.grid.corners_ras()).max()) < 8


def test_settings_of_the_second_search():
    wide = load_preset("lc2").widened()
    assert wide is not None
    assert (wide.lc2.reach_mm, wide.margin_mm) == (24.0, 32.0)
    assert wide.widened() is None
    assert load_preset("mcbo").widened() is None
    assert load_preset("mcbo-published").widened() is None

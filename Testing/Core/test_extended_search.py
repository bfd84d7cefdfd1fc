"""A second search over the extended range, where the first one's result would be rejected."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from known_motion import texture
from MMRegCore import Volume, load_preset, register
from MMRegCore.config import with_changes
from MMRegCore.similarity.lc2 import Lc2
from quick import QUICK
from scenes import box, error_mm, translation

pytestmark = pytest.mark.slow

SIZE, CORE = 78, 30
SETTINGS = with_changes(
    QUICK,
    {
        "working_spacing_mm": 1.0,
        "margin_mm": 5.0,
        "lc2.search.sampling_spacing_mm": "2,1",
        "lc2.search.starts": 512,
        "lc2.search.range_deg": 2.0,
        "lc2.search.extended_range_mm": 12.0,
    },
)
OFFSET_MM = np.array([14.0, -11.0, 9.0])


@pytest.fixture(scope="module")
def pair() -> tuple[Volume, Volume]:
    """An ultrasound in the middle of an MR, with the MR's structure and noise."""
    moving = Volume(texture(1, SIZE)[0], box((SIZE,) * 3), name="MR")
    explaining = Lc2().encode_moving(moving.data[None], torch.ones(1, 1, SIZE, SIZE, SIZE))
    low = (SIZE - CORE) // 2
    part = (..., *[slice(low, low + CORE)] * 3)
    noise = 0.2 * torch.randn((1, CORE, CORE, CORE), generator=torch.Generator().manual_seed(3))
    fixed = (explaining[:, :1] + 0.5 * explaining[:, 1:])[part][0] + noise
    return Volume(fixed, box((CORE,) * 3), name="US"), moving


def found_error_mm(pair: tuple[Volume, Volume], changes: Mapping[str, object], *, second: str | None) -> float:
    settings = with_changes(SETTINGS, changes)
    found = register(*pair, settings=settings, initial_transform=translation(OFFSET_MM), device="cpu")
    assert found.provenance.second_search == second
    return error_mm(found.transform, lambda points: points, pair[0].grid)


def test_what_the_first_search_cannot_reach_is_found_by_the_second(pair):
    assert found_error_mm(pair, {"lc2.search.extended_range_mm": 0.0}, second=None) > 5
    assert found_error_mm(pair, {}, second="used") < 1


def test_where_nothing_is_related_nothing_that_was_found_far_off_counts(pair):
    fixed, moving = pair
    noise = torch.randn(fixed.data.shape, generator=torch.Generator().manual_seed(4))
    result = register(fixed.with_data(noise), moving, settings=SETTINGS, device="cpu")
    assert result.provenance.second_search == "in doubt"
    assert result.assessment.quality.verdict.level == "reject"
    corners = fixed.grid.corners_ras()
    assert float(np.abs(result.transform.apply(corners) - corners).max()) < 8


def test_without_model_selection_there_is_no_second_search(pair):
    found = found_error_mm(pair, {"model_selection.enabled": False}, second=None)
    assert found > 5


def test_settings_of_the_second_search():
    extended = load_preset("lc2").extended()
    assert extended is not None
    assert (extended.options.search.range_mm, extended.margin_mm) == (30.0, 30.0)
    # Nothing else is another.
    changed = {"lc2.search.range_mm": 30.0, "margin_mm": 30.0}
    assert with_changes(load_preset("lc2"), changed) == extended
    assert extended.extended() is None
    assert with_changes(load_preset("lc2"), {"model_selection.enabled": False}).extended() is None
    for name in ("mcbo", "mcbo-published", "dns", "lapirn"):
        assert load_preset(name).extended() is None

"""Presets made quick: coarse samples, few steps, a short search; the way through the pipeline is the whole one."""

import pytest

from MMRegCore.config import DEFAULT_PRESET, load_preset, with_changes

CHANGES = {
    # The scenes of the tests are no heads.
    "brain_mask": "false",
    "working_spacing_mm": "1.5",
    "lc2.search.sampling_spacing_mm": "3,1.5",
    "lc2.search.half_width": "2,2",
    "lc2.search.starts": "64",
    "lc2.search.range_mm": "3",
    "lc2.search.range_deg": "3",
    "lc2.search.extended_range_mm": "6",
    "lc2.iterations": "5",
}
MCBO_CHANGES = {
    "brain_mask": "false",
    "mcbo.strides": "1,2",
    "mcbo.weights": "1/2,1/2",
    "mcbo.half_width": "2",
    "mcbo.instance.iterations": "3",
    "mcbo.inverse_consistency_iterations": "5",
}

# Model selection, expected error and verdict included.
QUICK = with_changes(load_preset(DEFAULT_PRESET), CHANGES)
QUICK_MCBO = with_changes(load_preset("mcbo"), MCBO_CHANGES)
# The same on a command line.
SET_QUICK = ["--set", *(f"{key}={value}" for key, value in CHANGES.items())]


def small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw the pictures of reports at a quarter of their size: they show the same."""
    monkeypatch.setattr("MMRegCore.report.figures.DPI", 25)
    monkeypatch.setattr("MMRegCore.report.planes.PIXELS", 105)

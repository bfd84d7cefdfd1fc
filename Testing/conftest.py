"""Fixtures that many tests share."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from grids import DIRECTIONS, itk_grid
from MMRegCore.displacement import DisplacementField
from MMRegCore.geometry import Grid
from MMRegCore.volume import Volume

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture
def shared_data() -> Path:
    """The folder of the real data sets, which are not part of the repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real data sets are not here (../shared/data beside the project)")
    return SHARED_DATA


@pytest.fixture
def case24(shared_data: Path) -> dict[str, Path]:
    """Files of RESECT Case 24: 'us', 't1', 'flair', 'landmarks'."""
    folder = shared_data / "resect"
    names = {"us": "US_0.5mm.nii.gz", "t1": "T1_0.5mm.nii.gz", "flair": "FLAIR_0.5mm.nii.gz"}
    paths = {key: folder / f"Case24_{name}" for key, name in names.items()}
    return {**paths, "landmarks": folder / "Case24_landmarks_ras.csv"}


@pytest.fixture(params=list(DIRECTIONS))
def any_grid(request: pytest.FixtureRequest) -> Grid:
    """An anisotropic grid (D, H, W) = (14, 17, 20), in every kind of orientation."""
    return itk_grid((20, 17, 14), (0.8, 1.1, 1.7), (12.5, -31.0, 47.0), DIRECTIONS[request.param])


@pytest.fixture
def oblique_grid() -> Grid:
    """An oblique, left-handed, anisotropic grid (D, H, W) = (24, 30, 28), about 40 mm wide."""
    return itk_grid((28, 30, 24), (1.4, 1.1, 1.8), (-20.0, 15.0, 31.0), DIRECTIONS["left_handed"])


@pytest.fixture
def smooth_volume() -> Callable[[Grid], Volume]:
    """A function of RAS position on a grid: smooth, without symmetry."""

    def make(grid: Grid) -> Volume:
        x, y, z = np.moveaxis(grid.points_ras(), -1, 0)
        values = np.sin(x / 9) + np.cos(y / 7 + 0.3) * np.sin(z / 8) + 0.02 * x
        return Volume(torch.from_numpy(values)[None], grid, name="smooth")

    return make


@pytest.fixture
def blobs() -> Callable[..., np.ndarray]:
    """``blobs(points_ras, inverted=False)``: fine, asymmetric texture at any points (..., 3); bright or dark."""
    random = np.random.default_rng(4)
    middles, widths = random.uniform(-26, 26, (150, 3)), random.uniform(1.5, 4, 150)
    heights = random.uniform(0.4, 1, 150) * random.choice([-1, 1], 150)

    def texture(points_ras: np.ndarray, inverted: bool = False) -> np.ndarray:
        values = np.zeros(points_ras.shape[:-1])
        for middle, width, height in zip(middles, widths, heights, strict=True):
            values += height * np.exp(-((points_ras - middle) ** 2).sum(axis=-1) / (2 * width**2))
        return 100 * (np.exp(-values) if inverted else values)

    return texture


@pytest.fixture
def smooth_field() -> Callable[..., DisplacementField]:
    """``smooth_field(grid, amplitude_mm)``: an asymmetric displacement with waves of about 120 mm."""

    def make(grid: Grid, amplitude_mm: float = 3.0) -> DisplacementField:
        x, y, z = np.moveaxis(grid.points_ras() - grid.centre_ras, -1, 0)
        waves = [np.sin(y / 19 + 0.2) + 0.4, np.cos(z / 17 - x / 40), np.sin(x / 21 + y / 33) - 0.3]
        return DisplacementField(torch.from_numpy(amplitude_mm * np.stack(waves, axis=-1)), grid)

    return make

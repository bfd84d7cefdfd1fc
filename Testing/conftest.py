"""Fixtures that many tests share."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from MMRegCore.displacement import DisplacementField
from MMRegCore.geometry import Grid
from MMRegCore.volume import Volume

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


def rotation(axis: tuple[float, float, float], degrees: float) -> np.ndarray:
    """(3, 3), by Rodrigues' formula."""
    x, y, z = np.array(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.deg2rad(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


OBLIQUE = rotation((1.0, -2.0, 0.7), 33)
DIRECTIONS = {
    "lps": np.eye(3),
    "ras": np.diag([-1.0, -1.0, 1.0]),
    "oblique": OBLIQUE,
    "left_handed": OBLIQUE @ np.diag([1.0, 1.0, -1.0]),
    "permuted": np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]),
}


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
    direction = DIRECTIONS[request.param]
    return Grid.from_itk((20, 17, 14), (0.8, 1.1, 1.7), (12.5, -31.0, 47.0), direction.ravel().tolist())


@pytest.fixture
def oblique_grid() -> Grid:
    """An oblique, left-handed, anisotropic grid (D, H, W) = (24, 30, 28), about 40 mm wide."""
    direction = DIRECTIONS["left_handed"]
    return Grid.from_itk((28, 30, 24), (1.4, 1.1, 1.8), (-20.0, 15.0, 31.0), direction.ravel().tolist())


@pytest.fixture
def itk_on() -> Callable[..., sitk.Image]:
    """``itk_on(grid, array)``: a SimpleITK image with the geometry of a grid; random when no array is given."""

    def make(grid: Grid, array: np.ndarray | None = None) -> sitk.Image:
        if array is None:
            array = np.random.default_rng(0).random(grid.shape, dtype=np.float32)
        image = sitk.GetImageFromArray(np.ascontiguousarray(array), isVector=array.ndim == 4)
        image.SetOrigin(grid.itk_origin_lps)
        image.SetSpacing(grid.spacing_mm.tolist())
        image.SetDirection(grid.itk_direction_lps)
        return image

    return make


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

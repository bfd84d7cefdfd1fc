"""The maps of an assessment as files."""

import numpy as np
import torch

from MMRegCore.io import read_volume
from MMRegCore.qa import assess, write_maps
from MMRegCore.qa.maps import MAP_FILES
from MMRegCore.transform import SpatialTransform


def test_every_map_is_written_and_says_nothing_outside_the_evidence(smooth_volume, oblique_grid, tmp_path):
    mask = torch.zeros(oblique_grid.shape, dtype=torch.bool)
    mask[4:-4, 5:-6, 3:-3] = True
    fixed = smooth_volume(oblique_grid).with_mask(mask)
    given = {
        name: torch.full(oblique_grid.shape, 2.5) for name in ("expected_error_mm", "inverse_consistency_error_mm")
    }
    matrix = np.diag([1.1, 1.0, 0.9, 1.0])
    write_maps(assess(fixed, [fixed], SpatialTransform.from_matrix(matrix), extra_maps=given), tmp_path)

    found = {path.name.removesuffix(".nii.gz"): read_volume(path) for path in tmp_path.iterdir()}
    assert set(found) == set(MAP_FILES.values())
    assert all(volume.grid.matches(oblique_grid) for volume in found.values())
    inside = {name: volume.data[0][mask] for name, volume in found.items()}
    assert (inside["expected_error"] == 2.5).all()
    assert (inside["inverse_consistency_error"] == 2.5).all()
    torch.testing.assert_close(inside["jacobian_determinant"], torch.tensor(0.99).expand(int(mask.sum())))
    points = oblique_grid.points_ras()[mask.numpy()]
    np.testing.assert_allclose(inside["displacement"], np.linalg.norm(points @ matrix[:3, :3].T - points, axis=1), 1e-4)
    for name, volume in found.items():
        assert (volume.data[0][~mask] == (name == "jacobian_determinant")).all()


def test_what_the_method_does_not_give_is_not_written(smooth_volume, oblique_grid, tmp_path):
    fixed = smooth_volume(oblique_grid)
    write_maps(assess(fixed, [fixed], SpatialTransform.identity()), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"displacement.nii.gz", "jacobian_determinant.nii.gz"}

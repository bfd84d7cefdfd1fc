"""Numbers of the quality assessment against transforms whose numbers are known, and against SimpleITK."""

import json
from collections.abc import Callable

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from MMRegCore.displacement import DisplacementField
from MMRegCore.errors import Cancelled, GeometryError, InputError
from MMRegCore.geometry import Grid
from MMRegCore.monitor import Monitor
from MMRegCore.qa import assess
from MMRegCore.qa.metrics import centroid_ras
from MMRegCore.transform import SpatialTransform, composite_from_field
from MMRegCore.volume import Volume

IDENTITY = SpatialTransform.identity()


def textured(grid: Grid, name: str = "MR", mask: torch.Tensor | None = None) -> Volume:
    """Waves of 6 to 12 mm: enough structure for a shift of a millimetre to matter."""
    x, y, z = np.moveaxis(grid.points_ras(), -1, 0)
    values = np.sin(x / 1.7 + y / 4) * np.cos(y / 1.3) + np.sin(z / 1.5 - x / 3) + 0.3 * np.cos(x / 0.9)
    return Volume(torch.from_numpy(values)[None], grid, mask, name)


def ball(grid: Grid, radius_mm: float) -> torch.Tensor:
    distance = np.linalg.norm(grid.points_ras() - grid.centre_ras, axis=-1)
    return torch.from_numpy(distance < radius_mm)


def rigid_about(centre: np.ndarray, axis: np.ndarray, degrees: float, shift: np.ndarray) -> np.ndarray:
    turn = sitk.VersorTransform(axis.tolist(), np.deg2rad(degrees))
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(turn.GetMatrix(), (3, 3))
    matrix[:3, 3] = centre + shift - matrix[:3, :3] @ centre
    return matrix


def grid_transform(field: DisplacementField) -> SpatialTransform:
    """Another tool's kind of transform: a displacement grid without a linear part."""
    image = sitk.GetImageFromArray((field.displacement_mm.numpy() * [-1, -1, 1]).astype(np.float64), isVector=True)
    image.SetOrigin(field.grid.itk_origin_lps)
    image.SetSpacing(field.grid.spacing_mm.tolist())
    image.SetDirection(field.grid.itk_direction_lps)
    return SpatialTransform(sitk.DisplacementFieldTransform(image))


@settings(max_examples=12, deadline=None)
@given(
    degrees=st.floats(0.01, 170),
    axis=st.sampled_from([(1.0, 0.0, 0.0), (0.3, -1.0, 0.4), (0.5, 0.5, 1.0)]),
    shift=st.tuples(*[st.floats(-9, 9)] * 3),
)
def test_rigid_motion_is_measured_exactly(degrees: float, axis: tuple, shift: tuple) -> None:
    grid = Grid.from_itk((9, 8, 10), (1.2, 1.0, 2.0), (40.0, -60.0, 20.0), np.eye(3).ravel().tolist())
    mask = torch.zeros(grid.shape, dtype=torch.bool)
    mask[2:8, 1:7, 3:9] = True
    centre = centroid_ras(grid, mask)
    truth = rigid_about(centre, np.array(axis), degrees, np.array(shift))
    numbers = assess(textured(grid, mask=mask), [], SpatialTransform.from_matrix(truth)).numbers
    assert numbers["rigid"]["translation_ras_mm"] == pytest.approx(shift, abs=1e-4)
    assert numbers["rigid"]["rotation_degrees"] == pytest.approx(degrees, abs=2e-4)
    assert numbers["deformation_mm"]["max"] < 1e-4
    points = grid.points_ras()[mask.numpy()]
    length = np.linalg.norm(points @ truth[:3, :3].T + truth[:3, 3] - points, axis=1)
    expected = {"mean": length.mean(), "p95": np.percentile(length, 95), "max": length.max()}
    assert numbers["displacement_mm"] == pytest.approx(expected, abs=1e-4)
    assert numbers["jacobian_determinant"]["min"] == pytest.approx(1, abs=1e-4)


def test_volume_change_is_the_determinant(any_grid: Grid) -> None:
    scaling = SpatialTransform.from_matrix(np.diag([1.2, 0.9, 1.5, 1.0]))
    result = assess(textured(any_grid), [], scaling)
    jacobian = result.numbers["jacobian_determinant"]
    for key in ("min", "p01", "p99", "max"):
        assert jacobian[key] == pytest.approx(1.2 * 0.9 * 1.5, rel=1e-4)
    assert jacobian["log_standard_deviation"] < 1e-4
    assert (jacobian["folding_voxels"], jacobian["folding_share"]) == (0, 0.0)
    assert "Folding: none." in result.notes


def test_strong_volume_changes_are_named_from_the_side_of_the_mr() -> None:
    grid = Grid((8, 8, 8), np.eye(4))
    # Each ultrasound voxel takes 8 voxels of the MR: the MR is squeezed to an eighth.
    squeezed = assess(textured(grid), [], SpatialTransform.from_matrix(np.diag([2.0, 2.0, 2.0, 1.0])))
    assert "Strong local squeezing: 1 % of the MR shrinks below 0.12 of its volume." in squeezed.notes
    stretched = assess(textured(grid), [], SpatialTransform.from_matrix(np.diag([0.5, 0.5, 1.0, 1.0])))
    assert "Strong local stretching: 1 % of the MR grows to more than 4.0 times its volume." in stretched.notes


def test_folds_are_counted_inside_the_mask_only() -> None:
    grid = Grid((12, 12, 20), np.diag([1.0, 1.0, 1.0, 1.0]))
    displacement = torch.zeros(12, 12, 20, 3)
    w = torch.arange(20.0)
    displacement[..., 0] = torch.where(w < 10, torch.zeros(20), -1.6 * (w - 9.5))
    mask = torch.zeros(grid.shape, dtype=torch.bool)
    mask[3:9, 3:9, 14:18] = True
    numbers = assess(textured(grid, mask=mask), [], grid_transform(DisplacementField(displacement, grid))).numbers
    assert numbers["jacobian_determinant"]["folding_voxels"] == 6 * 6 * 4
    assert numbers["jacobian_determinant"]["folding_share"] == 1
    assert numbers["jacobian_determinant"]["log_standard_deviation"] is None
    assert "Folding: 144 voxels (100 %)." in numbers["notes"]
    mask[:] = False
    mask[3:9, 3:9, 2:8] = True
    numbers = assess(textured(grid, mask=mask), [], grid_transform(DisplacementField(displacement, grid))).numbers
    assert numbers["jacobian_determinant"]["folding_voxels"] == 0


def test_before_and_after_are_what_itk_resamples(
    any_grid: Grid, smooth_field: Callable[..., DisplacementField], itk_on: Callable[..., sitk.Image]
) -> None:
    # Smaller than the fixed image and beside its centre: some of that is not covered.
    to_ras = np.diag([0.9, -1.3, 0.8, 1.0])
    to_ras[:3, 3] = any_grid.centre_ras + np.array([-8.0, 9.0, -11.0])
    moving_grid = Grid((25, 19, 22), to_ras)
    moving = textured(moving_grid)
    start = SpatialTransform.from_matrix(rigid_about(any_grid.centre_ras, np.array([0.2, 1, 0.1]), 8, np.ones(3)))
    final = composite_from_field(smooth_field(any_grid, 2.0), torch.ones(any_grid.shape)).then(start)
    result = assess(textured(any_grid, "US"), [moving], final, initial=start)
    image = itk_on(moving_grid, moving.data[0].numpy())
    reference = itk_on(any_grid)
    lowest = float(moving.data.min())
    for state, transform in ((result.before[0], start), (result.after[0], final)):
        expected = sitk.GetArrayFromImage(sitk.Resample(image, reference, transform.itk, sitk.sitkLinear, lowest))
        ones = image * 0 + 1
        covered = sitk.GetArrayFromImage(sitk.Resample(ones, reference, transform.itk, sitk.sitkLinear, 0.0)) > 0.5
        agree = covered == state.mask.numpy()
        assert 0.1 < covered.mean() < 1
        # A position on the outer face of a voxel may fall to either side in single precision.
        assert agree.mean() > 0.999
        np.testing.assert_allclose(state.data[0].numpy()[agree], expected[agree], atol=2e-3)
        assert state.grid is any_grid
        assert state.name == "MR"


def test_the_true_transform_agrees_better(oblique_grid: Grid, smooth_field: Callable[..., DisplacementField]) -> None:
    grid = Grid(oblique_grid.shape, oblique_grid.ras_from_ijk @ np.diag([0.35, 0.45, 0.3, 1.0]))
    final = composite_from_field(smooth_field(grid, 0.7), torch.ones(grid.shape))
    moved = final.apply(grid.points_ras().reshape(-1, 3)).reshape(*grid.shape, 3)
    big = textured(grid.padded(6))
    fixed_values = textured(grid).data.clone()
    x, y, z = np.moveaxis(moved, -1, 0)
    fixed_values[0] = torch.from_numpy(
        np.sin(x / 1.7 + y / 4) * np.cos(y / 1.3) + np.sin(z / 1.5 - x / 3) + 0.3 * np.cos(x / 0.9)
    )
    # Another contrast, as between MR and ultrasound.
    fixed = Volume(torch.exp(-fixed_values), grid, ball(grid, 4.5), "US")
    result = assess(fixed, [big], final)
    (numbers,) = result.numbers["moving"]
    assert numbers["coverage_share_after"] == 1
    assert numbers["mind_distance_after"] < 0.6 * numbers["mind_distance_before"]
    assert numbers["nmi_after"] > numbers["nmi_before"] + 0.1
    assert any("fell by" in note for note in result.notes)
    back = assess(fixed, [big], IDENTITY, initial=final)
    assert any("rose by" in note for note in back.notes)
    assert back.numbers["moving"][0]["mind_distance_before"] == pytest.approx(numbers["mind_distance_after"], rel=1e-3)


def test_a_far_start_does_not_hide_what_came_after(oblique_grid: Grid) -> None:
    start_matrix = rigid_about(np.zeros(3), np.array([1.0, 2.0, 0.5]), 130, np.array([150.0, -90.0, 40.0]))
    start = SpatialTransform.from_matrix(start_matrix)
    moved = np.eye(4)
    moved[:3, 3] = [1.0, -2.0, 2.0]
    final = SpatialTransform.from_matrix(moved).then(start)
    numbers = assess(textured(oblique_grid), [], final, initial=start).numbers
    assert numbers["displacement_mm"]["mean"] == pytest.approx(3, abs=1e-3)
    assert numbers["rigid"]["translation_ras_mm"] == pytest.approx([1, -2, 2], abs=1e-3)
    assert numbers["rigid"]["rotation_degrees"] == pytest.approx(0, abs=1e-2)
    unchanged = assess(textured(oblique_grid), [], start, initial=start)
    assert unchanged.notes[0] == "The MR was left where it was."


def test_coverage_is_the_share_of_the_mask_that_the_moving_image_sees() -> None:
    grid = Grid((10, 10, 20), np.eye(4))
    half = Grid((10, 10, 10), np.eye(4))
    result = assess(textured(grid), [textured(half, "T1")], IDENTITY)
    assert result.numbers["moving"][0]["coverage_share_after"] == 0.5
    assert "T1 covers only 50 % of the ultrasound." in result.notes
    masked = textured(half, "T1").with_mask(
        torch.ones(half.shape, dtype=torch.bool).index_fill(2, torch.tensor(0), False)
    )
    result = assess(textured(grid), [masked], IDENTITY)
    assert result.numbers["moving"][0]["coverage_share_after"] == pytest.approx(0.45)
    assert float(result.after[0].data[0, :, :, 10:].max()) == float(masked.data.min())


def test_without_overlap_nothing_is_compared() -> None:
    grid = Grid((10, 10, 10), np.eye(4))
    far = np.eye(4)
    far[0, 3] = 500
    result = assess(textured(grid), [textured(grid, "T1")], SpatialTransform.from_matrix(far))
    (numbers,) = result.numbers["moving"]
    assert [numbers[f"{key}_{when}"] for key in ("nmi", "mind_distance") for when in ("before", "after")] == [None] * 4
    assert numbers["coverage_share_before"] == 1
    assert numbers["coverage_share_after"] == 0
    assert "T1 does not cover the ultrasound at all." in result.notes
    json.dumps(result.numbers, allow_nan=False)


def test_non_finite_voxels_are_no_evidence() -> None:
    grid = Grid((12, 13, 14), np.eye(4))
    fixed, moving = textured(grid, "US"), textured(grid, "T1")
    fixed.data[0, :, :, 0] = torch.nan
    moving.data[0, 5, 5, 5] = torch.inf
    result = assess(fixed, [moving], IDENTITY)
    json.dumps(result.numbers, allow_nan=False)
    assert result.numbers["region"]["voxels"] == 12 * 13 * 13
    assert torch.isfinite(result.after[0].data).all()
    assert int((~result.after[0].mask).sum()) == 1
    fixed.data[:] = torch.nan
    with pytest.raises(InputError, match="finite voxels inside its mask"):
        assess(fixed, [moving], IDENTITY)


def test_extra_maps_are_kept_and_summed_up() -> None:
    grid = Grid((6, 7, 8), np.eye(4))
    mask = torch.zeros(grid.shape, dtype=torch.bool)
    mask[2:4] = True
    error = torch.full(grid.shape, 9.0)
    error[2:4] = 0.25
    error[2, 0, 0] = torch.nan
    result = assess(textured(grid, mask=mask), [], IDENTITY, extra_maps={"inverse_consistency_mm": error})
    assert result.numbers["extra"]["inverse_consistency_mm"] == {"mean": 0.25, "p95": 0.25, "max": 0.25}
    assert set(result.maps) == {"displacement_mm", "jacobian_determinant", "inverse_consistency_mm"}
    with pytest.raises(GeometryError, match="fill the fixed grid"):
        assess(textured(grid), [], IDENTITY, extra_maps={"x": error[1:]})


@pytest.mark.parametrize("shape", [(1, 20, 20), (20, 1, 1), (1, 1, 1)])
def test_flat_images_are_measured_too(shape: tuple[int, int, int]) -> None:
    grid = Grid(shape, np.diag([0.5, 0.5, 3.0, 1.0]))
    numbers = assess(textured(grid), [textured(grid)], IDENTITY).numbers
    json.dumps(numbers, allow_nan=False)
    assert numbers["displacement_mm"]["max"] == 0
    assert numbers["jacobian_determinant"]["min"] == 1


def test_large_images_are_compared_on_fewer_voxels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("MMRegCore.qa.metrics.MIND_VOXELS", 1000)
    grid = Grid((31, 20, 1), np.eye(4)), Grid((33, 30, 29), np.eye(4))
    for one in grid:
        (numbers,) = assess(textured(one), [textured(one)], IDENTITY).numbers["moving"]
        assert numbers["mind_distance_after"] == pytest.approx(0, abs=1e-9)


def test_it_can_be_cancelled() -> None:
    grid = Grid((6, 6, 6), np.eye(4))
    stages: list[str] = []
    monitor = Monitor(lambda stage, fraction: (stages.append(stage), monitor.cancel()))
    with pytest.raises(Cancelled):
        assess(textured(grid), [textured(grid, "T1")], IDENTITY, monitor=monitor)
    assert stages == ["measuring the displacement"]


def test_transforms_that_are_not_finite_are_refused() -> None:
    grid = Grid((6, 6, 6), np.eye(4))
    broken = torch.zeros(6, 6, 6, 3)
    broken[3, 3, 3] = torch.nan
    with pytest.raises(InputError, match="finite displacements"):
        assess(textured(grid), [], grid_transform(DisplacementField(broken, grid)))

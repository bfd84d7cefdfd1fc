"""Numbers of the quality assessment against transforms whose numbers are known, and against SimpleITK."""

import json
from collections.abc import Callable

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grids import itk_grid
from MMRegCore.assessment import assess as module
from MMRegCore.assessment.assess import assess, centroid_ras
from MMRegCore.assessment.quality import Distribution, Quality
from MMRegCore.displacement import DisplacementField
from MMRegCore.errors import Cancelled, GeometryError, InputError
from MMRegCore.geometry import Grid
from MMRegCore.monitor import Monitor
from MMRegCore.records import to_json
from MMRegCore.transform import SpatialTransform, composite_from_field
from MMRegCore.volume import Volume

IDENTITY = SpatialTransform.identity()


def waves(points_ras: np.ndarray) -> torch.Tensor:
    """(1, D, H, W): waves of 6 to 12 mm, enough structure for a shift of a millimetre to matter."""
    x, y, z = np.moveaxis(points_ras, -1, 0)
    values = np.sin(x / 1.7 + y / 4) * np.cos(y / 1.3) + np.sin(z / 1.5 - x / 3) + 0.3 * np.cos(x / 0.9)
    return torch.from_numpy(values)[None].float()


def textured(grid: Grid, name: str = "MR", mask: torch.Tensor | None = None) -> Volume:
    return Volume(waves(grid.points_ras()), grid, mask, name)


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
    image = field.grid.to_itk(field.displacement_mm.double().numpy() * [-1.0, -1.0, 1.0])
    return SpatialTransform(sitk.DisplacementFieldTransform(image))


def quality_of(fixed: Volume, moving: list[Volume], transform: SpatialTransform, **options: object) -> Quality:
    return assess(fixed, moving, transform, **options).quality


def check_json(quality: Quality) -> None:
    """Raise `ValueError` where a number is not finite."""
    json.dumps(to_json(quality), allow_nan=False)


@settings(max_examples=12, deadline=None)
@given(
    degrees=st.floats(0.01, 170),
    axis=st.sampled_from([(1.0, 0.0, 0.0), (0.3, -1.0, 0.4), (0.5, 0.5, 1.0)]),
    shift=st.tuples(*[st.floats(-9, 9)] * 3),
)
def test_rigid_motion_is_measured_exactly(degrees: float, axis: tuple, shift: tuple) -> None:
    grid = itk_grid((9, 8, 10), (1.2, 1.0, 2.0), (40.0, -60.0, 20.0))
    mask = torch.zeros(grid.shape, dtype=torch.bool)
    mask[2:8, 1:7, 3:9] = True
    centre = centroid_ras(grid, mask)
    truth = rigid_about(centre, np.array(axis), degrees, np.array(shift))
    quality = quality_of(textured(grid, mask=mask), [], SpatialTransform.from_matrix(truth))
    assert quality.rigid.translation_ras_mm == pytest.approx(shift, abs=1e-4)
    assert quality.rigid.translation_mm == pytest.approx(np.linalg.norm(shift), abs=1e-4)
    assert quality.rigid.rotation_deg == pytest.approx(degrees, abs=2e-4)
    assert quality.deformation_mm.max < 1e-4
    points = grid.points_ras()[mask.numpy()]
    length = np.linalg.norm(points @ truth[:3, :3].T + truth[:3, 3] - points, axis=1)
    expected = {"mean": length.mean(), "p95": np.percentile(length, 95), "max": length.max()}
    assert to_json(quality.displacement_mm) == pytest.approx(expected, abs=1e-4)
    assert quality.jacobian_determinant.min == pytest.approx(1, abs=1e-4)


def test_the_region_is_the_foreground_of_the_fixed_image(oblique_grid: Grid) -> None:
    mask = torch.zeros(oblique_grid.shape, dtype=torch.bool)
    mask[4:10, 3:12, 5:15] = True
    region = quality_of(textured(oblique_grid, mask=mask), [], IDENTITY).region
    assert region.voxels == 6 * 9 * 10
    assert region.share_of_grid == pytest.approx(540 / np.prod(oblique_grid.shape))
    assert region.volume_ml == pytest.approx(540 * 1.4 * 1.1 * 1.8 / 1000)
    assert region.spacing_mm == pytest.approx((1.4, 1.1, 1.8))


def test_volume_change_is_the_determinant(any_grid: Grid) -> None:
    scaling = SpatialTransform.from_matrix(np.diag([1.2, 0.9, 1.5, 1.0]))
    quality = quality_of(textured(any_grid), [], scaling)
    jacobian = quality.jacobian_determinant
    for value in (jacobian.min, jacobian.p01, jacobian.p99, jacobian.max):
        assert value == pytest.approx(1.2 * 0.9 * 1.5, rel=1e-4)
    assert jacobian.log_standard_deviation < 1e-4
    assert (jacobian.folding_voxels, jacobian.folding_share) == (0, 0.0)
    assert "Folding (negative Jacobian): none." in quality.notes


def test_strong_volume_changes_are_named_from_the_side_of_the_mr() -> None:
    grid = Grid((8, 8, 8), np.eye(4))
    # Each ultrasound voxel takes 8 voxels of the MR: the MR is squeezed to an eighth.
    squeezed = quality_of(textured(grid), [], SpatialTransform.from_matrix(np.diag([2.0, 2.0, 2.0, 1.0])))
    assert "Strong local squeezing: 1 % of the MR shrinks below 0.12 of its volume." in squeezed.notes
    stretched = quality_of(textured(grid), [], SpatialTransform.from_matrix(np.diag([0.5, 0.5, 1.0, 1.0])))
    assert "Strong local stretching: 1 % of the MR grows to more than 4.0 times its volume." in stretched.notes


def test_folds_are_counted_inside_the_mask_only() -> None:
    grid = Grid((12, 12, 20), np.eye(4))
    displacement = torch.zeros(12, 12, 20, 3)
    w = torch.arange(20.0)
    displacement[..., 0] = torch.where(w < 10, torch.zeros(20), -1.6 * (w - 9.5))
    transform = grid_transform(DisplacementField(displacement, grid))

    def measured(columns: slice) -> Quality:
        mask = torch.zeros(grid.shape, dtype=torch.bool)
        mask[3:9, 3:9, columns] = True
        return quality_of(textured(grid, mask=mask), [], transform)

    folding = measured(slice(14, 18))
    assert folding.jacobian_determinant.folding_voxels == 6 * 6 * 4
    assert folding.jacobian_determinant.folding_share == 1
    assert folding.jacobian_determinant.log_standard_deviation is None
    assert "Folding (negative Jacobian): 144 voxels (100 %)." in folding.notes
    assert folding.verdict.level == "reject"
    check_json(folding)
    assert measured(slice(2, 8)).jacobian_determinant.folding_voxels == 0


def test_before_and_after_are_what_itk_resamples(
    any_grid: Grid, smooth_field: Callable[..., DisplacementField]
) -> None:
    # Smaller than the fixed image and beside its centre: some of that is not covered.
    to_ras = np.diag([0.9, -1.3, 0.8, 1.0])
    to_ras[:3, 3] = any_grid.centre_ras + np.array([-8.0, 9.0, -11.0])
    moving_grid = Grid((25, 19, 22), to_ras)
    moving = textured(moving_grid)
    initial = SpatialTransform.from_matrix(rigid_about(any_grid.centre_ras, np.array([0.2, 1, 0.1]), 8, np.ones(3)))
    final = composite_from_field(smooth_field(any_grid, 2.0), torch.ones(any_grid.shape)).then(initial)
    result = assess(textured(any_grid, "US"), [moving], final, initial=initial)
    image = moving_grid.to_itk(moving.data[0].numpy())
    reference = any_grid.to_itk()
    lowest = float(moving.data.min())

    def resampled(what: sitk.Image, transform: SpatialTransform, outside: float) -> np.ndarray:
        options = (transform.itk, sitk.sitkLinear, outside, sitk.sitkFloat32)
        return sitk.GetArrayFromImage(sitk.Resample(what, reference, *options))

    for state, transform in ((result.before[0], initial), (result.after[0], final)):
        expected = resampled(image, transform, lowest)
        covered = resampled(image * 0 + 1, transform, 0.0) > 0.5
        agree = covered == state.mask.numpy()
        assert 0.1 < covered.mean() < 1
        # A position on the outer face of a voxel may fall to either side in single precision.
        assert agree.mean() > 0.999
        np.testing.assert_allclose(state.data[0].numpy()[agree], expected[agree], atol=2e-3)
        assert state.grid is any_grid
        assert state.name == "MR"


def test_the_true_transform_is_more_similar(oblique_grid: Grid, smooth_field: Callable[..., DisplacementField]) -> None:
    grid = Grid(oblique_grid.shape, oblique_grid.ras_from_ijk @ np.diag([0.35, 0.45, 0.3, 1.0]))
    final = composite_from_field(smooth_field(grid, 0.7), torch.ones(grid.shape))
    moved = final.apply(grid.points_ras().reshape(-1, 3)).reshape(*grid.shape, 3)
    big = textured(grid.padded(6))
    # Another contrast, as between MR and ultrasound.
    fixed = Volume(torch.exp(-waves(moved)), grid, ball(grid, 4.5), "US")
    quality = quality_of(fixed, [big], final)
    (comparison,) = quality.moving
    assert comparison.coverage_after == 1
    assert comparison.compared_share == 1
    assert comparison.mind_distance_after < 0.6 * comparison.mind_distance_before
    assert comparison.nmi_after > comparison.nmi_before + 0.1
    assert any("fell by" in note for note in quality.notes)
    back = quality_of(fixed, [big], IDENTITY, initial=final)
    assert any("rose by" in note for note in back.notes)
    assert back.moving[0].mind_distance_before == pytest.approx(comparison.mind_distance_after, rel=1e-3)


def test_a_far_initial_transform_does_not_hide_what_came_after(oblique_grid: Grid) -> None:
    matrix = rigid_about(np.zeros(3), np.array([1.0, 2.0, 0.5]), 130, np.array([150.0, -90.0, 40.0]))
    initial = SpatialTransform.from_matrix(matrix)
    moved = np.eye(4)
    moved[:3, 3] = [1.0, -2.0, 2.0]
    final = SpatialTransform.from_matrix(moved).then(initial)
    quality = quality_of(textured(oblique_grid), [], final, initial=initial)
    assert quality.displacement_mm.mean == pytest.approx(3, abs=1e-3)
    assert quality.rigid.translation_ras_mm == pytest.approx([1, -2, 2], abs=1e-3)
    assert quality.rigid.rotation_deg == pytest.approx(0, abs=1e-2)
    unchanged = quality_of(textured(oblique_grid), [], initial, initial=initial)
    assert unchanged.notes[0] == "The MR was left where it was."


def test_coverage_is_the_share_of_the_mask_that_the_moving_image_covers() -> None:
    grid = Grid((10, 10, 20), np.eye(4))
    half = Grid((10, 10, 10), np.eye(4))
    quality = quality_of(textured(grid), [textured(half, "T1")], IDENTITY)
    assert quality.moving[0].coverage_after == 0.5
    assert "T1 covers only 50 % of the ultrasound." in quality.notes
    masked = textured(half, "T1").with_mask(
        torch.ones(half.shape, dtype=torch.bool).index_fill(2, torch.tensor(0), False)
    )
    result = assess(textured(grid), [masked], IDENTITY)
    assert result.quality.moving[0].coverage_after == pytest.approx(0.45)
    assert float(result.after[0].data[0, :, :, 10:].max()) == float(masked.data.min())


def test_without_overlap_nothing_is_compared() -> None:
    grid = Grid((10, 10, 10), np.eye(4))
    far = np.eye(4)
    far[0, 3] = 500
    quality = quality_of(textured(grid), [textured(grid, "T1")], SpatialTransform.from_matrix(far))
    (comparison,) = quality.moving
    compared = (comparison.nmi_before, comparison.nmi_after)
    assert (*compared, comparison.mind_distance_before, comparison.mind_distance_after) == (None,) * 4
    assert comparison.coverage_before == 1
    assert comparison.coverage_after == 0
    assert "T1 does not cover the ultrasound at all." in quality.notes
    assert quality.verdict.level == "reject"
    check_json(quality)


def test_non_finite_voxels_are_no_foreground() -> None:
    grid = Grid((12, 13, 14), np.eye(4))
    fixed, moving = textured(grid, "US"), textured(grid, "T1")
    fixed.data[0, :, :, 0] = torch.nan
    moving.data[0, 5, 5, 5] = torch.inf
    result = assess(fixed, [moving], IDENTITY)
    check_json(result.quality)
    assert result.quality.region.voxels == 12 * 13 * 13
    assert torch.isfinite(result.after[0].data).all()
    assert int((~result.after[0].mask).sum()) == 1
    fixed.data[:] = torch.nan
    with pytest.raises(InputError, match="finite voxels inside its mask"):
        assess(fixed, [moving], IDENTITY)


def test_given_maps_are_kept_and_summed_up() -> None:
    grid = Grid((6, 7, 8), np.eye(4))
    mask = torch.zeros(grid.shape, dtype=torch.bool)
    mask[2:4] = True
    error = torch.full(grid.shape, 9.0)
    error[2:4] = 0.25
    error[2, 0, 0] = torch.nan
    quality = quality_of(textured(grid, mask=mask), [], IDENTITY, maps={"inverse_consistency_error": error})
    summaries = {summary.name: summary for summary in quality.maps}
    assert summaries["inverse_consistency_error"].inside == Distribution(0.25, 0.25, 0.25)
    assert list(summaries) == ["displacement", "jacobian_determinant", "inverse_consistency_error"]
    assert quality.verdict.expected_error_mm is None
    judged = quality_of(textured(grid, mask=mask), [], IDENTITY, maps={"expected_error": error})
    assert judged.verdict.expected_error_mm == 0.25


def test_maps_that_cannot_be_used_are_refused() -> None:
    grid = Grid((6, 7, 8), np.eye(4))
    with pytest.raises(GeometryError, match="fill the fixed grid"):
        assess(textured(grid), [], IDENTITY, maps={"expected_error": torch.zeros(5, 7, 8)})
    with pytest.raises(InputError, match="out of expected_error, .*; got 'confidence'"):
        assess(textured(grid), [], IDENTITY, maps={"confidence": torch.zeros(grid.shape)})


@pytest.mark.parametrize("shape", [(1, 20, 20), (20, 1, 1), (1, 1, 1)])
def test_flat_images_are_measured_too(shape: tuple[int, int, int]) -> None:
    grid = Grid(shape, np.diag([0.5, 0.5, 3.0, 1.0]))
    quality = quality_of(textured(grid), [textured(grid)], IDENTITY)
    check_json(quality)
    assert quality.displacement_mm.max == 0
    assert quality.jacobian_determinant.min == 1


def test_large_images_are_compared_on_fewer_voxels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MIND_VOXELS", 1000)
    for shape in ((31, 20, 1), (33, 30, 29)):
        image = textured(Grid(shape, np.eye(4)))
        (comparison,) = quality_of(image, [image], IDENTITY).moving
        assert comparison.mind_distance_after == pytest.approx(0, abs=1e-9)


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

"""Learn2Reg's measures on three cases that are worked out by hand, and its files."""

import json
import math

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from MMRegCore.cli import main
from MMRegCore.displacement import DisplacementField
from MMRegCore.errors import GeometryError, InputError
from MMRegCore.evaluate.learn2reg import hausdorff_95, jacobian, moved_points, overlap, warped_labels
from MMRegCore.geometry import Grid
from MMRegCore.io.learn2reg import read_displacement, read_voxel_landmarks, write_displacement
from MMRegCore.io.transforms import write_transform
from MMRegCore.io.volumes import write_volume
from MMRegCore.transform import SpatialTransform
from MMRegCore.volume import Volume
from scenes import box, translation

# Columns to the left, 1 × 1 × 2 mm.
GRID = Grid((12, 12, 12), np.array([[-1.0, 0, 0, 6], [0, 1, 0, -6], [0, 0, 2, -12], [0, 0, 0, 1]]))


def cube(low: int, high: int) -> np.ndarray:
    """(D, H, W): 1 from ``low`` up to ``high`` along each axis."""
    labels = np.zeros(GRID.shape, dtype=np.int64)
    labels[low:high, low:high, low:high] = 1
    return labels


class TestShift:
    """Case 1: one voxel along i everywhere; labels are cubes of 4 voxels, 2 voxels apart along i."""

    field = DisplacementField.from_voxel(
        torch.tensor([0.0, 0.0, 1.0])[None, :, None, None, None].expand(1, 3, 12, 12, 12), GRID
    )

    def test_nothing_folds_and_every_determinant_is_one(self):
        found = jacobian(self.field)
        assert found.folding_share == 0
        assert found.sd_log_j == pytest.approx(0, abs=1e-7)

    def test_dice_and_distance(self):
        fixed, moving = cube(4, 8), np.roll(cube(4, 8), 2, axis=2)
        warped = warped_labels(moving, GRID, self.field)
        assert np.array_equal(warped, np.roll(cube(4, 8), 1, axis=2))
        found = overlap(fixed, moving, warped)
        # 3 of 4 layers in common; a face of 16 of 96 square voxels lies 1 voxel away on either side.
        assert found.dice == pytest.approx(0.75)
        assert found.hd95_voxel == pytest.approx(1)

    def test_landmarks(self):
        # One voxel along i is one millimetre to the left.
        moved = moved_points(self.field, np.array([[0.0, 0, 0], [1.5, 2, -3]]))
        assert moved == pytest.approx(np.array([[-1.0, 0, 0], [0.5, 2, -3]]), abs=1e-6)

    def test_outside_the_field_nothing_moves(self):
        far = np.array([[100.0, 0, 0]])
        assert np.array_equal(moved_points(self.field, far), far)


class TestStretch:
    """Case 2: u = i/2, then u = i in one half: determinants 1.5 and 2, then the other way."""

    def field(self, slope: np.ndarray) -> DisplacementField:
        """Along k, with a slope at every k that adds up."""
        values = torch.zeros(1, 3, 12, 12, 12)
        values[0, 0] = torch.from_numpy(slope).float()[:, None, None]
        return DisplacementField.from_voxel(values, GRID)

    def test_one_determinant(self):
        found = jacobian(self.field(np.arange(12) * 0.5))
        assert found.sd_log_j == pytest.approx(0, abs=1e-6)

    def test_two_determinants(self):
        # Slices 2 to 9 count: slopes 0 in 2, 3, 4; 1/2 in 5; 1 in 6 to 9, by central differences.
        found = jacobian(self.field(np.maximum(np.arange(12) - 5.0, 0)))
        logs = np.log(3 + np.array([1, 1, 1, 1.5, 2, 2, 2, 2]))
        assert found.sd_log_j == pytest.approx(logs.std(), abs=1e-6)
        assert found.folding_share == 0

    def test_folding(self):
        # A slope of −2 from slice 6 on: determinants 1, 1, 1, 0 (one half of −2), −1, …
        found = jacobian(self.field(-2 * np.maximum(np.arange(12) - 5.0, 0)))
        assert found.folding_share == pytest.approx(5 / 8)
        logs = np.log(3 + np.array([1, 1, 1, 0, -1, -1, -1, -1]))
        assert found.sd_log_j == pytest.approx(logs.std(), abs=1e-6)

    def test_too_small(self):
        with pytest.raises(GeometryError, match="at least 5 voxels"):
            jacobian(DisplacementField.zero(box((4, 9, 9))))


class TestLabels:
    """Case 3: several labels, of which some are missing or moved out of the image."""

    def test_only_labels_of_both_images_count(self):
        fixed, moving = cube(2, 4) + 5 * cube(6, 8), cube(2, 4) + 7 * cube(6, 8)
        assert overlap(fixed, moving, moving).dice == 1
        assert overlap(fixed, 7 * cube(6, 8), moving) is None

    def test_a_label_that_left_the_image(self):
        found = overlap(cube(2, 4) + 2 * cube(6, 8), cube(2, 4) + 2 * cube(6, 8), cube(2, 4))
        assert found.dice == 0.5
        assert math.isinf(found.hd95_voxel)

    def test_a_cube_in_a_cube(self):
        # From the outer surface, area 8 √3/8 at the corners (√12 away), 12 · 2 · √2/2 at the ends of the edges
        # (3 away), 12 · 3 · √2/2 between (√8 away) and 150 on the faces (√6 at most): the last twentieth begins at 3.
        assert hausdorff_95(cube(5, 7) > 0, cube(3, 9) > 0) == pytest.approx(3)
        assert hausdorff_95(cube(3, 9) > 0, cube(3, 9) > 0) == 0

    def test_two_voxels(self):
        one, two = np.zeros((2, 3, 3, 9), dtype=bool)
        one[1, 1, 1] = two[1, 1, 6] = True
        # Each of the 8 corners of the one is 5 voxels from its counterpart, 4 where it faces the other.
        assert hausdorff_95(one, two) == pytest.approx(5)

    def test_the_border_is_inside_and_what_is_beyond_is_not(self):
        labels = np.ones(GRID.shape, dtype=np.int64)
        half = torch.tensor([0.0, 0.0, 0.5])[None, :, None, None, None].expand(1, 3, *GRID.shape)
        seen = warped_labels(labels, GRID, DisplacementField.from_voxel(half, GRID))
        assert seen[..., :-1].all()
        assert not seen[..., -1].any()


def test_files_are_as_the_challenge_has_them(tmp_path):
    path = tmp_path / "disp_0001_0002.nii.gz"
    write_displacement(translation((-3.0, 0.0, 4.0)), path, fixed=GRID, moving=GRID)
    values = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    # As nibabel has it: (W, H, D, 3); 3 mm to the left are 3 voxels along i, 4 mm up 2 along k.
    assert values.T.shape == (*GRID.itk_size, 3)
    assert np.allclose(values.T, [3, 0, 2])
    again = read_displacement(path, fixed=GRID, moving=GRID).displacement_mm
    assert torch.allclose(again, torch.tensor([-3.0, 0.0, 4.0]), atol=1e-5)


def test_files_of_images_on_different_grids(tmp_path):
    moving, path = box((20, 22, 24), (2.0, 1.0, 0.5)), tmp_path / "disp_1_2.nii.gz"
    write_displacement(translation((1.0, 2.0, -1.0)), path, fixed=GRID, moving=moving)
    again = read_displacement(path, fixed=GRID, moving=moving).displacement_mm
    assert torch.allclose(again, torch.tensor([1.0, 2.0, -1.0]), atol=1e-4)
    with pytest.raises(GeometryError, match=r"to have the size \(24, 22, 20, 3\)"):
        read_displacement(path, fixed=moving, moving=GRID)


def test_landmarks_in_voxels(tmp_path):
    (tmp_path / "a.csv").write_text("1,2,3\n0,0,0\n")
    assert np.allclose(read_voxel_landmarks(tmp_path / "a.csv", GRID).points_ras, [[5, -4, -6], [6, -6, -12]])
    (tmp_path / "b.csv").write_text("x,y,z\n")
    with pytest.raises(InputError, match="i,j,k in voxels"):
        read_voxel_landmarks(tmp_path / "b.csv", GRID)


@pytest.fixture
def dataset(tmp_path):
    """Learn2Reg's layout with the shift of case 1 as a field, a transform, and nothing."""
    for name in ("imagesTr", "labelsTr", "keypointsTr", "results"):
        (tmp_path / name).mkdir()
    pairs = []
    for number in (1, 2, 3):
        names = [f"Reg_{number:04d}_{contrast:04d}" for contrast in (0, 1)]
        for name, labels in zip(names, (cube(4, 8), np.roll(cube(4, 8), 2, axis=2)), strict=True):
            image = Volume(torch.from_numpy(labels)[None].float(), GRID)
            write_volume(image, tmp_path / "imagesTr" / f"{name}.nii.gz")
            write_volume(image, tmp_path / "labelsTr" / f"{name}.nii.gz", dtype="uint8")
        # 0 and 1 voxel beside where the field takes them, along k: 0 and 2 mm.
        (tmp_path / "keypointsTr" / f"{names[0]}.csv").write_text("4,4,4\n6,6,6\n")
        (tmp_path / "keypointsTr" / f"{names[1]}.csv").write_text("5,4,4\n7,6,7\n")
        pairs.append({"fixed": f"./imagesTr/{names[0]}.nii.gz", "moving": f"./imagesTr/{names[1]}.nii.gz"})
    (tmp_path / "dataset.json").write_text(json.dumps({"registration_val": pairs}))
    shift = translation((-1.0, 0.0, 0.0))
    write_displacement(shift, tmp_path / "results" / "disp_0001_0001.nii.gz", fixed=GRID, moving=GRID)
    write_transform(shift, tmp_path / "results" / "0002_0002.h5")
    return tmp_path


def test_a_folder_is_scored(dataset, capsys):
    command = ["evaluate", str(dataset / "results"), "--cases", str(dataset / "dataset.json")]
    assert main([*command, "--output", str(dataset / "scores")]) == 1
    told = json.loads(capsys.readouterr().out)
    failed, *scored = told["cases"]
    assert (failed["case"], failed["verdict"]) == ("0003_0003", "failed")
    assert "expected a transform or field" in failed["reason"]
    for row in scored:
        assert row["tre_mean_mm"] == pytest.approx(1, abs=1e-5)
        assert row["tre_sd_mm"] == pytest.approx(math.sqrt(2), abs=1e-5)
        assert row["tre_30_mm"] == pytest.approx(0.6, abs=1e-5)
        assert row["tre_before_mm"] == pytest.approx((1 + math.sqrt(5)) / 2, abs=1e-5)
        assert row["dice"] == pytest.approx(0.75)
        assert row["hd95_voxel"] == pytest.approx(1)
        assert row["folding_share"] == 0
    assert told["summary"]["dice"]["mean"] == pytest.approx(0.75)
    assert (
        (dataset / "scores" / "cohort.csv").read_text(encoding="utf-8").splitlines()[1].startswith("0003_0003,failed")
    )
    assert "0003_0003" in (dataset / "scores" / "cohort.html").read_text(encoding="utf-8")


def test_identity_moves_no_point():
    points = GRID.points_ras()[3:5, 3:5, 3:5].reshape(-1, 3)
    field = SpatialTransform.identity().displacement_field(GRID)
    assert np.array_equal(moved_points(field, points), points)

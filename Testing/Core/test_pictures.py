"""``mmreg fuse`` and ``mmreg augment``."""

import math

import numpy as np
import pytest
import torch

from MMRegCore.cli import main
from MMRegCore.errors import GeometryError, InputError
from MMRegCore.geometry import Grid
from MMRegCore.io.transforms import write_transform
from MMRegCore.io.volumes import read_volume, write_volume
from MMRegCore.networks.multiprop import MultiProp, MultiPropSettings
from MMRegCore.networks.protocol import TrainingDomain
from MMRegCore.ops import warp
from MMRegCore.report.blend import blend, starlet
from MMRegCore.training.augmentation import augment
from MMRegCore.training.engine.checkpoint import write_weights
from MMRegCore.transform import SpatialTransform
from MMRegCore.volume import Volume

GRID = Grid((20, 22, 24), np.diag([2.0, 2.0, 2.0, 1.0]))


def noise(seed, grid=GRID):
    return Volume(torch.rand(1, *grid.shape, generator=torch.Generator().manual_seed(seed)), grid, name=f"n{seed}")


def test_the_wavelet_parts_add_up_and_are_those_of_a_slow_transform():
    image = noise(0).data[None]
    parts = starlet(image, 3)
    assert len(parts) == 4
    torch.testing.assert_close(sum(parts), image)
    kernel = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
    smooth = image - parts[0] - parts[1]  # after steps of one voxel and of two
    once = image - parts[0]
    d, h, w = 10, 11, 12
    expected = 0.0
    for i, a in enumerate(kernel):
        for j, b in enumerate(kernel):
            for k, c in enumerate(kernel):
                expected += a * b * c * float(once[0, 0, d + 2 * (i - 2), h + 2 * (j - 2), w + 2 * (k - 2)])
    assert float(smooth[0, 0, d, h, w]) == pytest.approx(expected, abs=1e-5)


def test_the_weighted_mean_and_its_ends():
    one, two = noise(1), noise(2)
    mean = blend(one, two, method="weighted", weight=0.25).data
    ends = [blend(one, two, method="weighted", weight=w).data for w in (1.0, 0.0)]
    torch.testing.assert_close(mean, 0.25 * ends[0] + 0.75 * ends[1])
    torch.testing.assert_close(blend(one, one).data, blend(one, one, method="weighted").data, atol=1e-5, rtol=0)


def test_the_wavelet_keeps_the_detail_of_both_which_the_mean_halves():
    x = torch.arange(24.0)
    left, right = torch.zeros(1, *GRID.shape), torch.zeros(1, *GRID.shape)
    left[..., :10] = (torch.sin(2 * x[:10]) > 0).float()
    right[..., 14:] = (torch.sin(2 * x[14:]) > 0).float()
    one, two = Volume(left, GRID), Volume(right, GRID)
    contrast = {
        how: [float(torch.diff(blend(one, two, method=how).data[..., part], dim=-1).abs().mean()) for part in parts]
        for how in ("wavelet", "weighted")
        for parts in [(slice(1, 9), slice(15, 23))]
    }
    assert min(contrast["wavelet"]) > 1.5 * max(contrast["weighted"])


def test_a_picture_of_images_that_do_not_lie_on_one_grid_is_refused():
    other = Grid((20, 22, 24), np.diag([2.0, 2.0, 2.5, 1.0]))
    with pytest.raises(GeometryError, match="on one grid"):
        blend(noise(1), noise(2, other))
    for wrong in ({"weight": 1.5}, {"levels": 0}, {"method": "magic"}):
        with pytest.raises(InputError, match="expected"):
            blend(noise(1), noise(2), **wrong)


def test_fuse_warps_the_moving_image_by_the_transform(tmp_path):
    fixed, moving = noise(1), noise(2)
    matrix = np.eye(4)
    matrix[:3, 3] = [4.0, 0.0, -2.0]  # 2 voxels along w, 1 back along d
    write_volume(fixed, tmp_path / "a.nii.gz")
    write_volume(moving, tmp_path / "b.nii.gz")
    write_transform(SpatialTransform.from_matrix(matrix), tmp_path / "t.h5")
    files = ["--fixed", str(tmp_path / "a.nii.gz"), "--moving", str(tmp_path / "b.nii.gz")]
    out = tmp_path / "fused.nii.gz"
    options = ["--transform", str(tmp_path / "t.h5"), "--method", "weighted", "--weight", "0", "--output", str(out)]
    assert main(["fuse", *files, *options]) == 0
    shifted = torch.roll(moving.data, (1, -2), (1, 3))
    found = read_volume(out).data
    inner = (..., slice(2, -2), slice(2, -2), slice(3, -3))
    correlation = torch.corrcoef(torch.stack([found[inner].flatten(), shifted[inner].flatten()]))[0, 1]
    assert float(correlation) > 0.999


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    domain = TrainingDomain(spacing_mm=2.0)
    network = MultiProp(MultiPropSettings(features=(4, 4), matching=(4,), context=(4,), trained_on=domain))
    with torch.no_grad():
        for part in network.matching:
            part.flow.convolution.weight.normal_(std=0.02)
        for part in network.pyramid:
            part.log_variance.convolution.bias.fill_(0.0)
    path = tmp_path / "w.safetensors"
    write_weights(network, path)
    return path


def test_copies_differ_by_their_samples_and_repeat_with_the_seed(weights):
    image = noise(3)
    labels = image.with_data((image.data * 5).round())

    def copies(**options):
        return list(augment(image, labels, image, weights=str(weights), **{"count": 2, "seed": 1, **options}))

    first, again, other = copies(), copies(count=1), copies(seed=2)
    assert torch.equal(first[0].image.data, again[0].image.data)
    assert not torch.equal(first[0].image.data, first[1].image.data)
    assert not torch.equal(first[0].image.data, other[0].image.data)
    plain = copies(strength=0.0)
    assert torch.equal(plain[0].field.displacement_mm, plain[1].field.displacement_mm)
    for copy in first:
        assert set(copy.labels.data.unique().tolist()) <= set(labels.data.unique().tolist())
        moved = warp(image.data[None], copy.field.to_voxel())[0]
        torch.testing.assert_close(copy.image.data, moved)
        assert float(copy.field.jacobian_determinant().min()) > 0
        assert math.isfinite(float(copy.field.magnitude_mm().max()))


def test_augment_writes_images_and_labels(weights, tmp_path):
    image = noise(3)
    write_volume(image, tmp_path / "a.nii.gz")
    write_volume(image.with_data((image.data * 5).round()), tmp_path / "l.nii.gz", dtype="uint8")
    out = tmp_path / "copies"
    files = ["--image", str(tmp_path / "a.nii.gz"), "--labels", str(tmp_path / "l.nii.gz"), "--output", str(out)]
    assert main(["augment", *files, "--weights", str(weights), "--count", "2"]) == 0
    assert sorted(p.name for p in out.iterdir()) == [
        "0000_image.nii.gz",
        "0000_labels.nii.gz",
        "0001_image.nii.gz",
        "0001_labels.nii.gz",
    ]
    assert read_volume(out / "0001_image.nii.gz").grid.matches(image.grid)


def test_labels_on_another_grid_and_odd_numbers_are_refused(weights):
    other = Grid((20, 22, 24), np.diag([2.0, 2.0, 2.5, 1.0]))
    with pytest.raises(GeometryError, match="expected the labels on the grid"):
        next(augment(noise(1), noise(2, other), noise(1), count=1, weights=str(weights)))
    with pytest.raises(InputError, match="count of at least 1"):
        next(augment(noise(1), None, noise(1), count=0, weights=str(weights)))

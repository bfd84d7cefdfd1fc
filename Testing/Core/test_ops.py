"""The shared arithmetic against plain references: NumPy loops, PyTorch's pooling, SimpleITK."""

import math
from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
import pytest
import SimpleITK as sitk
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck

from MMRegCore import ops
from MMRegCore.geometry import Grid, transform_points

SHAPE = (5, 7, 6)
sizes = st.tuples(*[st.integers(1, 9)] * 3)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def double(*shape: int, seed: int = 0) -> torch.Tensor:
    return noise(*shape, seed=seed).double().requires_grad_()


def ramp(shape: tuple[int, ...], slopes: tuple[float, float, float] = (1.0, 2.0, -1.0)) -> torch.Tensor:
    """(1, 1, D, H, W): a linear function of position."""
    return (ops.identity_positions(shape) * torch.tensor(slopes).reshape(1, 3, 1, 1, 1)).sum(dim=1, keepdim=True)


def linear_field(matrix: torch.Tensor, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    """(1, 3, D, H, W): ``u(x) = matrix · x``."""
    positions = ops.identity_positions(shape, dtype=matrix.dtype)
    return (matrix @ positions.flatten(2)).reshape(positions.shape)


MATRIX = torch.tensor([[0.1, 0.2, -0.1], [0.3, -0.2, 0.1], [0.05, 0.1, 0.4]], dtype=torch.float64)

# Every differentiable operation of one tensor, and the channels that it takes.
OPERATIONS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], int]] = {
    "avg_pool": (lambda v: ops.avg_pool(v, 2), 2),
    "box_mean": (lambda v: ops.box_mean(v, 1), 2),
    "box_mean, edge": (lambda v: ops.box_mean(v, 1, outside="edge"), 2),
    "box_mean, none": (lambda v: ops.box_mean(v, 1, outside="none", stride=2), 2),
    "box_mean, weight": (lambda v: ops.box_mean(v, 1, weight=noise(1, 1, *v.shape[2:], seed=9).to(v)), 2),
    "diffusion_energy": (ops.diffusion_energy, 3),
    "gaussian_blur": (lambda v: ops.gaussian_blur(v, 0.8), 2),
    "gaussian_blur, zeros": (lambda v: ops.gaussian_blur(v, (0.5, 0.0, 1.0), outside="zeros"), 2),
    "gradient_magnitude": (ops.gradient_magnitude, 2),
    "integrate_velocity": (ops.integrate_velocity, 3),
    "jacobian_determinant": (ops.jacobian_determinant, 3),
    "jacobian_determinant, forward": (lambda v: ops.jacobian_determinant(v, "forward"), 3),
    "resize": (lambda v: ops.resize(v, (7, 3, 5)), 2),
    "upsample": (lambda v: ops.upsample(v, 2, (7, 5, 6)), 2),
    "upsample_field": (lambda v: ops.upsample_field(v, (7, 5, 6)), 3),
    "warp": (lambda v: ops.warp(v, 0.3 + 0.2 * noise(1, 3, *v.shape[2:], seed=9).to(v)), 2),
}


class TestEveryOperation:
    @pytest.mark.parametrize("name", OPERATIONS)
    def test_gradient(self, name):
        operation, channels = OPERATIONS[name]
        assert gradcheck(operation, (0.4 * double(1, channels, 4, 3, 4),))

    @pytest.mark.parametrize("name", OPERATIONS)
    def test_keeps_the_precision_and_leaves_its_input_alone(self, name):
        operation, channels = OPERATIONS[name]
        for image in (noise(1, channels, *SHAPE), noise(1, channels, *SHAPE).double()):
            before = image.clone()
            assert operation(image).dtype == image.dtype
            assert torch.equal(image, before)

    # Those that give a scalar, or take a weight or displacement for one image, are no matter of batches here.
    @pytest.mark.parametrize(
        "name", [n for n in OPERATIONS if n not in ("diffusion_energy", "box_mean, weight", "warp")]
    )
    def test_a_batch_is_done_one_by_one(self, name):
        operation, channels = OPERATIONS[name]
        batch = noise(2, channels, *SHAPE)
        torch.testing.assert_close(operation(batch), torch.cat([operation(one) for one in batch.split(1)]))


class TestSampling:
    def test_positions_are_in_the_order_of_the_axes(self):
        positions = ops.identity_positions((2, 3, 4))
        assert positions.shape == (1, 3, 2, 3, 4)
        assert positions[0, :, 1, 2, 3].tolist() == [1, 2, 3]
        assert ops.identity_positions((2, 3, 4), dtype=torch.float64).dtype == torch.float64

    def test_values_at_voxels_and_between_them(self):
        image = ramp(SHAPE)
        positions = torch.tensor([[1.0, 2.0, 3.0], [1.5, 2.0, 3.0], [0.25, 4.5, 1.75]]).T.reshape(1, 3, 1, 1, 3)
        torch.testing.assert_close(ops.sample(image, positions).flatten(), torch.tensor([2.0, 2.5, 7.5]))
        nearest = ops.sample(image, positions[..., 2:] + 0.1, mode="nearest")
        assert float(nearest) == 0 + 2 * 5 - 2

    def test_border_and_zeros_outside(self):
        image = torch.ones(1, 1, 4, 4, 4)
        far = torch.full((1, 3, 1, 1, 1), 40.0)
        assert float(ops.sample(image, far)) == 1
        assert float(ops.sample(image, far, padding_mode="zeros")) == 0
        # Zeros begin one voxel beyond the outer ones; half of them counts at the outer face.
        face = torch.tensor([-0.5, 1.0, 1.0]).reshape(1, 3, 1, 1, 1)
        assert float(ops.sample(image, face, padding_mode="zeros")) == 0.5

    @pytest.fixture
    def three_threads(self) -> Iterator[None]:
        before = torch.get_num_threads()
        torch.set_num_threads(3)
        yield
        torch.set_num_threads(before)

    @pytest.mark.parametrize("depth", [2, 3, 7, 9])
    def test_slabs_leave_no_trace(self, depth, three_threads):
        image, positions = noise(1, 2, *SHAPE), 8 * noise(1, 3, depth, 4, 5) - 1
        in_slabs = ops.sample(image, positions)
        torch.testing.assert_close(
            in_slabs, ops.sample(image.repeat(2, 1, 1, 1, 1), positions.repeat(2, 1, 1, 1, 1))[:1]
        )

    @settings(max_examples=20, deadline=None)
    @given(shape=sizes)
    def test_no_displacement_changes_nothing(self, shape):
        image = noise(1, 2, *shape)
        torch.testing.assert_close(ops.warp(image, torch.zeros(1, 3, *shape)), image, atol=1e-5, rtol=0)

    @settings(max_examples=20, deadline=None)
    @given(shift=st.tuples(*[st.integers(-2, 2)] * 3))
    def test_whole_voxel_translation_is_a_shift(self, shift):
        image = noise(1, 1, 9, 10, 11)
        field = torch.tensor(shift, dtype=torch.float32).reshape(1, 3, 1, 1, 1).expand(1, 3, 9, 10, 11)
        expected = torch.roll(image, [-s for s in shift], (2, 3, 4))
        core = (..., slice(2, -2), slice(2, -2), slice(2, -2))
        torch.testing.assert_close(ops.warp(image, field)[core], expected[core], atol=1e-5, rtol=0)

    @pytest.mark.parametrize("axis", [2, 3, 4])
    def test_flipping_the_axes_commutes_with_warping(self, axis):
        image, field = noise(1, 1, *SHAPE), 3 * noise(1, 3, *SHAPE) - 1.5
        flipped = field.flip(axis)
        flipped[:, axis - 2] *= -1
        torch.testing.assert_close(
            ops.warp(image.flip(axis), flipped), ops.warp(image, field).flip(axis), atol=1e-5, rtol=0
        )

    def test_warping_is_that_of_itk(self):
        image, field = noise(1, 1, *SHAPE)[0, 0], 2 * noise(1, 3, *SHAPE, seed=1) - 1
        components = np.moveaxis(field[0].flip(0).double().numpy(), 0, -1)
        theirs = sitk.Warp(
            sitk.GetImageFromArray(image.numpy()), sitk.GetImageFromArray(np.ascontiguousarray(components), True)
        )
        ours = ops.warp(image[None, None], field, padding_mode="zeros")[0, 0].numpy()
        core = (slice(1, -1),) * 3
        np.testing.assert_allclose(ours[core], sitk.GetArrayFromImage(theirs)[core], atol=1e-5)

    def test_warping_has_the_right_gradient_in_image_and_displacement(self):
        # Off the voxel centres, where trilinear sampling has a kink.
        field = (0.3 + 0.2 * noise(1, 3, 4, 5, 4).double()).requires_grad_()
        assert gradcheck(ops.warp, (double(1, 1, 4, 5, 4), field), atol=1e-4)

    def test_inside_reaches_to_the_outer_faces(self):
        points = torch.tensor([[0.0, 0, 0], [0, 0, -0.5], [0, 0, -0.6], [1.5, 2.5, 3.5], [1.6, 2.5, 3.5]])
        expected = [True, True, False, True, False]
        assert ops.inside(points.T.reshape(1, 3, 1, 1, 5), (2, 3, 4)).flatten().tolist() == expected
        everywhere = ops.inside(ops.identity_positions((2, 3, 4)), (2, 3, 4))
        assert everywhere.shape == (1, 1, 2, 3, 4)
        assert everywhere.all()

    @pytest.mark.parametrize("mapped", [False, True])
    def test_positions_between_grids_go_through_space(self, any_grid, oblique_grid, mapped):
        matrix = np.eye(4)
        if mapped:
            matrix[:3, :3], matrix[:3, 3] = ops.rotation_matrix((0.3, -0.2, 0.5)), (4.0, -3.0, 2.0)
        positions = ops.positions_between(any_grid, oblique_grid, matrix if mapped else None)
        ijk = transform_points(any_grid.ijk_from_ras, transform_points(matrix, oblique_grid.points_ras()))
        np.testing.assert_allclose(positions[0].flip(0).permute(1, 2, 3, 0), ijk, atol=1e-4)

    def test_positions_far_from_the_origin_are_exact(self):
        matrix = np.diag([0.5, 0.5, 0.5, 1.0])
        matrix[:3, 3] = 1e5 / 3
        grid = Grid((3, 4, 5), matrix)
        torch.testing.assert_close(
            ops.positions_between(grid, grid), ops.identity_positions(grid.shape), atol=1e-6, rtol=0
        )

    @pytest.mark.parametrize("shape", [(10, 14, 12), (3, 3, 9), SHAPE])
    def test_resizing_keeps_the_outer_faces_in_place(self, shape):
        image = noise(1, 2, *SHAPE)
        factor = torch.tensor([old / new for old, new in zip(SHAPE, shape, strict=True)]).reshape(1, 3, 1, 1, 1)
        positions = (ops.identity_positions(shape) + 0.5) * factor - 0.5
        torch.testing.assert_close(ops.resize(image, shape), ops.sample(image, positions), atol=1e-5, rtol=0)
        assert ops.resize(image, SHAPE) is image


def literal_box_mean(volume: np.ndarray, half_width: int, weight: np.ndarray) -> np.ndarray:
    """Weighted means over boxes cut off at the border."""
    result = np.zeros_like(volume)
    for place in np.ndindex(*volume.shape):
        box = tuple(slice(max(n - half_width, 0), n + half_width + 1) for n in place)
        result[place] = (volume[box] * weight[box]).sum() / weight[box].sum()
    return result


class TestBoxMean:
    @pytest.mark.parametrize(("half_width", "stride"), list(product([0, 1, 2], [1, 2, 3])))
    @pytest.mark.parametrize("outside", ["zeros", "edge", "none"])
    def test_is_that_of_pooling(self, half_width, stride, outside):
        volume = noise(1, 2, *SHAPE)
        padding = [0 if outside == "none" else half_width] * 6
        padded = F.pad(volume, padding, mode="replicate" if outside == "edge" else "constant")
        expected = F.avg_pool3d(padded, 2 * half_width + 1, stride)
        found = ops.box_mean(volume, half_width, outside=outside, stride=stride)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)

    def test_of_a_bare_volume(self):
        volume = noise(*SHAPE)
        torch.testing.assert_close(ops.box_mean(volume, 1), ops.box_mean(volume[None, None], 1)[0, 0])

    @pytest.mark.parametrize("half_width", [1, 2])
    def test_weights_are_those_of_the_voxels(self, half_width):
        volume, weight = noise(1, 1, *SHAPE).double(), noise(1, 1, *SHAPE, seed=1).double() + 0.01
        expected = literal_box_mean(volume[0, 0].numpy(), half_width, weight[0, 0].numpy())
        found = ops.box_mean(volume, half_width, weight=weight)[0, 0]
        np.testing.assert_allclose(found, expected, rtol=1e-9)

    def test_voxels_without_weight_follow_their_neighbours(self):
        volume, weight = noise(1, 3, *SHAPE), torch.ones(1, 1, *SHAPE)
        weight[..., 2:4, 2:5, 1:4] = 0
        found = ops.box_mean(volume, 2, weight=weight)
        changed = torch.where(weight > 0, volume, torch.tensor(1.0) - volume)
        # A trace of weight is left everywhere.
        assert float((ops.box_mean(changed, 2, weight=weight) - found).abs().max()) < 0.01
        plain = ops.box_mean(volume, 1, outside="edge")
        torch.testing.assert_close(ops.box_mean(volume, 1, outside="edge", weight=0 * weight), plain)

    @pytest.mark.parametrize("outside", ["zeros", "edge"])
    def test_a_constant_stays_where_weights_count(self, outside):
        volume, weight = torch.full((1, 1, *SHAPE), 3.0), noise(1, 1, *SHAPE).round()
        found = ops.box_mean(volume, 2, outside=outside, stride=2, weight=weight)
        torch.testing.assert_close(found, torch.full_like(found, 3.0))

    def test_has_the_right_gradient_in_the_weight(self):
        weight = 0.1 + double(1, 1, 4, 3, 4, seed=1)
        assert gradcheck(lambda v, w: ops.box_mean(v, 1, weight=w), (double(1, 2, 4, 3, 4), weight))


class TestGaussianBlur:
    @pytest.mark.parametrize("sigma", [0.6, 1.5, (0.0, 0.7, 2.0)])
    @pytest.mark.parametrize("outside", ["edge", "zeros"])
    def test_is_a_convolution(self, sigma, outside):
        image = noise(1, 1, 12, 11, 13).double()
        expected = image
        for axis, width in enumerate(sigma if isinstance(sigma, tuple) else (sigma,) * 3):
            if width == 0:
                continue
            reach = max(round(3 * width), 1)
            kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / width) ** 2)
            shape = [1, 1, *np.where(np.arange(3) == axis, len(kernel), 1)]
            padding = [reach if axis == 2 - n // 2 else 0 for n in range(6)]
            padded = F.pad(expected, padding, mode="replicate" if outside == "edge" else "constant")
            expected = F.conv3d(padded, torch.from_numpy(kernel / kernel.sum()).reshape(shape))
        torch.testing.assert_close(ops.gaussian_blur(image, sigma, outside=outside), expected)

    def test_is_that_of_itk_on_smooth_images(self):
        image, sigma = ops.resize(noise(1, 1, 8, 8, 8), (32, 32, 32)), (1.0, 2.0, 1.5)
        variance = [s**2 for s in sigma[::-1]]
        theirs = sitk.DiscreteGaussian(sitk.GetImageFromArray(image[0, 0].numpy()), variance, 32, 1e-3, False)
        # ITK's kernel is the discrete analogue of a Gaussian; this one is a sampled Gaussian, cut off at three sigma.
        expected = torch.from_numpy(sitk.GetArrayFromImage(theirs))[None, None]
        assert float((ops.gaussian_blur(image, sigma) - expected).abs().max()) < 0.01
        assert float((ops.gaussian_blur(image, sigma[::-1]) - expected).abs().max()) > 0.03

    def test_an_impulse_keeps_its_mass_and_gets_the_variance(self):
        impulse = torch.zeros(1, 1, 25, 25, 25)
        impulse[..., 12, 12, 12] = 1
        blurred = ops.gaussian_blur(impulse, (1.0, 2.0, 3.0), outside="zeros")
        assert float(blurred.sum()) == pytest.approx(1, abs=1e-5)
        offsets = ops.identity_positions((25,) * 3) - 12
        sigmas = (offsets.square() * blurred).sum(dim=(2, 3, 4)).sqrt().flatten()
        np.testing.assert_allclose(sigmas, [1.0, 2.0, 3.0], rtol=0.03)

    def test_edges_are_replicated_or_zeros(self):
        ones = torch.ones(1, 1, *SHAPE)
        torch.testing.assert_close(ops.gaussian_blur(ones, 1.0), ones)
        assert float(ops.gaussian_blur(ones, 1.0, outside="zeros")[..., 0, 0, 0]) < 0.5
        assert ops.gaussian_blur(ones, 0) is ones


class TestBlocks:
    @pytest.mark.parametrize("stride", [1, 2, 3, 4])
    def test_means_of_blocks_the_last_ones_cut_off(self, stride):
        volume = noise(1, 1, *SHAPE).double()
        pooled = ops.avg_pool(volume, stride)
        assert pooled.shape[2:] == tuple(-(-n // stride) for n in SHAPE)
        for place in np.ndindex(*pooled.shape[2:]):
            block = tuple(slice(n * stride, (n + 1) * stride) for n in place)
            assert float(pooled[0, 0][place]) == pytest.approx(float(volume[0, 0][block].mean()))

    @pytest.mark.parametrize("stride", [1, 2, 4, 6])
    def test_pooling_and_upsampling_keep_a_linear_ramp_in_place(self, stride):
        image = ramp((24, 25, 31))
        back = ops.upsample(ops.avg_pool(image, stride), stride, image.shape[2:])
        assert back.shape == image.shape
        keep = (..., *[slice(stride, -2 * stride)] * 3)
        torch.testing.assert_close(back[keep], image[keep], atol=1e-3, rtol=0)

    def test_pooled_voxels_lie_where_the_grid_says(self, any_grid):
        whole = torch.from_numpy(any_grid.points_ras()).permute(3, 0, 1, 2)[None]
        blocks = ops.avg_pool(whole, 2)[0].permute(1, 2, 3, 0)[:7, :8, :10]
        np.testing.assert_allclose(blocks, any_grid.pooled(2, (7, 8, 10)).points_ras(), atol=1e-9)


class TestFields:
    @pytest.mark.parametrize("differences", ["central", "forward"])
    def test_jacobian_of_a_linear_map_is_its_determinant(self, differences):
        found = ops.jacobian_determinant(linear_field(MATRIX), differences)
        assert found.shape == ((1, *SHAPE) if differences == "central" else (1, *(n - 1 for n in SHAPE)))
        expected = torch.linalg.det(MATRIX + torch.eye(3, dtype=torch.float64))
        torch.testing.assert_close(found, expected.expand_as(found))

    @pytest.mark.parametrize("differences", ["central", "forward"])
    def test_jacobian_is_that_of_numpy(self, differences):
        field = noise(1, 3, *SHAPE).double()
        matrix = np.empty((*SHAPE, 3, 3))
        for row, column in product(range(3), range(3)):
            component = field[0, row].numpy()
            last = np.take(component, [-1], axis=column)
            forward = np.diff(component, axis=column, append=last)
            matrix[..., row, column] = np.gradient(component, axis=column) if differences == "central" else forward
        expected = np.linalg.det(matrix + np.eye(3))
        keep = (slice(None),) * 3 if differences == "central" else (slice(-1),) * 3
        np.testing.assert_allclose(ops.jacobian_determinant(field, differences)[0], expected[keep], rtol=1e-9)

    def test_jacobian_of_a_mirror_is_negative_and_of_nothing_one(self):
        mirror = linear_field(torch.diag(torch.tensor([-2.0, 0, 0])))
        torch.testing.assert_close(ops.jacobian_determinant(mirror), torch.full((1, *SHAPE), -1.0))
        for shape in ((1, 8, 9), (8, 1, 9), (8, 9, 1)):
            assert (ops.jacobian_determinant(torch.full((1, 3, *shape), 0.5)) == 1).all()

    def test_diffusion_energy_is_that_of_its_definition(self):
        field = noise(2, 3, *SHAPE).double().numpy()
        expected = sum((np.diff(field, axis=axis) ** 2).mean() for axis in (2, 3, 4))
        assert float(ops.diffusion_energy(torch.from_numpy(field))) == pytest.approx(expected)

    def test_diffusion_energy_by_hand(self):
        field = torch.zeros(1, 3, 4, 5, 6)
        field[0, 0] = 2 * torch.arange(4.0).reshape(4, 1, 1)
        # Differences of 2 in one of three components along d.
        assert float(ops.diffusion_energy(field)) == pytest.approx(4 / 3)
        assert float(ops.diffusion_energy(field + 7)) == pytest.approx(4 / 3)
        assert float(ops.diffusion_energy(torch.ones(1, 3, 4, 1, 6))) == 0

    def test_gradient_magnitude_is_that_of_numpy(self):
        image = noise(1, 1, *SHAPE).double()
        expected = np.sqrt(sum(g**2 for g in np.gradient(image[0, 0].numpy())))
        np.testing.assert_allclose(ops.gradient_magnitude(image)[0, 0], expected, rtol=1e-9)
        torch.testing.assert_close(ops.gradient_magnitude(ramp(SHAPE)), torch.full((1, 1, *SHAPE), 6**0.5))

    def test_gradient_magnitude_of_a_flat_image(self):
        flat = torch.full((1, 1, 1, 4, 4), 3.0, requires_grad=True)
        magnitude = ops.gradient_magnitude(flat)
        assert not magnitude.any()
        (gradient,) = torch.autograd.grad(magnitude.sum(), flat)
        assert bool(torch.isfinite(gradient).all())

    def test_integration_of_a_constant_velocity_is_a_translation(self):
        velocity = torch.tensor([1.5, -0.5, 0.25]).reshape(1, 3, 1, 1, 1).expand(1, 3, *SHAPE)
        torch.testing.assert_close(ops.integrate_velocity(velocity), velocity.contiguous())
        assert not ops.integrate_velocity(0 * velocity).any()

    def test_integration_of_a_linear_velocity_is_the_matrix_exponential(self):
        shape, middle = (21, 21, 21), torch.full((1, 3, 1, 1, 1), 10.0, dtype=torch.float64)
        positions = ops.identity_positions(shape, dtype=torch.float64) - middle
        flow = ops.integrate_velocity((0.5 * MATRIX @ positions.flatten(2)).reshape(positions.shape), 10)
        rest = torch.matrix_exp(0.5 * MATRIX) - torch.eye(3, dtype=torch.float64)
        expected = (rest @ positions.flatten(2)).reshape(positions.shape)
        core = (..., *[slice(5, -5)] * 3)
        torch.testing.assert_close(flow[core], expected[core], atol=2e-3, rtol=0)

    def test_integration_does_not_fold_where_the_velocity_would_and_can_be_undone(self):
        positions = ops.identity_positions((24, 24, 24)) * (2 * math.pi / 12)
        velocity = 3 * torch.sin(positions.flip(1)) + 2 * torch.sin(positions)
        assert float(ops.jacobian_determinant(velocity).min()) < 0
        assert float(ops.jacobian_determinant(ops.integrate_velocity(velocity)).min()) > 0
        forth, back = ops.integrate_velocity(0.2 * velocity), ops.integrate_velocity(-0.2 * velocity)
        core = (..., *[slice(2, -2)] * 3)
        assert float((forth + ops.warp(back, forth))[core].abs().max()) < 0.05
        assert float(forth[core].abs().max()) > 0.8

    def test_integration_follows_the_velocity(self):
        """Against Euler's method with many small steps."""
        d, h, w = ops.identity_positions((16, 16, 16))[0]
        velocity = torch.stack([torch.sin(h / 4), torch.cos(w / 5), torch.sin(d / 6 + 1)])[None]
        displacement, steps = torch.zeros_like(velocity), 200
        for _ in range(steps):
            displacement = displacement + ops.warp(velocity, displacement) / steps
        # At the border the flow enters from outside, where the two continue differently.
        core = (..., *[slice(2, -2)] * 3)
        assert float((ops.integrate_velocity(velocity) - displacement)[core].abs().max()) < 0.05

    def test_the_same_field_at_twice_the_resolution(self):
        # u = 0.1 (x - 1.5) on the coarse grid is 0.1 (x' - 3.5) on the fine one, in its own voxels.
        fine = ops.upsample_field(0.1 * (ops.identity_positions((4, 4, 4)) - 1.5), (8, 7, 8))
        assert fine.shape == (1, 3, 8, 7, 8)
        expected = 0.1 * (ops.identity_positions((8, 7, 8)) - 3.5)
        core = (..., *[slice(1, -1)] * 3)
        torch.testing.assert_close(fine[core], expected[core])


class TestTiling:
    @settings(max_examples=60, deadline=None)
    @given(
        shape=st.tuples(*[st.integers(1, 30)] * 3),
        counts=st.tuples(*[st.integers(1, 5)] * 3),
        margin=st.integers(0, 6),
        multiple=st.integers(1, 4),
    )
    def test_cores_make_up_the_grid_with_margins_inside_it(self, shape, counts, margin, multiple):
        parts = ops.tiles(shape, counts, margin, multiple=multiple)
        count = np.zeros(shape, dtype=int)
        for part in parts:
            count[part.core] += 1
            assert all(place.start % multiple == 0 for place in part.core)
            for core, around, n in zip(part.core, part.around, shape, strict=True):
                assert (around.start, around.stop) == (max(core.start - margin, 0), min(core.stop + margin, n))
            positions = np.arange(np.prod(shape)).reshape(shape)
            np.testing.assert_array_equal(positions[part.around][part.inner], positions[part.core])
            assert part.voxels == positions[part.around].size
        assert (count == 1).all()
        assert len(parts) <= np.prod(counts)

    def test_parts_are_about_equal(self):
        assert [part.core[0] for part in ops.tiles((10, 1, 1), (3, 1, 1), 0)] == [
            slice(0, 4),
            slice(4, 8),
            slice(8, 10),
        ]
        assert [part.core[0].start for part in ops.tiles((10, 1, 1), (3, 1, 1), 2, multiple=4)] == [0, 4, 8]


class TestRotation:
    @settings(max_examples=40, deadline=None)
    @given(vector=st.tuples(*[st.floats(-1.8, 1.8)] * 3))
    def test_is_that_of_itk(self, vector):
        angle = float(np.linalg.norm(vector))
        matrix = ops.rotation_matrix(vector)
        theirs = sitk.VersorTransform(tuple(np.array(vector) / angle) if angle > 1e-6 else (0, 0, 1), angle)
        np.testing.assert_allclose(matrix, np.reshape(theirs.GetMatrix(), (3, 3)), atol=2e-6)
        np.testing.assert_allclose(matrix @ ops.rotation_matrix(-np.array(vector)), np.eye(3), atol=1e-12)
        assert np.linalg.det(matrix) == pytest.approx(1)

    @pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-4, 0.3, 2.0, math.pi - 1e-6, math.pi])
    def test_angle_comes_back_however_small(self, angle):
        axis = np.array([1.0, -2.0, 0.7]) / np.linalg.norm([1.0, -2.0, 0.7])
        assert ops.rotation_angle(ops.rotation_matrix(angle * axis)) == pytest.approx(angle, rel=1e-6, abs=1e-15)

    def test_a_quarter_turn_by_hand(self):
        np.testing.assert_allclose(ops.rotation_matrix((0, 0, math.pi / 2)) @ [1, 0, 0], [0, 1, 0], atol=1e-12)


def test_the_room_says_what_it_holds():
    assert sorted(ops.__all__) == ops.__all__
    assert all(hasattr(ops, name) for name in ops.__all__)

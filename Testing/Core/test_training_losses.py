"""Losses of the registration networks against slow transcriptions, and their gradients."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from MMRegCore.ops import diffusion_energy, identity_positions, jacobian_determinant, warp
from MMRegCore.similarity.descriptors.mind import Mind, mind_ssc
from MMRegCore.similarity.ncc import Ncc
from MMRegCore.similarity.nmi import Nmi
from MMRegCore.similarity.protocol import Descriptor
from MMRegCore.training.recipes.losses import (
    encoded_loss,
    folding_loss,
    known_displacement_loss,
    latent_loss,
    soft_dice_loss,
    warped_loss,
)

SHAPE = (5, 6, 7)


def image(seed=0, shape=SHAPE):
    return torch.rand((1, 1, *shape), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def field(seed=0, size=1.0, shape=SHAPE):
    return size * torch.randn((1, 3, *shape), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def learned(tensor):
    return tensor.clone().requires_grad_(True)


class Slopes(Descriptor):
    """Intensity and its difference along w, compared by their direction; encoded without gradient, as networks are."""

    best, unit, differentiable = 1.0, True, False

    @torch.no_grad()
    def encode_moving(self, image, weight):
        return torch.cat([image, image.diff(dim=4, append=image[..., -1:])], dim=1)


@pytest.mark.parametrize(
    ("loss", "start"),
    [
        (lambda x: Mind(1, 1).loss(image(1), x), image()),
        (lambda x: Ncc(1).loss(image(1), x), image()),
        (lambda x: encoded_loss(Nmi(8), image(1), x), image()),
        (lambda x: encoded_loss(Slopes(), field(1), x), field()),
        (lambda x: warped_loss(Mind(1, 1), image(1), image(2), x), 0.3 * field()),
        (lambda x: warped_loss(Slopes(), image(1), image(2), x), 0.3 * field()),
        (diffusion_energy, field()),
        (folding_loss, field(size=2.0)),
        (lambda x: latent_loss(x, 0.5 * x), field()),
        (lambda x: known_displacement_loss(image(1), x, field(1)), field()),
        (lambda x: soft_dice_loss((image(1) * 3).round(), (image(2) * 3).round(), x), 0.3 * field()),
    ],
    ids=[
        "mind",
        "local correlation",
        "mutual information",
        "cosine",
        "warped, then encoded",
        "encoded, then warped",
        "diffusion",
        "folding",
        "latent",
        "known displacement",
        "dice",
    ],
)
def test_gradients(loss, start):
    assert float(loss(start)) != 0
    assert gradcheck(loss, (learned(start),), fast_mode=True)


def test_mind_loss_compares_descriptors_and_is_invariant_to_contrast():
    one, two = image().float(), image(1).float()
    difference = mind_ssc(one, radius=1, dilation=1) - mind_ssc(two, radius=1, dilation=1)
    squared = Mind(1, 1).loss(one, two)
    assert float(squared) == pytest.approx(float(difference.square().mean()), rel=1e-5)
    absolute = Mind(1, 1, "l1").loss(one, two)
    assert float(absolute) == pytest.approx(float(difference.abs().mean()), rel=1e-5)
    assert float(Mind(1, 1).loss(one, 1 - 0.5 * one)) < 1e-8


def test_mind_loss_of_a_batch_is_the_mean_over_it():
    ones, twos = torch.cat([image(), image(2)]), torch.cat([image(1), image(3)])
    each = [float(Mind(2, 2).loss(a, b)) for a, b in zip(ones.split(1), twos.split(1), strict=True)]
    assert float(Mind(2, 2).loss(ones, twos)) == pytest.approx(sum(each) / 2)


def test_local_correlation_is_invariant_to_linear_changes():
    one = image(shape=(8, 8, 8))
    assert float(Ncc(2).loss(one, 0.3 * one + 0.2)) < 0.01
    assert float(Ncc(2).loss(one, image(9, (8, 8, 8)))) > 0.9


def test_mutual_information_tells_dependence():
    one = image(shape=(12, 12, 12))
    same, inverted, other = one, 1 - one, image(4, (12, 12, 12))
    dependent = float(Nmi().loss(one, same))
    assert float(Nmi().loss(one, inverted)) == pytest.approx(dependent, abs=1e-6)
    assert dependent < 0.7
    assert float(Nmi().loss(one, other)) > 0.9


def test_the_loss_of_unit_vectors_is_of_their_angles():
    one = torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1, 1)
    for angle in (0.0, 0.5, math.pi / 2, math.pi):
        other = 3 * torch.tensor([math.cos(angle), math.sin(angle)]).reshape(1, 2, 1, 1, 1)
        assert float(encoded_loss(Slopes(), one, other)) == pytest.approx(1 - math.cos(angle), abs=1e-6)


def test_what_encodes_without_a_gradient_is_warped_afterwards():
    """The displacement has a gradient all the same."""
    fixed, moving = image(1, (8, 8, 8)).float(), image(2, (8, 8, 8)).float()
    shift = torch.zeros(1, 3, 8, 8, 8)
    shift[:, 2] = 1.0
    shift.requires_grad_(True)
    found = warped_loss(Slopes(), fixed, moving, shift)
    slopes = [Slopes().encode_moving(each, None) for each in (fixed, moving)]
    angles = torch.nn.functional.cosine_similarity(slopes[0], warp(slopes[1], shift), dim=1)
    torch.testing.assert_close(found, 1 - angles.mean())
    found.backward()
    assert shift.grad.abs().sum() > 0


def test_diffusion_is_that_of_the_equation():
    u = field()
    expected = 0.0
    for axis in range(3):
        squares = []
        for index in torch.cartesian_prod(*(torch.arange(n) for n in u.shape[1:])).tolist():
            beyond = list(index)
            beyond[axis + 1] += 1
            if beyond[axis + 1] < u.shape[axis + 2]:
                squares.append(float(u[0][tuple(beyond)] - u[0][tuple(index)]) ** 2)
        expected += sum(squares) / len(squares)
    assert float(diffusion_energy(u)) == pytest.approx(expected)


def test_the_jacobian_determinant_of_a_linear_map():
    matrix = torch.tensor([[0.1, 0.2, -0.1], [0.3, -0.2, 0.1], [0.05, 0.1, 0.4]], dtype=torch.float64)
    x = identity_positions(SHAPE, dtype=torch.float64)
    u = torch.einsum("ij,bjdhw->bidhw", matrix, x)
    expected = float(torch.linalg.det(matrix + torch.eye(3, dtype=torch.float64)))
    found = jacobian_determinant(u, "forward")
    assert found.shape == (1, 4, 5, 6)
    torch.testing.assert_close(found, torch.full_like(found, expected))


def test_folding_counts_only_what_folds():
    x = identity_positions(SHAPE, dtype=torch.float64)
    assert float(folding_loss(0.2 * x)) == 0
    turned = torch.zeros_like(x)
    turned[:, 0] = -1.5 * x[:, 0]  # d → -d/2
    assert float(folding_loss(turned)) == pytest.approx(0.5)


def test_latent_divergence_is_that_of_normal_distributions():
    mean, log_variance = torch.tensor([0.3, -1.2, 0.0]), torch.tensor([0.5, -0.7, 0.0])
    distribution = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    expected = torch.distributions.kl_divergence(distribution, torch.distributions.Normal(0.0, 1.0)).mean()
    assert float(latent_loss(mean, log_variance)) == pytest.approx(float(expected), rel=1e-6)
    assert float(latent_loss(torch.zeros(4), torch.zeros(4))) == 0


def test_known_displacements_count_where_the_fixed_image_is_not_dark():
    fixed = torch.zeros(1, 1, *SHAPE, dtype=torch.float64)
    fixed[..., 2, 3, 4] = fixed[..., 1, 1, 1] = 0.5
    found, known = field(1), field(2)
    apart = (found - known).square().sum(dim=1)[0]
    assert known_displacement_loss(fixed, found, known) == pytest.approx(float(apart[2, 3, 4] + apart[1, 1, 1]) / 2)
    assert known_displacement_loss(fixed, found, None) == 0
    assert known_displacement_loss(0 * fixed, found, known) == 0


def test_soft_dice_of_whole_voxels_is_dice():
    fixed, moving = ((image(n) * 3).round() for n in (1, 2))
    zero = torch.zeros(1, 3, *SHAPE, dtype=torch.float64)
    values = []
    for label in (1, 2, 3):
        a, b = fixed == label, moving == label
        values.append(2 * int((a & b).sum()) / (int(a.sum()) + int(b.sum())))
    assert float(soft_dice_loss(fixed, moving, zero)) == pytest.approx(1 - sum(values) / 3)
    assert float(soft_dice_loss(fixed, fixed, zero)) == pytest.approx(0)
    torch.manual_seed(0)
    some = {round(float(soft_dice_loss(fixed, moving, zero, most=1)), 6) for _ in range(20)}
    assert some == {round(1 - value, 6) for value in values}


def test_soft_dice_without_common_labels_has_no_gradient():
    zero = torch.zeros(1, 3, *SHAPE).requires_grad_(True)
    loss = soft_dice_loss(torch.ones(1, 1, *SHAPE), 2 * torch.ones(1, 1, *SHAPE), zero)
    loss.backward()
    assert float(loss.detach()) == 0

"""Losses of the registration networks against slow transcriptions, and their gradients."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from MMRegCore.features.mind import mind_ssc
from MMRegCore.networks.flow import positions_of
from MMRegCore.training.losses import (
    cosine_loss,
    diffusion_loss,
    folding_loss,
    jacobian_determinant,
    known_loss,
    latent_loss,
    local_correlation_loss,
    mind_loss,
    mutual_information_loss,
    soft_dice_loss,
)

SHAPE = (5, 6, 7)


def image(seed=0, shape=SHAPE):
    return torch.rand((1, 1, *shape), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def field(seed=0, size=1.0, shape=SHAPE):
    return size * torch.randn((1, 3, *shape), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def learned(tensor):
    return tensor.clone().requires_grad_(True)


@pytest.mark.parametrize(
    ("loss", "start"),
    [
        (lambda x: mind_loss(image(1), x, radius=1, dilation=1), image()),
        (lambda x: local_correlation_loss(image(1), x, window=3), image()),
        (lambda x: mutual_information_loss(image(1), x, bins=8), image()),
        (lambda x: cosine_loss(field(1), x), field()),
        (diffusion_loss, field()),
        (folding_loss, field(size=2.0)),
        (lambda x: latent_loss(x, 0.5 * x), field()),
        (lambda x: known_loss(image(1), x, field(1)), field()),
        (lambda x: soft_dice_loss((image(1) * 3).round(), (image(2) * 3).round(), x), 0.3 * field()),
    ],
    ids=[
        "mind",
        "local correlation",
        "mutual information",
        "cosine",
        "diffusion",
        "folding",
        "latent",
        "known",
        "dice",
    ],
)
def test_gradients(loss, start):
    assert float(loss(start)) != 0
    assert gradcheck(loss, (learned(start),), fast_mode=True)


def test_mind_loss_compares_descriptors_and_knows_no_contrast():
    one, two = image().float(), image(1).float()
    difference = mind_ssc(one, radius=1, dilation=1) - mind_ssc(two, radius=1, dilation=1)
    squared = mind_loss(one, two, radius=1, dilation=1)
    assert float(squared) == pytest.approx(float(difference.square().mean()), rel=1e-5)
    absolute = mind_loss(one, two, radius=1, dilation=1, squared=False)
    assert float(absolute) == pytest.approx(float(difference.abs().mean()), rel=1e-5)
    assert float(mind_loss(one, 1 - 0.5 * one, radius=1, dilation=1)) < 1e-8


def test_mind_loss_of_a_batch_is_the_mean_over_it():
    ones, twos = torch.cat([image(), image(2)]), torch.cat([image(1), image(3)])
    each = [float(mind_loss(a, b)) for a, b in zip(ones.split(1), twos.split(1), strict=True)]
    assert float(mind_loss(ones, twos)) == pytest.approx(sum(each) / 2)


def test_local_correlation_knows_no_linear_change():
    one = image(shape=(8, 8, 8))
    assert float(local_correlation_loss(one, 0.3 * one + 0.2, window=5)) < 0.01
    assert float(local_correlation_loss(one, image(9, (8, 8, 8)), window=5)) > 0.9


def test_mutual_information_tells_dependence():
    one = image(shape=(12, 12, 12))
    same, inverted, other = one, 1 - one, image(4, (12, 12, 12))
    dependent = float(mutual_information_loss(one, same))
    assert float(mutual_information_loss(one, inverted)) == pytest.approx(dependent, abs=1e-6)
    assert dependent < 0.7
    assert float(mutual_information_loss(one, other)) > 0.9


def test_cosine_loss_is_of_angles():
    one = torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1, 1)
    for angle in (0.0, 0.5, math.pi / 2, math.pi):
        other = 3 * torch.tensor([math.cos(angle), math.sin(angle)]).reshape(1, 2, 1, 1, 1)
        assert float(cosine_loss(one, other)) == pytest.approx(1 - math.cos(angle), abs=1e-6)


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
    assert float(diffusion_loss(u)) == pytest.approx(expected)


def test_the_jacobian_determinant_of_a_linear_map():
    matrix = torch.tensor([[0.1, 0.2, -0.1], [0.3, -0.2, 0.1], [0.05, 0.1, 0.4]], dtype=torch.float64)
    x = positions_of(image())
    u = torch.einsum("ij,bjdhw->bidhw", matrix, x)
    expected = float(torch.linalg.det(matrix + torch.eye(3, dtype=torch.float64)))
    found = jacobian_determinant(u)
    assert found.shape == (1, 4, 5, 6)
    torch.testing.assert_close(found, torch.full_like(found, expected))


def test_folding_counts_only_what_folds():
    x = positions_of(image())
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


def test_known_loss_counts_what_can_be_seen():
    fixed = torch.zeros(1, 1, *SHAPE, dtype=torch.float64)
    fixed[..., 2, 3, 4] = fixed[..., 1, 1, 1] = 0.5
    found, known = field(1), field(2)
    apart = (found - known).square().sum(dim=1)[0]
    assert known_loss(fixed, found, known) == pytest.approx(float(apart[2, 3, 4] + apart[1, 1, 1]) / 2)
    assert known_loss(fixed, found, None) == 0
    assert known_loss(0 * fixed, found, known) == 0


def test_soft_dice_of_whole_voxels_is_dice():
    fixed, moving = ((image(n) * 3).round() for n in (1, 2))
    still = torch.zeros(1, 3, *SHAPE, dtype=torch.float64)
    values = []
    for label in (1, 2, 3):
        a, b = fixed == label, moving == label
        values.append(2 * int((a & b).sum()) / (int(a.sum()) + int(b.sum())))
    assert float(soft_dice_loss(fixed, moving, still)) == pytest.approx(1 - sum(values) / 3)
    assert float(soft_dice_loss(fixed, fixed, still)) == pytest.approx(0)
    torch.manual_seed(0)
    some = {round(float(soft_dice_loss(fixed, moving, still, most=1)), 6) for _ in range(20)}
    assert some == {round(1 - value, 6) for value in values}


def test_soft_dice_without_common_labels_says_nothing():
    still = torch.zeros(1, 3, *SHAPE).requires_grad_(True)
    loss = soft_dice_loss(torch.ones(1, 1, *SHAPE), 2 * torch.ones(1, 1, *SHAPE), still)
    loss.backward()
    assert float(loss.detach()) == 0

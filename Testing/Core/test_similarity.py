"""Similarity terms against their definitions, written out with numpy."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from MMRegCore.errors import InputError
from MMRegCore.similarity import explained_share, lc2, lc2_regressors, mind_distance, normalised_mutual_information

SHAPE = (1, 1, 9, 11, 10)


def noise(seed: int, channels: int = 1) -> torch.Tensor:
    return torch.rand((1, channels, *SHAPE[2:]), generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def mask() -> torch.Tensor:
    inside = torch.zeros(SHAPE, dtype=torch.bool)
    inside[..., 2:8, 3:9, 1:7] = True
    return inside


def studholme(a: np.ndarray, b: np.ndarray, bins: int) -> float:
    joint = np.histogram2d(a, b, bins=bins)[0] / a.size
    entropies = [-(p[p > 0] * np.log(p[p > 0])).sum() for p in (joint.sum(0), joint.sum(1), joint)]
    return (entropies[0] + entropies[1]) / entropies[2]


def test_mind_distance_is_the_mean_squared_difference_inside_the_mask(mask: torch.Tensor) -> None:
    fixed, moving = noise(0, 12), noise(1, 12)
    moving[:, :, 0] = 1e6  # outside of the mask
    where = mask[0, 0].numpy()
    expected = ((fixed - moving).numpy()[0, :, where] ** 2).mean()
    assert float(mind_distance(fixed, moving, mask)) == pytest.approx(expected, rel=1e-5)
    assert float(mind_distance(fixed, fixed, mask)) == 0


def test_mind_distance_has_the_right_gradient(mask: torch.Tensor) -> None:
    small = (slice(None), slice(None), slice(1, 5), slice(2, 6), slice(0, 4))
    pair = [noise(seed, 2)[small].double().requires_grad_() for seed in (2, 3)]
    assert torch.autograd.gradcheck(lambda a, b: mind_distance(a, b, mask[small]), pair)


def test_nmi_agrees_with_numpy_where_no_tail_is_cut() -> None:
    # Every value fills at least 0.5 % of the voxels, so that both use the same bins.
    generator = np.random.default_rng(4)
    a = generator.integers(0, 16, 4000)
    b = (a + generator.integers(0, 5, 4000)) % 16
    tensors = [torch.from_numpy(v).reshape(1, 1, 10, 20, 20).float() for v in (a, b)]
    everywhere = torch.ones(1, 1, 10, 20, 20, dtype=torch.bool)
    measured = float(normalised_mutual_information(*tensors, everywhere, bins=16))
    assert measured == pytest.approx(studholme(a, b, 16), rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), bins=st.integers(4, 64), gain=st.floats(0.1, 50), offset=st.floats(-100, 100))
def test_nmi_lies_between_its_bounds_and_is_symmetric(seed: int, bins: int, gain: float, offset: float) -> None:
    everywhere = torch.ones(SHAPE, dtype=torch.bool)
    a, b = noise(seed), noise(seed + 1)
    forth = float(normalised_mutual_information(a, b, everywhere, bins=bins))
    back = float(normalised_mutual_information(b, a, everywhere, bins=bins))
    assert 1 - 1e-9 <= forth <= 2
    assert forth == pytest.approx(back, rel=1e-12)
    assert float(normalised_mutual_information(a, -a.double() * gain + offset, everywhere, bins=8)) > 1.9


def test_nmi_of_an_image_with_itself_is_two_and_of_noise_near_one(mask: torch.Tensor) -> None:
    a = noise(5)
    assert float(normalised_mutual_information(a, a, mask)) == pytest.approx(2)
    large = [torch.rand((1, 1, 40, 40, 40), generator=torch.Generator().manual_seed(s)) for s in (6, 7)]
    everywhere = torch.ones_like(large[0], dtype=torch.bool)
    assert float(normalised_mutual_information(*large, everywhere)) < 1.005


def test_nmi_ignores_what_lies_outside_of_the_mask(mask: torch.Tensor) -> None:
    a, b = noise(8), noise(8) * 3 + 0.1 * noise(9)
    plain = float(normalised_mutual_information(a, b, mask))
    b[..., 0] = 1e7
    assert float(normalised_mutual_information(a, b, mask)) == plain


def test_nmi_survives_single_hot_voxels() -> None:
    a = torch.rand((1, 1, 20, 20, 20), generator=torch.Generator().manual_seed(8))
    b, everywhere = a.clone(), torch.ones_like(a, dtype=torch.bool)
    b[0, 0, 4, 5, 3] = 1e7
    b[0, 0, 9, 9, 9] = -1e7
    assert float(normalised_mutual_information(a, b, everywhere)) > 1.9


def test_nmi_of_constant_images_tells_nothing(mask: torch.Tensor) -> None:
    flat = torch.full(SHAPE, 3.0)
    assert float(normalised_mutual_information(flat, noise(1), mask)) == pytest.approx(1)
    assert float(normalised_mutual_information(flat, flat, mask)) == 1


@pytest.mark.parametrize("term", [mind_distance, normalised_mutual_information])
def test_unusable_input_is_named(term: Callable[..., torch.Tensor], mask: torch.Tensor) -> None:
    with pytest.raises(InputError, match="at least one voxel"):
        term(noise(0), noise(1), torch.zeros_like(mask))
    with pytest.raises(InputError, match=r"expected two images .* got \(1, 1, 9, 11, 10\), \(1, 1, 9, 11, 9\)"):
        term(noise(0), noise(1)[..., :-1], mask)
    with pytest.raises(InputError, match="a mask"):
        term(noise(0), noise(1), mask[0, 0])


def explained_by_least_squares(u: np.ndarray, regressors: list[np.ndarray]) -> float:
    design = np.stack([np.ones_like(u), *regressors], axis=1)
    rest = u - design @ np.linalg.lstsq(design, u, rcond=None)[0]
    return 1 - rest.var() / u.var()


def test_the_explained_share_is_that_of_least_squares_in_each_patch(mask: torch.Tensor) -> None:
    fixed, regressors, weight = noise(5).double(), noise(6, 4).double(), mask.double()
    share, variance, support = explained_share(fixed, regressors, weight, radius=1, ridge=0)
    for d, h, w in ((3, 4, 2), (2, 3, 1), (7, 8, 6)):  # inside, and where the mask cuts the patch
        patch = tuple(slice(max(n - 1, 0), n + 2) for n in (d, h, w))
        inside = mask[0, 0][patch].numpy()
        u = fixed[0, 0][patch].numpy()[inside]
        columns = [regressors[0, k][patch].numpy()[inside] for k in range(4)]
        assert float(support[0, 0, d, h, w]) == pytest.approx(inside.sum() / 27)
        assert float(variance[0, 0, d, h, w]) == pytest.approx(u.var(), rel=1e-6)
        assert float(share[0, 0, d, h, w]) == pytest.approx(
            min(explained_by_least_squares(u, columns), 0.999), rel=1e-6
        )


def test_a_stride_picks_every_second_patch(mask: torch.Tensor) -> None:
    every = explained_share(noise(5), noise(6, 2), mask.float(), radius=2)
    some = explained_share(noise(5), noise(6, 2), mask.float(), radius=2, stride=2)
    for a, b in zip(every, some, strict=True):
        torch.testing.assert_close(a[..., ::2, ::2, ::2], b)


def test_lc2_sees_through_an_unknown_linear_relation_and_nothing_else() -> None:
    image = torch.nn.functional.avg_pool3d(noise(7).repeat(1, 1, 3, 3, 3), 3, stride=1)
    everywhere = torch.ones_like(image, dtype=torch.bool)
    regressors = lc2_regressors(image, everywhere.float())
    related = 40 - 3 * regressors[:, :1] + 2 * regressors[:, 1:]
    assert float(lc2(related, regressors, everywhere, radius=2)) > 0.97
    assert float(lc2(related.flip(2), regressors, everywhere, radius=2)) < 0.3


def test_lc2_does_not_change_with_brightness_and_contrast() -> None:
    fixed, regressors, everywhere = noise(8), noise(9, 2), torch.ones(SHAPE, dtype=torch.bool)
    once = float(lc2(fixed, regressors, everywhere, radius=2))
    again = float(lc2(200 + 50 * fixed, 7 - 30 * regressors, everywhere, radius=2))
    assert again == pytest.approx(once, rel=1e-4)


def test_lc2_has_the_right_gradient(mask: torch.Tensor) -> None:
    small = (slice(None), slice(None), slice(1, 5), slice(2, 6), slice(0, 4))
    fixed = noise(2)[small].double().requires_grad_()
    moving = noise(3, 2)[small].double().requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: lc2(a, b, mask[small], radius=1), [fixed, moving])


def test_lc2_refuses_images_of_different_sizes(mask: torch.Tensor) -> None:
    with pytest.raises(InputError, match="expected two images"):
        lc2(noise(0), noise(1, 2)[..., :-1], mask)

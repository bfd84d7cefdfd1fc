"""Cases as hard as patients: confounds, heads with skull and scalp, far starts, and how hard they are."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from benchmarks import discriminability, hard
from benchmarks.cases import SETS
from benchmarks.discriminability import Standing, false_poses, standing, true_pose
from benchmarks.problem import Problem
from MMRegCore.errors import InputError
from MMRegCore.geometry import Grid
from MMRegCore.ops import rotation_matrix
from MMRegCore.prepare import prepare
from MMRegCore.resampling import resample
from MMRegCore.search.sampled import Levels
from MMRegCore.simulate import (
    Anatomy,
    BrainShiftSettings,
    Cone,
    ConeSettings,
    ConfoundSettings,
    HeadSettings,
    Probe,
    SimulatedCase,
    anatomy_from_labels,
    render_head,
    simulate,
    with_glioma,
    with_thin_sulci,
)
from MMRegCore.simulate.beams import BeamGrid
from MMRegCore.simulate.confounds import contact_band, decoy_points, trend, unmatched_share, vessels
from MMRegCore.transform import SpatialTransform
from MMRegCore.volume import Volume
from scenes import box, scene

SMALL_CONE = ConeSettings(depth_mm=24.0, sweep_mm=18.0, half_angle_deg=12.0)
NUMBERS = {"white": (2,), "grey": (3,), "csf": (24,), "ventricles": (4,)}


@cache
def head() -> tuple[Volume, Anatomy]:
    """Balls within balls, 2 mm voxels: white and grey matter, fluid, bone, soft tissue, skin; and its anatomy."""
    matrix = np.diag([2.0, 2.0, 2.0, 1.0])
    matrix[:3, 3] = -60
    grid = Grid((61, 61, 61), matrix)
    x, y, z = np.moveaxis(grid.points_ras(), -1, 0)
    radius = np.sqrt(x**2 + y**2 + z**2) + 2 * np.sin(x / 4) * np.sin(y / 5)
    labels = np.zeros(grid.shape, dtype=np.float32)
    for limit, label in ((57, 511), (55, 507), (52, 515), (46, 24), (43, 3), (37, 2)):
        labels[radius < limit] = label
    labels[(np.abs((y + 7) % 16 - 8) < 1.2) & (radius > 30) & (radius < 43)] = 24
    labels[np.sqrt((x - 10) ** 2 + (y + 3) ** 2 + z**2) < 9] = 4
    volume = Volume(torch.from_numpy(labels)[None], grid, name="labels")
    return volume, anatomy_from_labels([], volume, NUMBERS)


@cache
def beams() -> BeamGrid:
    probe = Probe(np.array([0.0, 0.0, 45.0]), np.array([[1.0, 0, 0], [0, -1.0, 0], [0, 0, -1.0]]).T)
    return BeamGrid.of(Cone(probe, SMALL_CONE))


@cache
def case(confounds: ConfoundSettings | None = None) -> SimulatedCase:
    labels, anatomy = head()
    images = (render_head(labels, anatomy, "t1", HeadSettings(blur_mm=0), seed=1),)
    return simulate(
        replace(anatomy, images=images),
        entry_direction_ras=(0.3, 0.2, 0.9),
        spacing_mm=1.2,
        shift=BrainShiftSettings(translation_mm=1.0, rotation_deg=1.0),
        cone=SMALL_CONE,
        confounds=confounds,
        seed=3,
    )


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 1.0])
def test_the_wanted_share_has_no_counterpart(share):
    found = unmatched_share(beams(), ConfoundSettings(unmatched=share, region_mm=2.0), 0)
    assert found.shape == beams().shape
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    assert abs(float(found.mean()) - share) < 0.05


def test_the_other_place_is_as_deep_and_far_off():
    here, there = beams().points_ras, decoy_points(beams(), 0)
    middle = here[tuple(n // 2 for n in beams().shape[:2])]
    direction = (middle[-1] - middle[0]) / np.linalg.norm(middle[-1] - middle[0])
    assert np.abs((there - here) @ direction).max() < 1e-9
    assert np.linalg.norm(there - here, axis=-1).mean() > 8


def test_a_trend_of_no_decibels_is_none():
    none = trend(beams(), ConfoundSettings(trend_db=0, depth_trend_db=0), 0)
    assert torch.equal(none.expand(beams().shape), torch.ones(beams().shape))
    some = 20 * torch.log10(trend(beams(), ConfoundSettings(trend_db=2, depth_trend_db=0), 0))
    assert float(some.std()) == pytest.approx(2.0, rel=1e-3)


def test_vessels_are_thin_and_the_band_follows_the_surface():
    assert 0 < float((vessels(beams(), ConfoundSettings(), 0) > 1).float().mean()) < 0.1
    # Brain from 6 mm on: the band is brightest there, and reverberations are above it alone.
    depth = beams().depth_mm
    brain = (depth > 6).float().expand(beams().shape)
    band = contact_band(brain, beams(), ConfoundSettings(), 0).mean(dim=(0, 1))
    assert abs(float(depth[(depth > 3) & (depth < 12)][band[(depth > 3) & (depth < 12)].argmax()]) - 6) < 1
    assert float(band[depth > 12].max()) < 0.05 * float(band.max())


def test_confounds_change_the_image_alone_and_repeat():
    plain, confounded = case(), case(ConfoundSettings(gel_mm=0.0))
    assert torch.equal(plain.truth.displacement_mm, confounded.truth.displacement_mm)
    assert not torch.equal(plain.fixed.data, confounded.fixed.data)
    assert torch.equal(confounded.fixed.data, case.__wrapped__(ConfoundSettings(gel_mm=0.0)).fixed.data)


def test_gel_lifts_the_probe_off():
    insides = []
    for gel_mm in (0.0, 6.0):
        made = case(ConfoundSettings(gel_mm=gel_mm))
        points = made.fixed.grid.points_ras() + made.truth.displacement_mm.numpy()
        insides.append(np.linalg.norm(points[made.fixed.mask.numpy()], axis=-1).max())
    assert insides[1] - insides[0] == pytest.approx(6.0, abs=1.5)


def test_a_head_has_dark_bone_between_brain_and_scalp():
    labels, anatomy = head()
    image = render_head(labels, anatomy, "t1", HeadSettings(blur_mm=0), seed=1)
    assert image.name == "T1"
    on_image = resample(labels, image.grid, mode="nearest", padding_mode="zeros")[0].round()
    mean = {label: float(image.data[0][on_image == label].mean()) for label in (0, 2, 3, 24, 515, 507)}
    assert mean[0] < mean[515] < mean[24] < mean[3] < mean[2]
    assert mean[515] < 0.3 * mean[507]


def test_slices_are_thick_on_request():
    labels, anatomy = head()
    image = render_head(labels, anatomy, "flair", HeadSettings(slice_mm=5.0, slice_axis=1))
    assert np.allclose(image.grid.spacing_mm, [2, 5, 2], atol=0.1)
    assert image.name == "FLAIR"


def test_an_unknown_contrast_is_refused():
    labels, anatomy = head()
    with pytest.raises(InputError, match="expected a contrast among t1"):
        render_head(labels, anatomy, "pd")  # type: ignore[arg-type]


def test_a_glioma_fades_and_replaces_tissue():
    _, anatomy = head()
    grown = with_glioma(anatomy, (-20.0, 10.0, 10.0), 10.0, edge_mm=4.0)
    assert grown.tumour is not None
    fraction = grown.tumour.data
    assert 0 <= float(fraction.min()) <= float(fraction.max()) <= 1
    assert float(((fraction > 0.2) & (fraction < 0.8)).sum()) > 0.2 * float((fraction >= 0.8).sum())
    assert torch.allclose(grown.brain.data, anatomy.brain.data, atol=1e-5)
    # Neither in the ventricle nor far away.
    assert float(fraction[0][anatomy.tissue("ventricles").data[0] > 0.9].max()) < 0.1


def test_thin_sulci_take_their_place_from_tissue():
    _, anatomy = head()
    fine = with_thin_sulci(anatomy, 0.6)
    assert torch.allclose(fine.brain.data, anatomy.brain.data, atol=1e-5)
    gained = fine.tissue("sulci").data - anatomy.tissue("sulci").data
    assert 0 <= float(gained.min()) <= float(gained.max()) <= 0.6 + 1e-5
    assert 0.005 < float((gained > 0.2).sum()) / float((anatomy.brain.data > 0.5).sum()) < 0.2
    assert torch.equal(fine.tissue("ventricles").data, anatomy.tissue("ventricles").data)


def test_a_start_that_is_off_moves_the_answer_with_the_image():
    made = case()
    problem = hard.moved_off(made, 20.0, 15.0, np.random.default_rng(0))
    assert problem.truth is not None
    # What is seen in a voxel is the same place of the MR as before.
    before = made.fixed.grid.points_ras() + made.truth.displacement_mm.numpy()
    after = problem.fixed.grid.points_ras() + problem.truth.displacement_mm.numpy()
    assert np.abs(before - after).max() < 1e-3
    assert problem.errors_mm(SpatialTransform.identity()).mean() == pytest.approx(20, abs=3)
    turn = true_pose(problem)[:3, :3]
    assert np.degrees(np.arccos((np.trace(turn) - 1) / 2)) == pytest.approx(15, abs=4)


def test_sets_for_setting_and_judging_share_no_head():
    setting, judging = hard.recipes("setting"), hard.recipes("judging")
    for recipes in (setting, judging):
        assert len(recipes) == len({hard.name_of(recipe) for recipe in recipes}) == 24
        for key, largest in (("start_mm", 20), ("start_deg", 15)):
            sizes = [recipe[key] for recipe in recipes]
            assert min(sizes) < 0.1 * largest
            assert 0.9 * largest < max(sizes) <= largest
    heads, seeds = ([{r[key] for r in recipes} for recipes in (setting, judging)] for key in ("label_map", "seed"))
    assert heads == [set(range(1, 9)), set(range(9, 17))]
    assert seeds[0].isdisjoint(seeds[1])
    assert len(SETS["hard"]()) == len(SETS["hard-setting"]()) == 24


def test_the_standing_of_the_true_pose():
    found = Standing(3.0, (0.0, 1.0, 2.0, 3.0, 4.0))
    assert found.z == pytest.approx(1 / np.sqrt(2))
    assert found.above == 0.4


def test_false_poses_are_near_but_false():
    poses = false_poses(200).numpy()
    length = np.linalg.norm(poses[:, :3], axis=1)
    assert discriminability.NEAREST_MM <= length.min() < 6
    assert 11 < length.max() <= discriminability.FARTHEST_MM
    assert poses[:, 3:6].std() == pytest.approx(discriminability.TURN_DEG, rel=0.1)
    assert not poses[:, 6:].any()
    assert np.array_equal(poses, false_poses(200).numpy())


def test_the_true_pose_of_landmarks_is_their_best_rigid_fit():
    random = np.random.default_rng(0)
    matrix = np.eye(4)
    matrix[:3, :3] = rotation_matrix([0.1, -0.2, 0.05])
    matrix[:3, 3] = [3, -2, 5]
    fixed = random.uniform(-20, 20, (10, 3))
    moving = fixed @ matrix[:3, :3].T + matrix[:3, 3]
    grid = Grid((8, 8, 8), np.eye(4))
    volume = Volume(torch.ones(1, 8, 8, 8), grid)
    inside = torch.ones(8, 8, 8, dtype=torch.bool)
    assert np.allclose(true_pose(Problem(volume, (volume,), inside, None, fixed, moving, np.eye(4))), matrix)


def test_the_true_pose_stands_above_false_ones_where_the_images_agree():
    grid = box((40, 40, 40))
    fixed = scene(grid)
    prepared = prepare(
        fixed.with_mask(torch.ones(grid.shape, dtype=torch.bool)),
        [scene(box((64, 64, 64)), inverted=True)],
        SpatialTransform.identity(),
        spacing_mm=1.0,
        masked=True,
        margin_mm=10.0,
    )
    found = standing(prepared, Levels(prepared).at("lc2", 2.0, 2))
    assert len(found.false) == discriminability.FALSE_POSES
    assert found.z > 5
    assert found.above == 0

"""The simulator on patients' MR, label maps, tumours and cavities."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from MMRegCore.errors import InputError
from MMRegCore.geometry import Grid, transform_points
from MMRegCore.io.volumes import read_volume
from MMRegCore.simulate import (
    Anatomy,
    BrainShiftSettings,
    CavitySettings,
    anatomy_from_labels,
    anatomy_from_mr,
    simulate,
    with_contrasts,
)
from MMRegCore.simulate.anatomy import TISSUES
from MMRegCore.simulate.cavity import resection_cavity
from MMRegCore.simulate.contrast import render_contrast
from MMRegCore.simulate.craniotomy import place_probe
from MMRegCore.simulate.mr import brain_region
from MMRegCore.volume import Volume

pytestmark = pytest.mark.slow

SPACING_MM = 3.0
RADIUS_MM = {"ventricle": 12, "white": 50, "grey": 60, "csf": 64, "skull": 74, "scalp": 84}
T1 = {"ventricle": 200.0, "white": 900.0, "grey": 650.0, "csf": 200.0, "skull": 60.0, "scalp": 1000.0}
LABELS = {"ventricle": 4.0, "white": 2.0, "grey": 3.0, "csf": 24.0, "skull": 900.0, "scalp": 901.0}
NO_SHIFT = BrainShiftSettings(mean_mm=0.0)


def grid() -> Grid:
    matrix = np.diag([SPACING_MM, SPACING_MM, SPACING_MM, 1.0])
    matrix[:3, 3] = -90
    return Grid((61, 61, 61), matrix)


def radius_mm(on: Grid | None = None) -> torch.Tensor:
    return torch.from_numpy(np.linalg.norm((on or grid()).points_ras(), axis=-1)).float()


def shells(values: dict[str, float]) -> torch.Tensor:
    """(D, H, W): a head of nested balls."""
    head = torch.zeros(grid().shape)
    for name, radius in reversed(RADIUS_MM.items()):
        head[radius_mm() < radius] = values[name]
    return head


def head(*, stripped: bool, name: str = "head") -> Volume:
    data = shells(T1)
    # The optic nerve: a bridge of tissue through the skull.
    x, y, z = np.moveaxis(grid().points_ras(), -1, 0)
    data[torch.from_numpy((np.hypot(x, z) < 4) & (y > 55) & (y < 80))] = 700
    data = data * (1 + 0.03 * torch.randn(data.shape, generator=torch.Generator().manual_seed(0)))
    return Volume((data * (radius_mm() < RADIUS_MM["csf"]) if stripped else data)[None], grid(), name=name)


def tumour(centre_ras: tuple[float, float, float] = (30.0, 0.0, 20.0), size_mm: float = 10.0) -> Volume:
    distance = np.linalg.norm(grid().points_ras() - np.array(centre_ras), axis=-1)
    return Volume(torch.from_numpy(distance < size_mm).float()[None], grid(), name="tumour")


@pytest.fixture(scope="module")
def anatomy() -> Anatomy:
    return anatomy_from_mr([head(stripped=True)], spacing_mm=SPACING_MM, tumour=tumour())


@pytest.mark.parametrize("stripped", [True, False])
def test_brain_is_found_with_and_without_its_skull(stripped):
    image = head(stripped=stripped)
    found = brain_region(image.data[0], image.grid)
    brain = radius_mm() < RADIUS_MM["grey"]
    assert 2 * float((found & brain).sum()) / float(found.sum() + brain.sum()) > 0.9
    assert not found[radius_mm() > RADIUS_MM["skull"]].any()


def test_skull_does_not_change_the_tissues():
    with_skull = anatomy_from_mr([head(stripped=False)], spacing_mm=SPACING_MM)
    radius = radius_mm(with_skull.tissues.grid)
    for name, inner, outer in (("white", "ventricle", "white"), ("grey", "white", "grey")):
        where = (radius > RADIUS_MM[inner] + 3) & (radius < RADIUS_MM[outer] - 3)
        assert float(with_skull.tissue(name).data[0][where].mean()) > 0.8
    assert float(with_skull.brain.data[0][radius > RADIUS_MM["skull"]].max()) == 0


def test_head_without_a_skull_around_the_brain_is_refused():
    # A ball of 5 litres with noise: whatever it is, it is no brain.
    data = (radius_mm() < 88).float() * (700 + 60 * torch.randn(grid().shape))
    data += 40.0
    with pytest.raises(InputError, match="separated from the scalp by the skull; got none"):
        brain_region(data, grid(), "ball")


def test_tumour_replaces_tissue(anatomy):
    inside = anatomy.tumour.data[0] > 0.9
    assert inside.sum() > 100
    assert float(anatomy.tissues.data[:, inside].sum(dim=0).max()) < 0.11
    assert float(anatomy.brain.data.max()) <= 1 + 1e-5
    assert float(anatomy.brain.data[0][inside].min()) > 0.9


def test_probe_aims_at_the_tumour(anatomy):
    probe = place_probe(anatomy, (1.0, 0.0, 0.7))
    to_tumour = np.array([30.0, 0.0, 20.0]) - probe.origin_ras
    assert np.linalg.norm(np.cross(to_tumour, probe.beam_ras)) < 1.0


def test_tumour_outside_the_brain_is_refused():
    with pytest.raises(InputError, match="to mark voxels of the brain; got none"):
        anatomy_from_mr([head(stripped=True)], spacing_mm=SPACING_MM, tumour=tumour((80.0, 0.0, 0.0), 6.0))


def test_anatomy_from_labels_has_their_tissues():
    labels = Volume(shells(LABELS)[None], grid(), name="labels")
    anatomy = anatomy_from_labels([], labels)
    radius = radius_mm(anatomy.tissues.grid)
    assert float(anatomy.tissue("ventricles").data[0][radius < 6].min()) > 0.9
    assert float(anatomy.tissue("white").data[0][(radius > 20) & (radius < 44)].min()) > 0.95
    assert float(anatomy.brain.data[0][radius > RADIUS_MM["csf"] + SPACING_MM].max()) < 0.05
    with pytest.raises(InputError, match=r"to hold white as one of \[77\]"):
        anatomy_from_labels([], labels, {"grey": [3], "white": [77]})


def test_anatomy_of_a_real_label_map(shared_data):
    labels = read_volume(shared_data / "synthseg_labels" / "training_seg_02.nii.gz")
    anatomy = with_contrasts(anatomy_from_labels([], labels), ["t1", "t2"])
    volume_ml = {name: float(anatomy.tissue(name).data.sum()) / 1000 for name in ("white", "grey", "ventricles")}
    assert 400 < volume_ml["white"] < 700
    assert 500 < volume_ml["grey"] < 900
    assert 5 < volume_ml["ventricles"] < 80
    case = simulate(anatomy, spacing_mm=2.0, shift=NO_SHIFT)
    assert [image.name for image in case.moving] == ["T1", "T2"]


@pytest.mark.parametrize(
    ("contrast", "dark_to_bright"),
    [
        ("t1", ("ventricles", "tumour", "grey", "white")),
        ("t1c", ("ventricles", "grey", "white", "tumour")),
        ("t2", ("white", "grey", "tumour", "ventricles")),
        ("flair", ("ventricles", "white", "grey", "tumour")),
    ],
)
def test_rendered_contrast_orders_the_tissues(anatomy, contrast, dark_to_bright):
    image = render_contrast(anatomy, contrast, seed=1)
    assert image.name == contrast.upper()
    fractions = {name: anatomy.tissue(name).data for name in TISSUES} | {"tumour": anatomy.tumour.data}
    means = [float(image.data[fractions[name] > 0.9].mean()) for name in dark_to_bright]
    assert means == sorted(means)
    assert min(b - a for a, b in pairwise(means)) > 30
    assert float(image.data[anatomy.brain.data < 0.01].abs().max()) == 0
    assert not torch.equal(image.data, render_contrast(anatomy, contrast, seed=2).data)


def test_unknown_contrast_is_refused(anatomy):
    with pytest.raises(InputError, match="expected a contrast among t1, t1c, t2, flair; got 'pd'"):
        render_contrast(anatomy, "pd")


def test_cavity_contains_the_whole_tumour(anatomy):
    probe = place_probe(anatomy, (1.0, 0.0, 0.7))
    cavity = resection_cavity(anatomy, probe, CavitySettings(roughness_mm=0.3))
    assert float(cavity.data[anatomy.tumour.data > 0.95].min()) > 0.9
    points = anatomy.tissues.grid.points_ras()
    from_tumour_mm = np.linalg.norm(points - np.array([30.0, 0.0, 20.0]), axis=-1)
    # Beyond the tumour, away from the corridor, nothing is resected.
    beyond = torch.from_numpy((from_tumour_mm > 16) & ((points - np.array([30.0, 0.0, 20.0])) @ probe.beam_ras > 0))
    assert float(cavity.data[0][beyond].max()) == 0


def test_cavity_without_tumour_lies_under_the_craniotomy(anatomy):
    healthy = replace(anatomy, tumour=None)
    probe = place_probe(healthy, (1.0, 0.0, 0.7))
    settings = CavitySettings(radius_mm=12.0, depth_mm=15.0, roughness_mm=0.0)
    cavity = resection_cavity(healthy, probe, settings).data[0]
    points = healthy.tissues.grid.points_ras()
    middle = probe.origin_ras + 15.0 * probe.beam_ras
    distance = torch.from_numpy(np.linalg.norm(points - middle, axis=-1))
    assert float(cavity[distance < 10].min()) == 1
    below = torch.from_numpy((points - middle) @ probe.beam_ras) > 0
    assert float(cavity[below & (distance > 14)].max()) == 0


def test_cavity_is_dark_with_bright_walls_and_not_evaluated(anatomy):
    case = simulate(anatomy, spacing_mm=1.5, shift=BrainShiftSettings(mean_mm=3.0), cavity=CavitySettings(), seed=2)
    plain = simulate(anatomy, spacing_mm=1.5, shift=BrainShiftSettings(mean_mm=3.0), seed=2)
    assert plain.cavity is None
    assert torch.equal(plain.evaluated, plain.fixed.mask)
    inside = case.cavity & case.fixed.mask
    assert inside.sum() > 500
    assert not (case.evaluated & case.cavity).any()
    deep = inside & (from_edge_mm(inside) > 4)
    assert float(case.fixed.data[0][deep].mean()) < 0.6 * float(plain.fixed.data[0][deep].mean())
    wall = case.fixed.mask & (from_edge_mm(inside).abs() < 1.6) & (from_edge_mm(case.fixed.mask) > 8)
    assert float(case.fixed.data[0][wall].mean()) > 1.25 * float(plain.fixed.data[0][wall].mean())
    assert len(case.landmarks_fixed) > 0
    index = np.rint(transform_points(case.fixed.grid.ijk_from_ras, case.landmarks_fixed)).astype(int)
    i, j, k = index.T
    assert case.evaluated[k, j, i].all()


def from_edge_mm(mask: torch.Tensor) -> torch.Tensor:
    """(D, H, W): distance from the edge of a mask on a grid of 1.5 mm, positive inside."""
    image = sitk.GetImageFromArray(mask.numpy().astype(np.uint8))
    image.SetSpacing([1.5] * 3)
    distance = sitk.SignedMaurerDistanceMap(image, insideIsPositive=True, squaredDistance=False, useImageSpacing=True)
    return torch.from_numpy(sitk.GetArrayFromImage(distance))


@pytest.mark.parametrize("wrong", [{"radius_mm": 0.0}, {"roughness_mm": -1.0}, {"depth_mm": float("inf")}])
def test_bad_cavity_settings_are_refused(wrong):
    with pytest.raises(InputError, match="expected"):
        CavitySettings(**wrong)

import logging

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from grids import noise_on
from MMRegCore.errors import GeometryError, InputError
from MMRegCore.geometry import Grid, transform_points
from MMRegCore.io.transforms import read_transform, write_transform
from MMRegCore.transform import SpatialTransform, composite_from_field

MATRIX = np.array([[0.98, -0.17, 0.03, 5.0], [0.16, 0.97, -0.1, -7], [-0.02, 0.11, 1.02, 3], [0, 0, 0, 1]])
GRID_FORMATS = [".nii.gz", ".nii", ".nrrd", ".mha"]


def points_around(grid: Grid) -> np.ndarray:
    """Inside, at the corners, and up to 300 mm outside, RAS mm."""
    rng = np.random.default_rng(5)
    inside = grid.points_ras().reshape(-1, 3)[rng.integers(0, np.prod(grid.shape), 40)] + rng.uniform(
        -0.3, 0.3, (40, 3)
    )
    return np.concatenate([inside, grid.corners_ras(), grid.centre_ras + rng.uniform(-300, 300, (40, 3))])


def by_sitk(itk: sitk.Transform, points_ras: np.ndarray) -> np.ndarray:
    moved = [itk.TransformPoint(point) for point in (points_ras * [-1, -1, 1]).tolist()]
    return np.array(moved) * [-1, -1, 1]


@pytest.fixture
def composite(oblique_grid, smooth_field):
    return composite_from_field(smooth_field(oblique_grid), torch.ones(oblique_grid.shape))


@pytest.mark.parametrize("suffix", [".h5", ".hdf5", ".tfm", ".txt"])
def test_composite_round_trip_is_exact(composite, oblique_grid, suffix, tmp_path):
    path = tmp_path / f"transform{suffix}"
    write_transform(composite, path)
    points = points_around(oblique_grid)
    np.testing.assert_allclose(by_sitk(sitk.ReadTransform(str(path)), points), composite.apply(points), atol=1e-9)
    again = read_transform(path)
    np.testing.assert_allclose(again.apply(points), composite.apply(points), atol=1e-9)
    np.testing.assert_allclose(again.linear_ras, composite.linear_ras, atol=1e-9)
    np.testing.assert_allclose(again.apply_inverse(composite.apply(points)), points, atol=1e-4)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".h5", ".tfm", ".txt"])
def test_linear_transforms_are_one_matrix_on_disk(suffix, tmp_path):
    half = SpatialTransform.from_matrix(MATRIX).itk
    chain = SpatialTransform(sitk.CompositeTransform([half, half]))
    write_transform(chain, tmp_path / f"a{suffix}")
    stored = sitk.ReadTransform(str(tmp_path / f"a{suffix}")).Downcast()
    assert isinstance(stored, sitk.AffineTransform)
    np.testing.assert_allclose(read_transform(tmp_path / f"a{suffix}").linear_ras, MATRIX @ MATRIX, atol=1e-9)


@pytest.mark.parametrize("suffix", GRID_FORMATS)
def test_displacement_field_formats(composite, oblique_grid, suffix, tmp_path, caplog):
    path = tmp_path / f"field{suffix}"
    with caplog.at_level(logging.WARNING):
        write_transform(composite, path, grid=oblique_grid)
    assert "outside its grid it moves nothing" in caplog.text
    again = read_transform(path)
    voxels = oblique_grid.points_ras()[2:-2, 2:-2, 2:-2].reshape(-1, 3)[::97]
    np.testing.assert_allclose(again.apply(voxels), composite.apply(voxels), atol=1e-4)
    oracle = sitk.DisplacementFieldTransform(sitk.ReadImage(str(path), sitk.sitkVectorFloat64))
    np.testing.assert_allclose(by_sitk(oracle, voxels), composite.apply(voxels), atol=1e-4)
    far = oblique_grid.centre_ras[None] + 300
    np.testing.assert_array_equal(again.apply(far), far)
    assert np.abs(composite.apply(far) - far).max() > 1


def test_displacement_field_needs_a_grid(composite, tmp_path):
    with pytest.raises(InputError, match="expected a grid"):
        write_transform(composite, tmp_path / "a.nii.gz")
    assert list(tmp_path.iterdir()) == []


def euler() -> sitk.Transform:
    return sitk.Euler3DTransform((10, -5, 3), 0.1, -0.2, 0.3, (4, 5, 6))


def versor() -> sitk.Transform:
    return sitk.VersorRigid3DTransform((0.1, 0.2, -0.1, 0.96), (1, 2, 3), (9, 8, 7))


def similarity() -> sitk.Transform:
    return sitk.Similarity3DTransform(1.07, (0, 0, 1), 0.4, (1, 2, 3), (4, 5, 6))


def affine() -> sitk.Transform:
    return sitk.AffineTransform(MATRIX[:3, :3].ravel().tolist(), MATRIX[:3, 3].tolist(), (11, 12, 13))


def translation() -> sitk.Transform:
    return sitk.TranslationTransform(3, (5, -6, 7))


def identity() -> sitk.Transform:
    return sitk.Transform(3, sitk.sitkIdentity)


def chain() -> sitk.Transform:
    return sitk.CompositeTransform([euler(), affine(), translation()])


def nested() -> sitk.Transform:
    composite = sitk.CompositeTransform(3)
    composite.AddTransform(chain())
    composite.AddTransform(versor())
    return composite


KINDS = [
    (make, suffix)
    for make in (euler, versor, similarity, affine, translation, identity)
    for suffix in (".h5", ".tfm", ".txt", ".mat")
]


# ITK's .mat files hold one transform.
@pytest.mark.parametrize(("make", "suffix"), [*KINDS, (chain, ".h5"), (chain, ".tfm")])
def test_initial_transforms_of_every_linear_kind(make, suffix, tmp_path):
    itk = make()
    sitk.WriteTransform(itk, str(tmp_path / f"a{suffix}"))
    transform = read_transform(tmp_path / f"a{suffix}")
    points = np.array([[10.0, 20, -30], [0, 0, 0], [-100, 50, 20]])
    np.testing.assert_allclose(transform.apply(points), by_sitk(itk, points), atol=1e-9)
    np.testing.assert_allclose(transform_points(transform.linear_ras, points), by_sitk(itk, points), atol=1e-9)
    assert transform.is_linear


def test_nested_composites_are_taken_apart_in_order(tmp_path, composite, oblique_grid):
    points = points_around(oblique_grid)
    outer = sitk.CompositeTransform([nested(), composite.itk])
    transform = SpatialTransform(outer)
    np.testing.assert_allclose(transform.apply(points), by_sitk(outer, points), atol=1e-9)
    chained = SpatialTransform.identity().then(transform)
    np.testing.assert_allclose(chained.apply(points), by_sitk(outer, points), atol=1e-9)


def test_grid_and_composite_with_a_grid(tmp_path, oblique_grid, smooth_field):
    image = oblique_grid.to_itk(smooth_field(oblique_grid).displacement_mm.double().numpy() * [-1, -1, 1])
    field = sitk.DisplacementFieldTransform(sitk.Image(image))
    points = points_around(oblique_grid)
    for itk in (field, sitk.CompositeTransform([euler(), field]), sitk.CompositeTransform([field, euler()])):
        sitk.WriteTransform(itk, str(tmp_path / "a.h5"))
        transform = read_transform(tmp_path / "a.h5")
        np.testing.assert_allclose(transform.apply(points), by_sitk(itk, points), atol=1e-9)
        assert not transform.is_linear


@pytest.mark.parametrize(
    "content", [None, b"", b"junk\n" * 99, b"#Insight Transform File V1.0\nTransform: Nonsense_3\n"]
)
@pytest.mark.parametrize("suffix", [".h5", ".tfm", ".txt", ".mat", ".nii.gz", ".nrrd"])
def test_missing_and_unreadable_files(content, suffix, tmp_path, capfd):
    path = tmp_path / f"a{suffix}"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="expected") as caught:
        read_transform(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("suffix", [".h5", ".tfm"])
@pytest.mark.parametrize("share", [0.2, 0.7])
def test_files_that_are_cut_off(composite, suffix, share, tmp_path, capfd):
    path = tmp_path / f"a{suffix}"
    write_transform(composite, path)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])
    with pytest.raises(InputError, match="expected"):
        read_transform(path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("end", ["", "\n", "\r\n\r\n"])
def test_text_written_by_hand(end, tmp_path):
    text = (
        "#Insight Transform File V1.0\n\nTransform: AffineTransform_double_3_3\nParameters: 1 0 0 0 1 0 0 0 1 5 6 7\n"
    )
    (tmp_path / "a.tfm").write_text(f"{text}FixedParameters: 0 0 0{end}")
    np.testing.assert_allclose(read_transform(tmp_path / "a.tfm").apply(np.zeros((1, 3))), [[-5, -6, 7]])


@pytest.mark.parametrize(
    "text", ["Parameters: 1 0 0 0 1 0 0 0 1 5 6 7\n", "Parameters: 1 0 0\nFixedParameters: 0 0 0\n"]
)
def test_text_without_all_its_numbers_is_not_the_identity(text, tmp_path):
    """ITK reads both as if nothing were amiss."""
    (tmp_path / "a.tfm").write_text(f"#Insight Transform File V1.0\nTransform: AffineTransform_double_3_3\n{text}")
    with pytest.raises(InputError, match="expected"):
        read_transform(tmp_path / "a.tfm")


def test_a_type_that_only_slicer_knows_gets_advice(tmp_path):
    text = "#Insight Transform File V1.0\n#Transform 0\nTransform: InverseThinPlateSplineTransform_double_3_3\n"
    (tmp_path / "a.tfm").write_text(text + "Parameters: 1 2 3\nFixedParameters: 1 2 3\n")
    with pytest.raises(InputError, match="got InverseThinPlateSplineTransform.*convert it to a displacement grid"):
        read_transform(tmp_path / "a.tfm")


def test_2d_transforms_and_fields_of_other_sizes_are_refused(tmp_path, oblique_grid):
    sitk.WriteTransform(sitk.Euler2DTransform(), str(tmp_path / "a.tfm"))
    with pytest.raises(InputError, match="got a 2-D one"):
        read_transform(tmp_path / "a.tfm")
    sitk.WriteImage(noise_on(oblique_grid), str(tmp_path / "b.nii.gz"))
    with pytest.raises(InputError, match="3 values per voxel; got 1"):
        read_transform(tmp_path / "b.nii.gz")
    (tmp_path / "c.docx").write_text("x")
    with pytest.raises(InputError, match="ends in one of"):
        read_transform(tmp_path / "c.docx")


def test_values_that_are_not_finite(tmp_path, oblique_grid):
    displacement = np.zeros((*oblique_grid.shape, 3))
    displacement[3, 4, 5] = np.nan
    image = oblique_grid.to_itk(displacement)
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"))
    sitk.WriteTransform(sitk.DisplacementFieldTransform(image), str(tmp_path / "b.h5"))
    coefficients = sitk.Image(9, 9, 9, sitk.sitkFloat64)
    coefficients[4, 4, 4] = float("inf")
    sitk.WriteTransform(sitk.BSplineTransform([coefficients] * 3, 3), str(tmp_path / "c.h5"))
    sitk.WriteTransform(sitk.TranslationTransform(3, (0, float("nan"), 0)), str(tmp_path / "d.h5"))
    for name in ("a.nrrd", "b.h5", "c.h5", "d.h5"):
        with pytest.raises(GeometryError, match="finite values"):
            read_transform(tmp_path / name)


def test_a_large_spline_is_read(tmp_path):
    """ITK hands out copies of its coefficient images, 12 MB each: whoever looks into one must keep it until then."""
    size = (113, 125, 105)
    coefficients = [sitk.Image(size, sitk.sitkFloat64) + component for component in (0.5, -1.0, 2.0)]
    sitk.WriteTransform(sitk.BSplineTransform(coefficients, 3), str(tmp_path / "a.h5"))
    moved = read_transform(tmp_path / "a.h5").apply(np.array([[-50.0, -60.0, 50.0]]))
    np.testing.assert_allclose(moved, [[-50.5, -59.0, 52.0]], atol=1e-9)


@pytest.mark.parametrize("suffix", [".h5", ".tfm"])
@pytest.mark.parametrize("in_composite", [False, True])
def test_initial_transform_that_cannot_be_inverted(tmp_path, suffix, in_composite):
    flat = sitk.AffineTransform(3)
    flat.SetMatrix((1.0, 0, 0, 0, 1, 0, 0, 0, 0))
    itk = sitk.CompositeTransform([euler(), flat]) if in_composite else flat
    sitk.WriteTransform(itk, str(tmp_path / f"a{suffix}"))
    with pytest.raises(GeometryError, match="the linear part of .* to be invertible"):
        read_transform(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("name", ["a.mat", "a.docx", "a"])
def test_written_names_must_say_the_format(name, tmp_path):
    with pytest.raises(InputError, match="ends in one of"):
        write_transform(SpatialTransform.identity(), tmp_path / name)

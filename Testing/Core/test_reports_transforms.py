"""Transforms of other tools and versions: read as what they are, or refused by their name; see docs/reports.md."""

import struct

import numpy as np
import pytest
import SimpleITK as sitk

from MMRegCore.errors import GeometryError, InputError
from MMRegCore.io.transforms import read_transform, write_transform
from MMRegCore.transform import SpatialTransform

HEAD = "#Insight Transform File V1.0\n"
IDENTITY = "1 0 0 0 1 0 0 0 1"
COMPOSITE = "#Transform 0\nTransform: CompositeTransform_double_3_3\n"
ORIGIN = np.zeros((1, 3))


def section(name, parameters, fixed="0 0 0", kind="double"):
    return f"#Transform\nTransform: {name}_{kind}_3_3\nParameters: {parameters}\nFixedParameters: {fixed}\n"


# Ten to the left (LPS), twice as large along x where the type can do that.
LINEAR = {
    "MatrixOffsetTransformBase": "2 0 0 0 1 0 0 0 1 10 0 0",
    "AffineTransform": "2 0 0 0 1 0 0 0 1 10 0 0",
    "CenteredAffineTransform": "2 0 0 0 1 0 0 0 1 0 0 0 10 0 0",
    "ScalableAffineTransform": "2 0 0 0 1 0 0 0 1 10 0 0",
    "FixedCenterOfRotationAffineTransform": "2 0 0 0 1 0 0 0 1 10 0 0",
    "ComposeScaleSkewVersor3DTransform": "0 0 0 10 0 0 2 1 1 0 0 0",
    "ScaleSkewVersor3DTransform": "0 0 0 10 0 0 2 1 1 0 0 0 0 0 0",
    "ScaleVersor3DTransform": "0 0 0 10 0 0 2 1 1",
}


@pytest.mark.parametrize("in_composite", [False, True])
@pytest.mark.parametrize("name", LINEAR)
def test_any_linear_transform_of_itk(tmp_path, name, in_composite):
    path = tmp_path / "a.tfm"
    path.write_text(HEAD + (COMPOSITE if in_composite else "") + section(name, LINEAR[name]))
    np.testing.assert_allclose(read_transform(path).apply(np.array([[1.0, 2, 3]])), [[-8, 2, 3]], atol=1e-9)


@pytest.mark.parametrize("name", ["QuaternionRigidTransform", "CenteredEuler3DTransform"])
def test_rigid_ones(tmp_path, name):
    parameters = {"Q": "0 0 0 1 10 0 0", "C": "0 0 0 5 5 5 10 0 0"}[name[0]]
    fixed = "0 0 0 0" if name[0] == "C" else "0 0 0"
    (tmp_path / "a.txt").write_text(HEAD + section(name, parameters, fixed))
    np.testing.assert_allclose(read_transform(tmp_path / "a.txt").apply(ORIGIN), [[-10, 0, 0]], atol=1e-9)


def test_shells_and_splines_in_one_composite(tmp_path):
    """The last part is applied first: the spline, then the affine transforms of a type without a class."""
    spline = sitk.BSplineTransform([sitk.Image(9, 9, 9, sitk.sitkFloat64) + shift for shift in (1.0, 0.0, 0.0)], 3)
    sitk.WriteTransform(spline, str(tmp_path / "s.tfm"))
    inner = (tmp_path / "s.tfm").read_text().partition("\n")[2]
    affines = section("MatrixOffsetTransformBase", LINEAR["MatrixOffsetTransformBase"]) + section(
        "CenteredAffineTransform", f"{IDENTITY} 5 5 5 0 0 1"
    )
    (tmp_path / "a.tfm").write_text(HEAD + COMPOSITE + affines + inner)
    transform = read_transform(tmp_path / "a.tfm")
    point = np.array([[-4.0, -4.0, 4.0]])
    np.testing.assert_allclose(transform.apply(point), [[-(2 * 5 + 10), -4, 5]], atol=1e-9)
    assert not transform.is_linear
    write_transform(transform, tmp_path / "b.h5")
    np.testing.assert_allclose(read_transform(tmp_path / "b.h5").apply(point), transform.apply(point), atol=1e-9)


def test_a_transform_of_the_python_api_may_be_of_any_type(tmp_path):
    (tmp_path / "a.tfm").write_text(HEAD + section("MatrixOffsetTransformBase", f"{IDENTITY} 10 0 0"))
    shell = SpatialTransform(sitk.ReadTransform(str(tmp_path / "a.tfm")))
    nested = SpatialTransform(sitk.CompositeTransform([sitk.CompositeTransform([shell.itk]), shell.itk]))
    assert nested.is_linear
    np.testing.assert_allclose(nested.linear_ras[:3, 3], [-20, 0, 0])
    write_transform(nested, tmp_path / "b.h5")
    np.testing.assert_allclose(read_transform(tmp_path / "b.h5").apply(ORIGIN), [[-20, 0, 0]])


def test_nested_nonlinear_composites_are_written_flat(tmp_path):
    spline = sitk.BSplineTransform([sitk.Image(9, 9, 9, sitk.sitkFloat64) + 1.0] * 3, 3)
    nested = SpatialTransform(sitk.CompositeTransform([sitk.CompositeTransform([sitk.Euler3DTransform(), spline])]))
    write_transform(nested, tmp_path / "a.h5")
    points = np.array([[-4.0, -4.0, 4.0]])
    np.testing.assert_allclose(read_transform(tmp_path / "a.h5").apply(points), nested.apply(points), atol=1e-9)


@pytest.mark.parametrize("suffix", [".tfm", ".mat"])
def test_several_transforms_without_a_composite(tmp_path, suffix):
    for number in (1, 2):
        shift = sitk.AffineTransform([1, 0, 0, 0, 1, 0, 0, 0, 1], [float(number), 0, 0])
        sitk.WriteTransform(shift, str(tmp_path / f"{number}{suffix}"))
    first, second = ((tmp_path / f"{number}{suffix}").read_bytes() for number in (1, 2))
    (tmp_path / f"a{suffix}").write_bytes(first + second.replace(HEAD.encode(), b""))
    with pytest.raises(InputError, match="write them as one composite"):
        read_transform(tmp_path / f"a{suffix}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (section("ThinPlateSplineKernelTransform", "0 0 0"), "got ThinPlateSplineKernelTransform"),
        (section("BSplineDeformableTransform", "0 0 0"), "got BSplineDeformableTransform"),
        (section("AzimuthElevationToCartesianTransform", "1 1", ""), "AzimuthElevationToCartesianTransform"),
        (COMPOSITE, "got an empty one"),
        (section("AffineTransform", f"{IDENTITY} 10 0 x"), "cut off or lacks"),
        (section("AffineTransform", f"{IDENTITY} 10 0 0") + "Parameters: 1\n", "cut off or lacks"),
        (section("AffineTransform", f"{IDENTITY} 10 0 nan"), "expected"),
        ("", "got"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, text, message):
    (tmp_path / "a.tfm").write_text(HEAD + text)
    with pytest.raises(InputError, match=message) as caught:
        read_transform(tmp_path / "a.tfm")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change", [lambda raw: raw[:-4], lambda raw: raw + bytes(8), lambda raw: raw[:100], lambda raw: raw[:140]]
)
def test_matlab_files_are_read_whole_or_not(tmp_path, change):
    sitk.WriteTransform(sitk.AffineTransform(3), str(tmp_path / "a.mat"))
    (tmp_path / "a.mat").write_bytes(change((tmp_path / "a.mat").read_bytes()))
    with pytest.raises(InputError, match="expected"):
        read_transform(tmp_path / "a.mat")


def test_matlab_files_of_ants(tmp_path):
    def record(name, values):
        head = struct.pack("<5i", 0, len(values), 1, 0, len(name) + 1)
        return head + name.encode() + b"\0" + struct.pack(f"<{len(values)}d", *values)

    raw = record("AffineTransform_double_3_3", [1, 0, 0, 0, 1, 0, 0, 0, 1, 10, 0, 0]) + record("fixed", [0, 0, 0])
    (tmp_path / "0GenericAffine.mat").write_bytes(raw)
    np.testing.assert_allclose(read_transform(tmp_path / "0GenericAffine.mat").apply(ORIGIN), [[-10, 0, 0]])


MINC = "MNI Transform File\n%a comment = 3;\n\n"
SHIFT = "Transform_Type = Linear;\nLinear_Transform =\n 1 0 0 3\n 0 1 0 -5\n 0 0 1 7;\n"


class TestMinc:
    def read(self, tmp_path, text, name="a.xfm"):
        (tmp_path / name).write_text(text)
        return read_transform(tmp_path / name)

    @pytest.mark.parametrize("name", ["a.xfm", "a.txt"])
    def test_world_coordinates_are_ras(self, tmp_path, name, caplog):
        np.testing.assert_allclose(self.read(tmp_path, MINC + SHIFT, name).apply(ORIGIN), [[3, -5, 7]])
        assert "from points of the ultrasound to points of the MR" in caplog.text

    def test_rotations_are_ras_too(self, tmp_path):
        turn = "Transform_Type = Linear;\nLinear_Transform =\n 0 -1 0 0\n 1 0 0 0\n 0 0 1 0;\n"
        np.testing.assert_allclose(self.read(tmp_path, MINC + turn).apply(np.array([[1.0, 0, 0]])), [[0, 1, 0]])

    def test_several_apply_in_their_order(self, tmp_path):
        double = SHIFT.replace("1 0 0 3", "2 0 0 0").replace("-5", "0").replace("7", "0")
        np.testing.assert_allclose(self.read(tmp_path, MINC + SHIFT + double).apply(ORIGIN), [[6, -5, 7]])

    def test_an_inverted_one(self, tmp_path):
        text = MINC + SHIFT.replace("Linear;\n", "Linear;\nInvert_Flag = True;\n")
        np.testing.assert_allclose(self.read(tmp_path, text).apply(ORIGIN), [[-3, 5, -7]])

    @pytest.mark.parametrize(
        "text",
        [
            MINC + "Transform_Type = Grid_Transform;\nDisplacement_Volume = a_grid_0.mnc;\n",
            MINC + "Transform_Type = Thin_Plate_Spline_Transform;\nNumber_Dimensions = 3;\n",
            MINC + SHIFT + "Transform_Type = Grid_Transform;\nDisplacement_Volume = a_grid_0.mnc;\n",
            MINC + SHIFT.replace("7;", "x;"),
            MINC + SHIFT.replace(" 0 0 1 7;", ";"),
            MINC + SHIFT.replace(";", ""),
            MINC + SHIFT.replace("7;", "nan;"),
            MINC + SHIFT.replace("1 0 0 3", "0 0 0 3"),
            MINC,
            "#Insight Transform File V1.0\n",
            "MNI Transform File\n%ITK-XFM writer\n" + SHIFT,
        ],
    )
    def test_what_is_refused(self, tmp_path, text):
        with pytest.raises(InputError, match="expected") as caught:
            self.read(tmp_path, text)
        assert str(tmp_path / "a.xfm") in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("flirt.mat", "1 0 0 3\n0 1 0 -5\n0 0 1 7\n0 0 0 1\n", "FLIRT, greedy.*c3d_affine_tool"),
        ("greedy.txt", "1 0 0 3\n0 1 0 -5\n0 0 1 7\n0 0 0 1\n", "c3d_affine_tool"),
        ("TransformParameters.0.txt", '(Transform "EulerTransform")\n(NumberOfParameters 6)\n', "elastix.*transformix"),
        ("a.lta", "type      = 1\nnxforms   = 1\n", "FreeSurfer.*lta_convert"),
        ("lta.txt", "type      = 1\nnxforms   = 1\n", "lta_convert"),
        ("a.dof", "IRTK\n", "MIRTK.*convert-dof"),
        ("a.x5", "x", "X5.*nitransforms"),
        ("a.m3z", "x", "mri_warp_convert"),
    ],
)
def test_files_of_other_tools_are_named_with_what_converts_them(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_transform(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_reflection_in_any_part_is_invertible_and_a_flat_part_is_not(tmp_path):
    (tmp_path / "a.tfm").write_text(HEAD + section("CenteredAffineTransform", "0 0 0 0 1 0 0 0 1 0 0 0 10 0 0"))
    with pytest.raises(GeometryError, match="invertible"):
        read_transform(tmp_path / "a.tfm")


def test_a_damaged_spline_on_which_itk_aborts(tmp_path):
    spline = sitk.BSplineTransform([sitk.Image(5, 5, 5, sitk.sitkFloat64)] * 3, 3)
    sitk.WriteTransform(spline, str(tmp_path / "a.h5"))
    sizes = struct.pack("<3d", *spline.GetFixedParameters()[:3])
    raw = (tmp_path / "a.h5").read_bytes()
    (tmp_path / "b.h5").write_bytes(raw.replace(sizes, struct.pack("<3d", -1, 5, 5)))
    with pytest.raises(InputError, match="which is (none or is )?damaged"):
        read_transform(tmp_path / "b.h5")


def test_reading_large_fields_while_others_are_made(tmp_path):
    """What is checked must not lie in memory that was given back."""
    spline = sitk.BSplineTransform([sitk.Image(61, 67, 59, sitk.sitkFloat64) + 1.0] * 3, 3)
    vectors = [sitk.Image(61, 67, 59, sitk.sitkFloat64) + 1.0] * 3
    field = sitk.DisplacementFieldTransform(sitk.Cast(sitk.Compose(vectors), sitk.sitkVectorFloat64))
    sitk.WriteTransform(sitk.CompositeTransform([field, spline]), str(tmp_path / "a.h5"))
    for number in range(4):
        transform = read_transform(tmp_path / "a.h5")
        junk = [sitk.Image(61, 67, 59, sitk.sitkFloat64) + float(number) for _ in range(6)]
        np.testing.assert_allclose(transform.apply(np.array([[-30.0, -30.0, 30.0]])), [[-32, -32, 32]], atol=1e-9)
        del junk

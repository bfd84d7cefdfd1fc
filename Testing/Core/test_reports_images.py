"""Images whose headers are odd: placed as they say, told, or refused; see docs/reports.md."""

import gzip
import struct

import numpy as np
import pytest
import SimpleITK as sitk

from grids import OBLIQUE
from MMRegCore.errors import GeometryError, InputError
from MMRegCore.io.transforms import read_transform
from MMRegCore.io.volumes import read_image, read_volume

VOXELS = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
RAW = VOXELS.tobytes()


def itk(array=VOXELS, origin=(10.0, 20.0, 30.0), spacing=(1.0, 2.0, 3.0), direction=None):
    image = sitk.GetImageFromArray(array)
    image.SetOrigin(origin)
    image.SetSpacing(spacing)
    if direction is not None:
        image.SetDirection(np.asarray(direction).ravel().tolist())
    return image


def warnings_of(path):
    return read_volume(path).reading.warnings


def nifti(path, *changes, image=None):
    """A NIfTI-1 file with changed header fields: (struct format, offset, value)."""
    plain = path.with_name("plain.nii")
    sitk.WriteImage(image or itk(), str(plain))
    raw = bytearray(plain.read_bytes())
    for code, offset, value in changes:
        struct.pack_into(f"<{code}", raw, offset, value)
    path.write_bytes(gzip.compress(raw) if path.name.endswith(".gz") else raw)
    return path


class TestNifti:
    @pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
    def test_matrices_that_differ(self, tmp_path, name):
        path = nifti(tmp_path / name, ("f", 268, 10.0))  # qoffset_x, −10 in sform
        (warning,) = warnings_of(path)
        assert warning == "qform (scanner) and sform (scanner) place its voxels up to 20 mm apart; the sform was taken"

    def test_a_rotation_of_one_of_them(self, tmp_path):
        path = nifti(tmp_path / "a.nii", ("f", 256, np.sin(np.deg2rad(10))), ("f", 264, 0.0))
        (warning,) = warnings_of(path)
        assert "mm apart" in warning
        taken = warning.split("the ")[-1].split()[0]
        image, _ = read_image(path)
        assert (np.abs(np.reshape(image.GetDirection(), (3, 3))).max() < 0.99) == (taken == "qform")

    @pytest.mark.parametrize("direction", [None, OBLIQUE])
    def test_matrices_that_agree(self, tmp_path, direction):
        path = nifti(tmp_path / "a.nii", image=itk(direction=direction, spacing=(0.3, 0.7, 1.1)))
        reading = read_volume(path).reading
        assert reading.warnings == ()
        assert (reading.space, reading.spacing, reading.origin) == (
            "sform (scanner), qform (scanner)",
            "stated",
            "stated",
        )

    def test_neither_code_is_set(self, tmp_path):
        reading = read_volume(nifti(tmp_path / "a.nii", ("h", 252, 0), ("h", 254, 0))).reading
        assert reading.origin == "assumed"
        assert "does not say where it lies" in reading.warnings[0]

    def test_the_second_version_is_refused_by_name(self, tmp_path):
        (tmp_path / "a.nii").write_bytes(struct.pack("<i", 540) + b"n+2\0\r\n\032\n" + bytes(600))
        with pytest.raises(InputError, match="which is NIfTI-2: convert it"):
            read_volume(tmp_path / "a.nii")

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
    def test_what_is_not_finite_is_outside(self, tmp_path, dtype, name):
        values = VOXELS.astype(dtype)
        values[1, 2, 3], values[0, 1, 0], values[0, 0, 2] = np.nan, np.inf, -np.inf
        sitk.WriteImage(itk(values), str(tmp_path / name))
        volume = read_volume(tmp_path / name)
        np.testing.assert_array_equal(volume.foreground, np.isfinite(values))
        assert volume.reading.voxels_not_finite == 3
        assert "3 voxels are not finite" in volume.reading.warnings[0]

    def test_a_pair_without_its_voxels(self, tmp_path):
        sitk.WriteImage(itk(), str(tmp_path / "a.hdr"))
        assert read_volume(tmp_path / "a.hdr").grid.itk_size == (4, 3, 2)
        whole = (tmp_path / "a.img").read_bytes()
        (tmp_path / "a.img").write_bytes(whole[:-3])
        with pytest.raises(InputError, match="cut off"):
            read_volume(tmp_path / "a.hdr")
        (tmp_path / "a.img").unlink()
        with pytest.raises(InputError, match="expected"):
            read_volume(tmp_path / "a.hdr")

    def test_analyze_does_not_say_how_it_lies(self, tmp_path):
        sitk.WriteImage(itk(), str(tmp_path / "a.hdr"))
        raw = bytearray((tmp_path / "a.hdr").read_bytes())
        raw[344:348] = bytes(4)
        (tmp_path / "a.hdr").write_bytes(raw)
        reading = read_volume(tmp_path / "a.hdr").reading
        assert (reading.format, reading.origin) == ("Analyze", "assumed")
        assert len(reading.warnings) == 2

    @pytest.mark.parametrize("name", ["NREG_TRANS", "Mapping"])
    def test_fields_of_positions_are_no_displacements(self, tmp_path, name):
        field = sitk.Compose([sitk.Cast(itk(), sitk.sitkFloat64)] * 3)
        path = nifti(tmp_path / "a.nii", ("16s", 328, name.encode()), image=field)
        with pytest.raises(InputError, match="a field of positions"):
            read_transform(path)

    @pytest.mark.parametrize("size", [(4, 3, 2), (30000, 30000, 3)])
    def test_a_header_that_promises_too_much(self, tmp_path, size):
        changes = [("h", 42 + 2 * axis, n) for axis, n in enumerate(size)]
        path = nifti(tmp_path / "a.nii.gz", *changes)
        if size[0] > 100:
            with pytest.raises(InputError, match="expected"):
                read_volume(path)
        else:
            assert read_volume(path).grid.itk_size == size

    def test_a_bomb_is_not_unpacked_beyond_what_the_header_says(self, tmp_path):
        raw = (nifti(tmp_path / "a.nii")).read_bytes()
        (tmp_path / "b.nii.gz").write_bytes(gzip.compress(raw + bytes(200_000_000), 9))
        np.testing.assert_array_equal(read_volume(tmp_path / "b.nii.gz").data[0], VOXELS)


NRRD = "NRRD0005\ntype: uchar\ndimension: 3\nsizes: 4 3 2\nencoding: raw\n"
PLACED = "space directions: (1,0,0) (0,2,0) (0,0,3)\nspace origin: (10,20,30)\n"


def nrrd(path, more, voxels=RAW):
    path.write_bytes(f"{NRRD}{more}\n".encode() + voxels)
    return path


class TestNrrd:
    @pytest.mark.parametrize(("unit", "factor"), [("mm", 1), ("um", 1e-3), ("m", 1000), ("cm", 10), ("microns", 1e-3)])
    def test_units_are_honoured(self, tmp_path, unit, factor):
        text = f'space: LPS\n{PLACED}space units: "{unit}" "{unit}" "{unit}"\n'
        grid = read_volume(nrrd(tmp_path / "a.nrrd", text)).grid
        np.testing.assert_allclose(grid.spacing_mm, np.array([1, 2, 3]) * factor)
        np.testing.assert_allclose(grid.ras_from_ijk[:3, 3], np.array([-10, -20, 30]) * factor)

    @pytest.mark.parametrize("units", ['"um" "um" "mm"', '"parsec" "parsec" "parsec"', '"in" "in" "in"'])
    def test_units_that_cannot_be_honoured(self, tmp_path, units):
        with pytest.raises(GeometryError, match="one unit of length"):
            read_volume(nrrd(tmp_path / "a.nrrd", f"space: LPS\n{PLACED}space units: {units}\n"))

    @pytest.mark.parametrize("space", ["scanner-xyz", "3D-right-handed", "left-posterior-inferior"])
    def test_other_spaces(self, tmp_path, space):
        with pytest.raises(GeometryError, match="RAS, LAS or LPS"):
            read_volume(nrrd(tmp_path / "a.nrrd", f"space: {space}\n{PLACED}"))

    @pytest.mark.parametrize(
        ("text", "spacing", "origin", "word"),
        [
            (f"space dimension: 3\n{PLACED}", "stated", "stated", "does not name its space"),
            ("space: LPS\nspace directions: (1,0,0) (0,2,0) (0,0,3)\n", "stated", "assumed", "where it lies"),
            ("spacings: 1 2 3\n", "stated", "assumed", "where it lies"),
            ("", "assumed", "assumed", "how large its voxels are"),
            ("spacings: 1 2 3\naxis mins: 1 2 3\n", "stated", "stated", "axis mins"),
        ],
    )
    def test_what_is_not_said_is_told(self, tmp_path, text, spacing, origin, word):
        reading = read_volume(nrrd(tmp_path / "a.nrrd", text)).reading
        assert (reading.spacing, reading.origin) == (spacing, origin)
        assert word in " ".join(reading.warnings)

    @pytest.mark.parametrize(
        "text", ["Seq_Frame0000_Status:=OK\n", "kinds: domain domain list\n", "kinds: domain domain time\n"]
    )
    def test_tracked_frames(self, tmp_path, text):
        with pytest.raises(InputError, match="reconstruct a volume first"):
            read_volume(nrrd(tmp_path / "a.nrrd", "spacings: 1 2 3\n" + text))

    @pytest.mark.parametrize("name", ["../secret.raw", "/etc/hostname", "C:\\\\secret.raw", "a/../../secret.raw"])
    def test_voxels_elsewhere(self, tmp_path, name):
        with pytest.raises(InputError, match="in its own folder"):
            read_volume(nrrd(tmp_path / "a.nhdr", f"spacings: 1 2 3\ndata file: {name}\n", b""))

    def test_voxels_behind_a_link(self, tmp_path):
        (tmp_path / "in").mkdir()
        (tmp_path / "secret.raw").write_bytes(RAW)
        (tmp_path / "in" / "a.raw").symlink_to(tmp_path / "secret.raw")
        with pytest.raises(InputError, match="leads elsewhere"):
            read_volume(nrrd(tmp_path / "in" / "a.nhdr", "spacings: 1 2 3\ndata file: a.raw\n", b""))

    def test_voxels_beside_the_header(self, tmp_path):
        (tmp_path / "a.raw").write_bytes(RAW)
        path = nrrd(tmp_path / "a.nhdr", f"space: LPS\n{PLACED}data file: a.raw\n", b"")
        np.testing.assert_array_equal(read_volume(path).data[0], VOXELS)

    @pytest.mark.parametrize("encoding", ["bzip2", "bz2", "zrl"])
    def test_other_encodings_are_refused_by_name(self, tmp_path, encoding):
        text = NRRD.replace("raw", encoding) + PLACED + "\n"
        (tmp_path / "a.nrrd").write_bytes(text.encode() + bytes(50))
        with pytest.raises(InputError, match=f"whose encoding is {encoding}"):
            read_volume(tmp_path / "a.nrrd")

    @pytest.mark.parametrize("change", ["space: RAS\n", 'space: LPS\nspace units: "um" "um" "um"\n'])
    def test_fields_in_other_spaces_or_units(self, tmp_path, change):
        head = (
            "NRRD0005\ntype: float\ndimension: 4\nsizes: 3 4 3 2\nkinds: vector domain domain domain\n"
            "space directions: none (1,0,0) (0,2,0) (0,0,3)\nspace origin: (10,20,30)\nencoding: raw\nendian: little\n"
        )
        (tmp_path / "a.nrrd").write_bytes(f"{head}{change}\n".encode() + bytes(3 * 24 * 4))
        with pytest.raises(GeometryError, match="displacement field in"):
            read_transform(tmp_path / "a.nrrd")


META = "ObjectType = Image\nNDims = 3\nDimSize = 4 3 2\nElementType = MET_UCHAR\n"
META_PLACED = "Offset = 10 20 30\nElementSpacing = 1 2 3\nTransformMatrix = 1 0 0 0 1 0 0 0 1\n"


def meta(path, more, voxels=RAW, file="LOCAL"):
    path.write_bytes(f"{META}{more}ElementDataFile = {file}\n".encode() + voxels)
    return path


class TestMetaImage:
    def test_a_complete_header(self, tmp_path):
        volume = read_volume(meta(tmp_path / "a.mha", META_PLACED))
        np.testing.assert_array_equal(volume.data[0], VOXELS)
        assert volume.reading.warnings == ()

    @pytest.mark.parametrize(("unit", "factor"), [("mm", 1), ("um", 1e-3), ("m", 1000)])
    def test_units_are_honoured(self, tmp_path, unit, factor):
        grid = read_volume(meta(tmp_path / "a.mha", f"{META_PLACED}DistanceUnits = {unit}\n")).grid
        np.testing.assert_allclose(grid.spacing_mm, np.array([1, 2, 3]) * factor)

    @pytest.mark.parametrize(
        ("text", "spacing", "origin"),
        [
            ("", "assumed", "assumed"),
            ("Offset = 1 2 3\n", "assumed", "stated"),
            ("ElementSize = 1 2 3\n", "stated", "assumed"),
        ],
    )
    def test_what_is_not_said_is_told(self, tmp_path, text, spacing, origin):
        reading = read_volume(meta(tmp_path / "a.mha", text)).reading
        assert (reading.spacing, reading.origin) == (spacing, origin)
        assert len(reading.warnings) == (spacing, origin).count("assumed")

    @pytest.mark.parametrize(
        "text",
        [
            "Position = 4 5 6\n",
            "Origin = 4 5 6\n",
            "Offset = 4 5 6\n",
            "ElementSpacing = 2 2 2\n",
            "Orientation = 0 1 0 1 0 0 0 0 1\n",
        ],
    )
    def test_what_is_said_twice(self, tmp_path, text):
        with pytest.raises(GeometryError, match="expected"):
            read_volume(meta(tmp_path / "a.mha", META_PLACED + text))

    def test_letters_against_the_matrix(self, tmp_path):
        assert warnings_of(meta(tmp_path / "a.mha", META_PLACED + "AnatomicalOrientation = RAI\n")) == ()
        (warning,) = warnings_of(meta(tmp_path / "b.mha", META_PLACED + "AnatomicalOrientation = LPS\n"))
        assert "LPS contradicts its matrix" in warning

    @pytest.mark.parametrize("direction", [np.diag([-1.0, -1, 1]), OBLIQUE, np.eye(3)[[1, 2, 0]]])
    def test_letters_of_itk_agree_with_its_matrix(self, tmp_path, direction):
        sitk.WriteImage(itk(direction=direction), str(tmp_path / "a.mha"))
        assert warnings_of(tmp_path / "a.mha") == ()

    @pytest.mark.parametrize("text", ["Seq_Frame0000_ImageStatus = OK\n", "Kinds = domain domain list\n"])
    def test_tracked_frames(self, tmp_path, text):
        with pytest.raises(InputError, match="reconstruct a volume first"):
            read_volume(meta(tmp_path / "a.igs.mha", META_PLACED + text))

    @pytest.mark.parametrize("name", ["../secret.raw", "/etc/hostname"])
    def test_voxels_elsewhere(self, tmp_path, name):
        with pytest.raises(InputError, match="in its own folder"):
            read_volume(meta(tmp_path / "a.mhd", META_PLACED, b"", name))

    @pytest.mark.parametrize("name", ["LIST", "slice%03d.raw 0 1 1"])
    def test_lists_of_files(self, tmp_path, name):
        with pytest.raises(InputError, match="in one file"):
            read_volume(meta(tmp_path / "a.mhd", META_PLACED, b"", name))

    def test_voxels_that_are_cut_off(self, tmp_path):
        with pytest.raises(InputError, match="cut off"):
            read_volume(meta(tmp_path / "a.mha", META_PLACED + "HeaderSize = 5\n"))
        with pytest.raises(InputError, match="cut off"):
            read_volume(meta(tmp_path / "b.mha", META_PLACED, RAW[:-1]))


@pytest.mark.parametrize(
    ("suffix", "word"), [(".vtk", "how its axes lie"), (".tif", "where it lies"), (".gipl", "axes")]
)
def test_formats_that_do_not_say_all(tmp_path, suffix, word):
    sitk.WriteImage(itk(), str(tmp_path / f"a{suffix}"))
    assert word in " ".join(warnings_of(tmp_path / f"a{suffix}"))


def test_a_path_that_is_not_utf_8(tmp_path):
    folder = tmp_path / "caf\udce9"
    folder.mkdir()
    (folder / "a.mha").write_bytes(meta(tmp_path / "a.mha", META_PLACED).read_bytes())
    for path in (folder / "a.mha", folder):
        with pytest.raises(InputError, match=r"a path in UTF-8; got '.*caf\\udce9"):
            read_volume(path)
    with pytest.raises(InputError, match="a path in UTF-8"):
        read_transform(folder / "a.mha")

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from grids import noise_on
from MMRegCore.errors import GeometryError, InputError
from MMRegCore.geometry import Grid
from MMRegCore.io.volumes import itk_image, read_mask, read_volume, volume_from_itk, write_volume
from MMRegCore.volume import Volume

SUFFIXES = [".nii", ".nii.gz", ".nrrd", ".mha"]
UNIT = Grid((6, 7, 8), np.eye(4))


def image_3d(shape=(4, 5, 6), spacing=(0.5, 0.7, 0.9)):
    image = sitk.GetImageFromArray(np.random.default_rng(0).random(shape, dtype=np.float32))
    image.SetSpacing(spacing)
    return image


def one_line(caught: pytest.ExceptionInfo[BaseException], path: Path) -> None:
    text = str(caught.value)
    assert "\n" not in text
    assert str(path) in text
    assert "sitk" not in text
    assert "0x" not in text


def patched_nifti(path: Path, *changes: tuple[str, int, float]) -> Path:
    """A NIfTI-1 file with changed header fields: (struct format, offset, value)."""
    sitk.WriteImage(image_3d(), str(path))
    raw = bytearray(path.read_bytes())
    for code, offset, value in changes:
        struct.pack_into(f"<{code}", raw, offset, value)
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_round_trip_in_every_orientation(any_grid, suffix, tmp_path, smooth_volume):
    volume = smooth_volume(any_grid)
    path = tmp_path / f"mr.t1{suffix}"
    write_volume(volume, path)
    again = read_volume(path)
    assert again.name == "mr.t1"
    assert again.grid.matches(any_grid, tolerance_mm=1e-4)
    torch.testing.assert_close(again.data, volume.data, atol=0, rtol=0)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_simpleitk_sees_the_same_volume(any_grid, suffix, tmp_path, smooth_volume):
    volume = smooth_volume(any_grid)
    write_volume(volume, tmp_path / f"ours{suffix}")
    theirs = sitk.ReadImage(str(tmp_path / f"ours{suffix}"))
    assert theirs.GetPixelID() == sitk.sitkFloat32
    for ijk in [(0, 0, 0), (19, 3, 13)]:
        expected = any_grid.points_ras()[ijk[::-1]] * [-1, -1, 1]
        np.testing.assert_allclose(theirs.TransformIndexToPhysicalPoint(ijk), expected, atol=1e-4)
        assert theirs[ijk] == pytest.approx(float(volume.data[0][ijk[::-1]]))
    sitk.WriteImage(any_grid.to_itk(volume.data[0].numpy()), str(tmp_path / f"theirs{suffix}"))
    ours = read_volume(tmp_path / f"theirs{suffix}", name="mr")
    assert ours.name == "mr"
    assert ours.grid.matches(any_grid, tolerance_mm=1e-4)
    torch.testing.assert_close(ours.data, volume.data, atol=0, rtol=0)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float64"])
def test_types_on_disk(dtype, tmp_path):
    values = torch.tensor([-70000.0, -1.6, 0.4, 2.6, 300.0, 70000.0, float("nan"), 1.0]).reshape(1, 2, 2, 2)
    path = tmp_path / "a.nrrd"
    write_volume(Volume(values, Grid((2, 2, 2), np.eye(4))), path, dtype=dtype)
    stored = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    assert stored.dtype == np.dtype(dtype)
    if dtype == "float64":
        np.testing.assert_array_equal(stored.ravel(), values.double().numpy().ravel())
    else:
        limits = np.iinfo(dtype)
        expected = np.clip([-70000, -2, 0, 3, 300, 70000, 0, 1], limits.min, limits.max)
        np.testing.assert_array_equal(stored.ravel(), expected)


@pytest.mark.parametrize("dtype", ["notatype", "U7", "complex64", "object"])
def test_unknown_types_are_refused(dtype, tmp_path):
    with pytest.raises(InputError, match=f"got '{dtype}'"):
        write_volume(Volume(torch.zeros(1, 6, 7, 8), UNIT), tmp_path / "a.nrrd", dtype=dtype)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("pixel", [sitk.sitkUInt8, sitk.sitkInt16, sitk.sitkUInt32, sitk.sitkFloat64, sitk.sitkInt64])
def test_all_scalar_types_are_read(pixel, tmp_path):
    image = sitk.Cast(image_3d() * 100, pixel)
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"))
    expected = sitk.GetArrayFromImage(image).astype(np.float32)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nrrd").data[0], expected)


def test_compression_makes_smaller_files(tmp_path):
    volume = Volume(torch.zeros(1, 6, 7, 8), UNIT)
    write_volume(volume, tmp_path / "small.nrrd")
    write_volume(volume, tmp_path / "large.nrrd", compress=False)
    assert (tmp_path / "small.nrrd").stat().st_size < (tmp_path / "large.nrrd").stat().st_size


def test_channels_become_a_vector_image():
    volume = Volume(torch.rand(3, 6, 7, 8), UNIT)
    image = itk_image(volume)
    assert image.GetNumberOfComponentsPerPixel() == 3
    assert image[5, 4, 3] == pytest.approx(volume.data[:, 3, 4, 5].tolist())
    with pytest.raises(InputError, match="one value per voxel"):
        volume_from_itk(image)


def test_written_names_must_say_the_format(tmp_path):
    with pytest.raises(InputError, match=r"ends in one of \.nii\.gz"):
        write_volume(Volume(torch.zeros(1, 6, 7, 8), UNIT), tmp_path / "a.jpg")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_values_that_are_not_finite_are_kept_and_counted(suffix, tmp_path):
    data = torch.ones(1, 6, 7, 8)
    data[0, 0, 0, 0], data[0, 1, 1, 1] = float("nan"), float("inf")
    write_volume(Volume(data, UNIT), tmp_path / f"a{suffix}")
    again = read_volume(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(again.data.isfinite(), data.isfinite())
    assert again.reading.voxels_not_finite == 2


@pytest.mark.parametrize("shape", [(1, 7, 8), (6, 1, 8), (6, 7, 1), (1, 1, 1)])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_axes_of_one_voxel(shape, suffix, tmp_path):
    volume = Volume(torch.rand(1, *shape), Grid(shape, np.diag([2.0, 3, 4, 1])))
    write_volume(volume, tmp_path / f"a{suffix}")
    again = read_volume(tmp_path / f"a{suffix}")
    assert again.grid.matches(volume.grid)
    torch.testing.assert_close(again.data, volume.data)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_one_frame_of_a_4d_file_just_works(suffix, tmp_path, oblique_grid):
    image = noise_on(oblique_grid)
    sitk.WriteImage(sitk.JoinSeries([image]), str(tmp_path / f"a{suffix}"))
    again = read_volume(tmp_path / f"a{suffix}")
    assert again.grid.matches(oblique_grid)
    np.testing.assert_array_equal(again.data[0], sitk.GetArrayFromImage(image))


KINDS = [(kind, suffix) for kind in ("2-D", "4-D", "vector", "colour") for suffix in (".nii.gz", ".nrrd")]


@pytest.mark.parametrize(("kind", "suffix"), [*KINDS, ("complex", ".nii.gz")])
def test_images_that_are_not_3d_scalar(kind, suffix, tmp_path, capfd):
    image = image_3d()
    byte = sitk.Cast(image, sitk.sitkUInt8)
    made = {
        "2-D": lambda: image[:, :, 0],
        "4-D": lambda: sitk.JoinSeries([image, image]),
        "vector": lambda: sitk.Compose(image, image),
        "colour": lambda: sitk.Compose(byte, byte, byte),
        "complex": lambda: sitk.RealAndImaginaryToComplex(image, image),
    }[kind]()
    path = tmp_path / f"a{suffix}"
    sitk.WriteImage(made, str(path))
    with pytest.raises(InputError, match=r"expected (a 3-D image|an image with one value per voxel); got") as caught:
        read_volume(path)
    one_line(caught, path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("content", [None, b"", b"hello" * 300, b"\x1f\x8b" + b"x" * 500])
@pytest.mark.parametrize("suffix", [*SUFFIXES, ".txt"])
def test_missing_and_unreadable_files(content, suffix, tmp_path, capfd):
    path = tmp_path / f"a{suffix}"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="expected") as caught:
        read_volume(path)
    one_line(caught, path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.99])
def test_files_that_are_cut_off(suffix, share, tmp_path, capfd, smooth_volume, any_grid):
    path = tmp_path / f"a{suffix}"
    write_volume(smooth_volume(any_grid), path)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])
    with pytest.raises(InputError, match="expected") as caught:
        read_volume(path)
    one_line(caught, path)
    assert capfd.readouterr().err == ""


def test_file_that_may_not_be_opened(tmp_path, monkeypatch):
    path = tmp_path / "a.nii.gz"
    path.write_bytes(b"x")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match="cannot be opened: Permission denied"):
        read_volume(path)


def test_gzip_in_several_members_is_complete(tmp_path):
    sitk.WriteImage(image_3d(), str(tmp_path / "a.nii"))
    raw = (tmp_path / "a.nii").read_bytes()
    path = tmp_path / "b.nii.gz"
    path.write_bytes(gzip.compress(raw[:600]) + gzip.compress(raw[600:]))
    np.testing.assert_array_equal(read_volume(path).data[0], sitk.GetArrayFromImage(image_3d()))


@pytest.mark.parametrize("value", [0.0, -0.5, float("nan"), float("inf")])
def test_nifti_with_bad_spacing(value, tmp_path, capfd):
    path = patched_nifti(tmp_path / "a.nii", ("f", 80, value))
    with pytest.raises(GeometryError, match="positive spacings") as caught:
        read_volume(path)
    one_line(caught, path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("value", ["0", "-0.5"])
def test_mha_and_nrrd_with_bad_spacing(value, tmp_path, capfd):
    sitk.WriteImage(image_3d(), str(tmp_path / "a.mha"), False)
    raw = (tmp_path / "a.mha").read_bytes()
    (tmp_path / "b.mha").write_bytes(raw.replace(b"ElementSpacing = 0.5", b"ElementSpacing = " + value.encode()))
    header = f"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 2 2 2\nspacings: 1 {value} 1\nencoding: raw\n\n"
    (tmp_path / "b.nrrd").write_bytes(header.encode() + bytes(8))
    for name in ("b.mha", "b.nrrd"):
        with pytest.raises(InputError, match="expected") as caught:
            read_volume(tmp_path / name)
        one_line(caught, tmp_path / name)
    assert capfd.readouterr().err == ""


def test_nifti_whose_only_matrix_is_sheared_or_singular(tmp_path, capfd):
    for number, (offset, value) in enumerate([(284, 0.25), (284, 0.6), (280, 0.0)]):
        path = patched_nifti(tmp_path / f"{number}.nii", ("h", 252, 0), ("f", offset, value))
        with pytest.raises(GeometryError, match="expected") as caught:
            read_volume(path)
        one_line(caught, path)
    assert capfd.readouterr().err == ""


def test_nifti_whose_spacing_and_matrix_disagree(tmp_path):
    path = patched_nifti(tmp_path / "a.nii", ("h", 252, 0), ("f", 280, -0.25))
    with pytest.raises(GeometryError, match=r"0\.5, 0\.7, 0\.9.*agree with its matrix.*0\.25"):
        read_volume(path)


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_sheared_axes(suffix, tmp_path):
    path = tmp_path / f"a{suffix}"
    sitk.WriteImage(image_3d(), str(path), False)
    raw = path.read_bytes().replace(b"TransformMatrix = 1 0 0", b"TransformMatrix = 1 0.3 0")
    path.write_bytes(raw.replace(b"(0.5,0,0)", b"(0.5,0.3,0)"))
    with pytest.raises(GeometryError, match="right angles") as caught:
        read_volume(path)
    one_line(caught, path)


def test_warnings_of_itk_are_shown_again_afterwards(tmp_path):
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    for value in (True, False):
        sitk.ProcessObject.SetGlobalWarningDisplay(value)
        with pytest.raises(InputError):
            read_volume(tmp_path / "missing.nii")
        write_volume(Volume(torch.zeros(1, 6, 7, 8), UNIT), tmp_path / "a.nii.gz")
        assert sitk.ProcessObject.GetGlobalWarningDisplay() is value
    sitk.ProcessObject.SetGlobalWarningDisplay(shown)


def write_mask(path, grid, array):
    write_volume(Volume(torch.as_tensor(array, dtype=torch.float32)[None], grid), path, dtype="uint8")
    return path


def test_mask_on_its_own_grid(tmp_path, any_grid):
    array = (np.random.default_rng(0).random(any_grid.shape) > 0.6) * 2
    path = write_mask(tmp_path / "m.nii.gz", any_grid, array)
    mask = read_mask(path, any_grid)
    assert mask.dtype == torch.bool
    np.testing.assert_array_equal(mask, array > 0)


def test_mask_comes_with_the_volume(tmp_path):
    write_volume(Volume(torch.rand(1, 6, 7, 8), UNIT), tmp_path / "us.nii.gz")
    path = write_mask(tmp_path / "m.nii.gz", UNIT, np.ones(UNIT.shape))
    volume = read_volume(tmp_path / "us.nii.gz", mask_path=path)
    assert volume.mask is not None
    assert bool(volume.mask.all())


def test_mask_from_another_grid_is_sitk_nearest(tmp_path, any_grid, oblique_grid):
    target = Grid(
        (20, 22, 24),
        np.block(
            [[np.diag([0.913, 1.017, 0.871]), any_grid.centre_ras[:, None] - 9], [np.zeros((1, 3)), np.ones((1, 1))]]
        ),
    )
    array = (np.random.default_rng(0).random(any_grid.shape) > 0.5).astype(np.uint8)
    path = write_mask(tmp_path / "m.nrrd", any_grid, array)
    expected = sitk.Resample(any_grid.to_itk(array), target.to_itk(), sitk.Transform(3, sitk.sitkIdentity),
                             sitk.sitkNearestNeighbor, 0)  # fmt: skip
    ours, theirs = read_mask(path, target).numpy(), sitk.GetArrayFromImage(expected) > 0
    # Half-way between voxels and at the outermost faces either answer is right.
    assert (ours != theirs).mean() < 0.002
    assert 0.05 < ours.mean() < 0.6


def test_mask_without_a_voxel(tmp_path):
    path = write_mask(tmp_path / "m.nii.gz", UNIT, np.zeros(UNIT.shape))
    with pytest.raises(InputError, match="which is empty"):
        read_mask(path, UNIT)


def test_mask_that_is_empty_where_the_image_is(tmp_path):
    array = np.zeros((6, 7, 40))
    array[..., 30:] = 1
    path = write_mask(tmp_path / "m.nii.gz", Grid((6, 7, 40), np.eye(4)), array)
    with pytest.raises(InputError, match="none inside"):
        read_mask(path, UNIT)


def test_mask_elsewhere_says_how_far(tmp_path):
    matrix = np.eye(4)
    matrix[0, 3] = 100
    path = write_mask(tmp_path / "m.nii.gz", Grid(UNIT.shape, matrix), np.ones(UNIT.shape))
    with pytest.raises(GeometryError, match=r"100\.0 mm apart"):
        read_mask(path, UNIT)


def test_mask_of_nans_is_outside(tmp_path):
    data = torch.full((1, 6, 7, 8), float("nan"))
    data[0, 2, 3, 4] = 1
    write_volume(Volume(data, UNIT), tmp_path / "m.nrrd")
    assert int(read_mask(tmp_path / "m.nrrd", UNIT).sum()) == 1


def write_dicom(
    folder: Path, image: sitk.Image, series: int = 1, skip: tuple[int, ...] = (), tilt_mm: float = 0.0
) -> str:
    """Write a series slice by slice, as SimpleITK's documentation does; returns its identifier."""
    folder.mkdir(exist_ok=True)
    uid = f"1.2.826.0.1.3680043.2.1125.{series}"
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    cosines = np.reshape(image.GetDirection(), (3, 3))
    for k in range(image.GetSize()[2]):
        if k in skip:
            continue
        position = np.array(image.TransformIndexToPhysicalPoint((0, 0, k))) + tilt_mm * k * cosines[:, 1]
        piece = image[:, :, k]
        tags = {
            "0008|0060": "MR",
            "0008|0016": "1.2.840.10008.5.1.4.1.1.4",
            "0008|0018": f"{uid}.{k + 1}",
            "0020|000e": uid,
            "0020|000d": "1.2.826.0.1.3680043.2.1125.99",
            "0020|0013": str(k + 1),
            "0020|0032": "\\".join(f"{v:.8f}" for v in position),
            "0020|0037": "\\".join(f"{v:.8f}" for v in [*cosines[:, 0], *cosines[:, 1]]),
            "0018|0050": str(image.GetSpacing()[2]),
        }
        for tag, value in tags.items():
            piece.SetMetaData(tag, value)
        # Names in another order than the positions: the reader must sort by position.
        writer.SetFileName(str(folder / f"s{series}_{(k * 7) % 11:02d}.dcm"))
        writer.Execute(piece)
    return uid


@pytest.fixture
def dicom_image(oblique_grid):
    # DICOM series have right-handed axes.
    grid = Grid((11, 12, 13), oblique_grid.ras_from_ijk @ np.diag([1.0, 1, -1, 1]))
    array = np.random.default_rng(0).integers(0, 900, grid.shape).astype(np.int16)
    return grid.to_itk(array), grid


def test_dicom_series(tmp_path, dicom_image, capfd):
    image, grid = dicom_image
    write_dicom(tmp_path / "mr", image)
    volume = read_volume(tmp_path / "mr")
    assert volume.name == "mr"
    assert volume.grid.matches(grid)
    np.testing.assert_array_equal(volume.data[0], sitk.GetArrayFromImage(image))
    assert capfd.readouterr().err == ""


def test_dicom_folder_with_one_stack_and_a_scout(tmp_path, dicom_image):
    image, grid = dicom_image
    write_dicom(tmp_path / "mr", image)
    write_dicom(tmp_path / "mr", image[:, :, 3:4], series=2)
    assert read_volume(tmp_path / "mr").grid.matches(grid)


def test_dicom_folder_with_two_stacks_names_them(tmp_path, dicom_image):
    image, _ = dicom_image
    ids = [write_dicom(tmp_path / "mr", image, series=n) for n in (1, 2)]
    with pytest.raises(InputError, match=r"one DICOM series.*11 files \(s1_00.dcm.*11 files \(s2_00.dcm") as caught:
        read_volume(tmp_path / "mr")
    assert not any(uid in str(caught.value) for uid in ids)  # an identifier of a patient's study
    one_line(caught, tmp_path / "mr")


def test_dicom_of_one_slice(tmp_path, dicom_image):
    image, _ = dicom_image
    write_dicom(tmp_path / "mr", image[:, :, 0:1])
    assert read_volume(tmp_path / "mr").grid.shape == (1, 12, 13)


def test_dicom_with_a_missing_slice(tmp_path, dicom_image, capfd):
    write_dicom(tmp_path / "mr", dicom_image[0], skip=(4,))
    with pytest.raises(GeometryError, match=r"evenly spaced.*1\.8\d* to 3\.6"):
        read_volume(tmp_path / "mr")
    assert capfd.readouterr().err == ""


def test_dicom_with_a_tilted_gantry(tmp_path, dicom_image):
    write_dicom(tmp_path / "mr", dicom_image[0], tilt_mm=0.3)
    with pytest.raises(GeometryError, match="along their normal"):
        read_volume(tmp_path / "mr")


def test_folder_without_dicom(tmp_path, capfd):
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(InputError, match="holds none") as caught:
        read_volume(tmp_path)
    one_line(caught, tmp_path)
    assert capfd.readouterr().err == ""


def test_dicom_with_a_damaged_slice(tmp_path, dicom_image, capfd):
    write_dicom(tmp_path / "mr", dicom_image[0])
    path = sorted((tmp_path / "mr").iterdir())[3]
    path.write_bytes(path.read_bytes()[:-150])
    with pytest.raises(InputError, match="expected") as caught:
        read_volume(tmp_path / "mr")
    one_line(caught, tmp_path / "mr")
    assert capfd.readouterr().err == ""


def test_real_volumes_read_as_simpleitk_reads_them(case24):
    for key in ("us", "t1"):
        image = sitk.ReadImage(str(case24[key]))
        volume = read_volume(case24[key])
        assert volume.name == case24[key].name.removesuffix(".nii.gz")
        np.testing.assert_array_equal(volume.data[0], sitk.GetArrayFromImage(image))
        ijk = (5, 6, 7)
        np.testing.assert_allclose(
            volume.grid.points_ras()[7, 6, 5] * [-1, -1, 1], image.TransformIndexToPhysicalPoint(ijk), atol=1e-6
        )

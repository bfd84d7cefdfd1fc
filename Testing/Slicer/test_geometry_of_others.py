"""Odd but legal headers: MMReg places voxels where SimpleITK, nibabel and Slicer's own readers do, and back."""

import struct

import numpy as np
import pytest
import SimpleITK as sitk
import slicer
import torch
import vtk

from grids import DIRECTIONS, OBLIQUE
from MMRegCore.geometry import Grid
from MMRegCore.io.volumes import read_volume, write_volume
from MMRegCore.volume import Volume

VOXELS = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)


def itk(direction, spacing=(0.7, 1.3, 2.9), origin=(-61.2, 14.5, 101.25), array=VOXELS):
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(np.asarray(direction).ravel().tolist())
    return image


def by_itk(direction, suffix, **more):
    return lambda path: sitk.WriteImage(itk(direction, **more), str(path)), suffix


def nifti(*changes, array=VOXELS):
    """A file with changed header fields: (struct format, offset, value)."""

    def write(path):
        sitk.WriteImage(itk(OBLIQUE, array=array), str(path))
        raw = bytearray(path.read_bytes())
        for code, offset, value in changes:
            struct.pack_into(f"<{code}", raw, offset, value)
        path.write_bytes(raw)

    return write, ".nii"


def big_endian(path):
    nibabel = pytest.importorskip("nibabel")
    affine = np.diag([-2.0, 3, 1.5, 1])
    affine[:3, 3] = 7, 8, 9
    header = nibabel.Nifti1Header(endianness=">")
    nibabel.save(nibabel.Nifti1Image(VOXELS.T.astype(">i2"), affine, header), path)


def nrrd(more):
    head = "NRRD0005\ntype: short\ndimension: 3\nsizes: 6 5 4\nencoding: raw\nendian: little\n"
    return lambda path: path.write_bytes(f"{head}{more}\n".encode() + VOXELS.tobytes()), ".nrrd"


def meta(more):
    head = "ObjectType = Image\nNDims = 3\nDimSize = 6 5 4\nElementType = MET_SHORT\n"
    return lambda path: path.write_bytes(f"{head}{more}ElementDataFile = LOCAL\n".encode() + VOXELS.tobytes()), ".mha"


SUFFIXES = (".nii.gz", ".nrrd", ".mha")
TURNED = "(0,0,2) (1.5,0,0) (0,-3,0)"
STRAIGHT = "(1,0,0) (0,2,0) (0,0,3)"
FILES = {
    **{
        f"{name}{suffix}": by_itk(d, suffix)
        for name, d in DIRECTIONS.items()
        for suffix in (".nii.gz", ".nrrd", ".mha")
    },
    "fine": by_itk(OBLIQUE, ".nii", spacing=(1e-3, 2e-3, 5e-4)),
    "far": by_itk(OBLIQUE, ".nii.gz", origin=(9000.5, -8000.25, 7000.125)),
    "sform only": nifti(("h", 252, 0)),
    "qform only": nifti(("h", 254, 0)),
    "qform of the scanner, sform of a template": nifti(("h", 254, 4)),
    "metres": nifti(("B", 123, 1)),
    "micrometres": nifti(("B", 123, 3)),
    "scaled values": nifti(("f", 112, 0.5), ("f", 116, -7)),
    "a longer header": nifti(("f", 108, 352)),
    "big-endian": (big_endian, ".nii"),
    "nrrd in RAS": nrrd(f"space: right-anterior-superior\nspace directions: {TURNED}\nspace origin: (1,2,3)\n"),
    "nrrd in LAS": nrrd(f"space: LAS\nspace directions: {STRAIGHT}\nspace origin: (1,2,3)\n"),
    "nrrd in LPS": nrrd(f"space: left-posterior-superior\nspace directions: {TURNED}\nspace origin: (-1e2,2,3.5e1)\n"),
    "nrrd with comments": nrrd(
        f"# a comment\nspace: LPS\nspace directions: {STRAIGHT}\nspace origin: (1,2,3)\nkey:=value\n"
    ),
    "meta with Position": meta("Position = 1 2 3\nOrientation = 0 1 0 -1 0 0 0 0 1\nElementSpacing = 1 2 3\n"),
    "meta with Offset": meta("Offset = -1 2 3\nTransformMatrix = 0 0 1 1 0 0 0 1 0\nElementSpacing = 1 2 3\n"),
}
# What nibabel does not read, or takes otherwise: it leaves units to the caller.
NOT_FOR_NIBABEL = {"metres", "micrometres"}


@pytest.fixture(params=FILES)
def file(request, tmp_path):
    write, suffix = FILES[request.param]
    write(tmp_path / f"a{suffix}")
    return tmp_path / f"a{suffix}", request.param


def tolerance(matrix):
    """Headers hold 32-bit floats."""
    return 1e-6 * (1 + np.abs(matrix).max())


def test_there_are_thirty():
    assert len(FILES) >= 30


def test_simpleitk(file):
    path, _ = file
    theirs = sitk.ReadImage(str(path))
    ours = read_volume(path)
    matrix = Grid.from_itk(theirs).ras_from_ijk
    np.testing.assert_allclose(ours.grid.ras_from_ijk, matrix, atol=tolerance(matrix))
    np.testing.assert_array_equal(ours.data[0], sitk.GetArrayFromImage(theirs).astype(np.float32))


def test_nibabel(file):
    path, name = file
    if path.suffix not in (".nii", ".gz") or name in NOT_FOR_NIBABEL:
        pytest.skip("nibabel does not read it, or leaves its unit to the caller")
    nibabel = pytest.importorskip("nibabel")
    theirs = nibabel.load(path)
    ours = read_volume(path)
    np.testing.assert_allclose(ours.grid.ras_from_ijk, theirs.affine, atol=tolerance(theirs.affine))
    np.testing.assert_allclose(ours.data[0].numpy(), np.asarray(theirs.dataobj, dtype=np.float32).T)


def slicers(path):
    node, storage = slicer.vtkMRMLScalarVolumeNode(), slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(path))
    storage.SetCenterImage(0)
    assert storage.ReadData(node)
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix), slicer.util.arrayFromVolume(node).copy()


def right_handed(matrix, voxels):
    """The same voxels at the same places, slices counted the other way where the axes are left-handed, as in Slicer."""
    if np.linalg.det(matrix[:3, :3]) > 0:
        return matrix, voxels
    flip = np.diag([1.0, 1, -1, 1])
    flip[2, 3] = len(voxels) - 1
    return matrix @ flip, voxels[::-1]


def test_slicer(file):
    path, _ = file
    matrix, voxels = right_handed(*slicers(path))
    volume = read_volume(path)
    place, ours = right_handed(volume.grid.ras_from_ijk, volume.data[0].numpy())
    np.testing.assert_allclose(place, matrix, atol=tolerance(matrix))
    np.testing.assert_allclose(ours, voxels.astype(np.float32))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("name", DIRECTIONS)
def test_what_is_written_is_where_slicer_finds_it(tmp_path, suffix, name):
    grid = Grid.from_itk(itk(DIRECTIONS[name]))
    write_volume(Volume(torch.from_numpy(VOXELS.astype(np.float32))[None], grid), tmp_path / f"a{suffix}")
    matrix, voxels = right_handed(*slicers(tmp_path / f"a{suffix}"))
    place, ours = right_handed(grid.ras_from_ijk, VOXELS)
    np.testing.assert_allclose(matrix, place, atol=1e-4)
    np.testing.assert_array_equal(voxels, ours)

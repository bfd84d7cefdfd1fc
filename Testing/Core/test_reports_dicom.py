"""DICOM as scanners and archives write it: placed by what each frame says, or refused; see docs/reports.md."""

import json
import logging

import numpy as np
import pytest
from dicom_files import (
    AXIAL,
    ENHANCED_MR,
    PATIENT,
    SECONDARY_CAPTURE,
    SEGMENTATION,
    ULTRASOUND_CINE,
    ULTRASOUND_VOLUME,
    data_set,
    save,
    save_bare,
    write_frames,
    write_series,
)

from MMRegCore.errors import GeometryError, InputError
from MMRegCore.io.volumes import read_volume

VOXELS = np.arange(9 * 4 * 5, dtype=np.int16).reshape(9, 4, 5)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)


def along_z(count=9, step=2.5, start=-30.0, x=-20.0, y=-10.0):
    return [(x, y, start + step * k) for k in range(count)]


def check_place(volume, voxels=VOXELS, step=2.5, origin=(-20.0, -10.0, -30.0)):
    np.testing.assert_array_equal(volume.data[0], voxels)
    expected = np.diag([-1.0, -2, step, 1])
    expected[:3, 3] = np.array(origin) * [-1, -1, 1]
    np.testing.assert_allclose(volume.grid.ras_from_ijk, expected, atol=1e-6)


class TestSeries:
    @pytest.mark.parametrize("spacing", [2.5, -2.5, 99])
    def test_spacing_between_slices_does_not_count(self, tmp_path, spacing):
        write_series(tmp_path / "mr", VOXELS, along_z(), SpacingBetweenSlices=spacing)
        check_place(read_volume(tmp_path / "mr"))

    def test_files_in_falling_order(self, tmp_path):
        write_series(tmp_path / "mr", VOXELS[::-1], along_z()[::-1])
        volume = read_volume(tmp_path / "mr")
        check_place(volume)
        assert volume.reading.format == "DICOM, 9 files"
        assert "by position" in volume.reading.frame_order

    def test_secondary_capture_is_where_its_slices_say(self, tmp_path):
        write_series(tmp_path / "mr", VOXELS, along_z(), sop_class=SECONDARY_CAPTURE)
        check_place(read_volume(tmp_path / "mr"))

    def test_another_orientation(self, tmp_path):
        positions = [(-20.0, 30 + 2.5 * k, 40.0) for k in range(9)]
        write_series(tmp_path / "mr", VOXELS, positions, orientation=CORONAL)
        last = read_volume(tmp_path / "mr").grid.points_ras()[8, 3, 4]
        np.testing.assert_allclose(last, [16, -50, 34])

    @pytest.mark.parametrize("digits", [1, 2])
    def test_rounded_positions(self, tmp_path, digits):
        exact = along_z(step=1.27, start=-30.017)
        write_series(tmp_path / "mr", VOXELS, np.round(exact, digits).tolist())
        volume = read_volume(tmp_path / "mr")
        assert volume.grid.spacing_mm[2] == pytest.approx(1.27, abs=0.01)
        np.testing.assert_allclose(volume.grid.ras_from_ijk[2, 3], -30.017, atol=0.06)
        assert "even to 0.06 mm" in volume.reading.frame_order

    def test_slopes_that_differ_from_file_to_file(self, tmp_path):
        for k, position in enumerate(along_z()):
            made = data_set(VOXELS[k], number=k + 1)
            made.ImagePositionPatient, made.ImageOrientationPatient = list(position), list(AXIAL)
            made.PixelSpacing, made.RescaleSlope, made.RescaleIntercept = [2, 1], 1 + 0.5 * k, 3
            save(made, tmp_path / "mr" / f"{k}.dcm")
        expected = VOXELS * (1 + 0.5 * np.arange(9))[:, None, None] + 3
        np.testing.assert_allclose(read_volume(tmp_path / "mr").data[0], expected)

    def test_other_series_are_left_out_with_a_word(self, tmp_path):
        write_series(tmp_path / "mr", VOXELS, along_z())
        write_series(tmp_path / "mr", VOXELS[:1], along_z(1), series=2)
        volume = read_volume(tmp_path / "mr")
        check_place(volume)
        assert volume.reading.warnings == ("1 files of other series in the folder were left out",)

    @pytest.mark.parametrize(
        ("positions", "message"),
        [
            ([*along_z(4), *along_z(5, start=-17.5)], "evenly spaced"),
            (along_z(8) + along_z(1), "one image at each place"),
            ([(0.0, 0, 0)] * 9, "one image at each place"),
            ([(-20.0, 0.3 * k, 2.5 * k) for k in range(9)], "along their normal"),
            ([(0.0, 0, float(k * k)) for k in range(9)], "evenly spaced"),
        ],
    )
    def test_what_is_no_grid(self, tmp_path, positions, message):
        write_series(tmp_path / "mr", VOXELS, positions)
        with pytest.raises(GeometryError, match=message):
            read_volume(tmp_path / "mr")

    def test_time_as_third_axis(self, tmp_path):
        write_series(tmp_path / "mr", np.concatenate([VOXELS, VOXELS]), along_z() * 2)
        with pytest.raises(GeometryError, match="time points, echoes"):
            read_volume(tmp_path / "mr")

    def test_a_localiser(self, tmp_path):
        write_series(tmp_path / "mr", VOXELS[:3], along_z(3))
        write_series(tmp_path / "mr" / "b", VOXELS[3:6], along_z(3), orientation=CORONAL)
        for path in (tmp_path / "mr" / "b").iterdir():
            path.rename(tmp_path / "mr" / f"b{path.name}")
        with pytest.raises(GeometryError, match="slices of one orientation"):
            read_volume(tmp_path / "mr")

    def test_slices_of_two_sizes(self, tmp_path):
        write_series(tmp_path / "mr", VOXELS[:8], along_z(8))
        made = data_set(np.zeros((6, 5), np.int16), number=9)
        made.ImagePositionPatient, made.ImageOrientationPatient = [-20, -10, -10], list(AXIAL)
        made.PixelSpacing = [2, 1]
        save(made, tmp_path / "mr" / "z.dcm")
        with pytest.raises(GeometryError, match="one size and spacing"):
            read_volume(tmp_path / "mr")

    @pytest.mark.parametrize("name", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
    @pytest.mark.parametrize("value", [None, ""])
    def test_slices_that_do_not_say_where_they_lie(self, tmp_path, name, value):
        write_series(tmp_path / "mr", VOXELS, along_z(), **{name: value})
        with pytest.raises(GeometryError, match=f"got no {name} in s1_00.dcm"):
            read_volume(tmp_path / "mr")


class TestFrames:
    @pytest.mark.parametrize("in_folder", [False, True])
    @pytest.mark.parametrize("falling", [False, True])
    def test_enhanced_mr(self, tmp_path, falling, in_folder):
        turn = slice(None, None, -1 if falling else 1)
        write_frames(tmp_path / "mr" / "a.dcm", VOXELS[turn], along_z()[turn])
        volume = read_volume(tmp_path / "mr" if in_folder else tmp_path / "mr" / "a.dcm")
        check_place(volume)
        assert volume.reading.format == "DICOM, 9 frames"

    def test_frames_in_any_order(self, tmp_path):
        order = np.random.default_rng(0).permutation(9)
        write_frames(tmp_path / "a.dcm", VOXELS[order], np.array(along_z())[order].tolist())
        check_place(read_volume(tmp_path / "a.dcm"))

    def test_a_volume_of_ultrasound_has_a_space_of_its_own(self, tmp_path):
        write_frames(tmp_path / "us.dcm", VOXELS, along_z(), sop_class=ULTRASOUND_VOLUME, kind="Volume")
        volume = read_volume(tmp_path / "us.dcm")
        check_place(volume)
        assert "does not say where it lies in the patient" in volume.reading.warnings[0]

    def test_offsets_along_the_normal(self, tmp_path):
        made = data_set(VOXELS)
        made.ImagePositionPatient, made.ImageOrientationPatient = [-20, -10, -30], list(AXIAL)
        made.PixelSpacing, made.GridFrameOffsetVector = [2, 1], [2.5 * k for k in range(9)]
        check_place(read_volume(save(made, tmp_path / "a.dcm")))

    @pytest.mark.parametrize(
        ("positions", "message"),
        [
            ([*along_z(4), *along_z(5, start=-17.5)], "evenly spaced"),
            (along_z(3) * 3, "one image at each place"),
            ([(-20.0, 0.3 * k, 2.5 * k) for k in range(9)], "along their normal"),
            (along_z(8), "a place for each of 9 frames; got 8"),
        ],
    )
    def test_what_is_no_grid(self, tmp_path, positions, message):
        write_frames(tmp_path / "a.dcm", VOXELS, positions)
        with pytest.raises(GeometryError, match=message):
            read_volume(tmp_path / "a.dcm")

    def test_frames_of_several_orientations(self, tmp_path):
        write_frames(tmp_path / "a.dcm", VOXELS, along_z(), orientations=[AXIAL] * 8 + [CORONAL])
        with pytest.raises(GeometryError, match="one orientation"):
            read_volume(tmp_path / "a.dcm")

    def test_frames_of_several_scales(self, tmp_path):
        write_frames(tmp_path / "a.dcm", VOXELS, along_z(), slopes=[1] * 8 + [2])
        with pytest.raises(InputError, match="one scale"):
            read_volume(tmp_path / "a.dcm")

    @pytest.mark.parametrize("sop_class", [ULTRASOUND_CINE, SECONDARY_CAPTURE, ENHANCED_MR])
    def test_frames_without_a_place(self, tmp_path, sop_class):
        save(data_set(VOXELS, sop_class), tmp_path / "a.dcm")
        with pytest.raises(GeometryError, match="cine loop"):
            read_volume(tmp_path / "a.dcm")

    def test_a_segmentation(self, tmp_path):
        write_frames(tmp_path / "a.dcm", VOXELS, along_z(), sop_class=SEGMENTATION)
        with pytest.raises(InputError, match="DICOM segmentation"):
            read_volume(tmp_path / "a.dcm")

    def test_two_files_of_frames_in_one_series(self, tmp_path):
        for name in "ab":
            write_frames(tmp_path / "mr" / f"{name}.dcm", VOXELS, along_z())
        with pytest.raises(InputError, match="give one of them"):
            read_volume(tmp_path / "mr")


def test_single_slices_are_checked_too(tmp_path):
    folder = write_series(tmp_path / "mr", VOXELS[:1], along_z(1), SliceThickness=3)
    assert read_volume(next(folder.iterdir())).grid.spacing_mm[2] == 3
    folder = write_series(tmp_path / "us", VOXELS[:1], along_z(1))
    with pytest.raises(GeometryError, match="thickness of the only slice"):
        read_volume(next(folder.iterdir()))


def test_files_without_the_mark_of_dicom(tmp_path):
    folder = tmp_path / "mr"
    write_series(folder, VOXELS, along_z())
    for path in folder.iterdir():
        save_bare(path)
        assert path.read_bytes()[128:132] != b"DICM"
    check_place(read_volume(folder))


def test_a_spacing_of_zero(tmp_path):
    write_series(tmp_path / "mr", VOXELS, along_z(), SpacingBetweenSlices=0)
    with pytest.raises(InputError, match="positive spacings"):
        read_volume(tmp_path / "mr")


@pytest.mark.parametrize("share", np.arange(0.05, 1, 0.1))
def test_files_that_are_cut_off(tmp_path, share):
    path = write_frames(tmp_path / "a.dcm", VOXELS, along_z())
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])
    with pytest.raises(InputError, match="expected"):
        read_volume(path)


def test_nothing_of_the_patient_leaves_the_header(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    write_series(tmp_path / "mr", VOXELS, along_z())
    write_series(tmp_path / "two", VOXELS, along_z())
    write_series(tmp_path / "two", VOXELS, along_z(), series=2)
    volume = read_volume(tmp_path / "mr")
    with pytest.raises(InputError) as caught:
        read_volume(tmp_path / "two")
    said = json.dumps(volume.reading.__dict__) + str(caught.value) + caplog.text
    assert not [value for value in (*PATIENT.values(), "Doe", "1.2.826") if value in said]

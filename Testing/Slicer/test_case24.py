"""A real patient through nodes, files, process and scene, against the core alone."""

import numpy as np
import pytest

pytest.importorskip("slicer", reason="SLICER SCENE TESTS DID NOT RUN: slicer-core cannot be imported")

import slicer

from MMRegCore.config import load_preset, with_changes
from MMRegCore.io import read_landmark_pairs, read_volume
from MMRegCore.pipeline import register
from MMRegSlicerLib.logic import MMRegSlicerLogic
from mrml_scene import add_points, points_in_world

# What is tried is the way through the scene, not the accuracy: a coarse grid will do, and any result at all.
QUICK = {"choice.compete": "false", "working_spacing_mm": "1.5", "mcbo.strides": "1,2", "mcbo.weights": "1/2,1/2"}


def test_landmarks_and_voxels_end_where_the_core_puts_them(scene, case24):
    volumes = slicer.modules.volumes.logic()
    ultrasound = volumes.AddArchetypeVolume(str(case24["us"]), "US")
    mr = volumes.AddArchetypeVolume(str(case24["t1"]), "T1")
    _, in_mr = read_landmark_pairs(case24["landmarks"])
    points = add_points(scene, "in MR", in_mr.points_ras)

    result = MMRegSlicerLogic().register(ultrasound, mr, preset="mcbo", changes=QUICK, device="cpu")
    result.apply_to(points)

    settings = with_changes(load_preset("mcbo"), QUICK)
    expected = register(read_volume(case24["us"]), read_volume(case24["t1"]), settings=settings, device="cpu")
    in_us = expected.transform.apply_inverse(in_mr.points_ras)
    np.testing.assert_allclose(points_in_world(points), in_us, atol=1e-3)
    assert np.abs(in_us - in_mr.points_ras).max() > 0.1
    warped = slicer.util.arrayFromVolume(result.warped[0])
    np.testing.assert_allclose(warped, expected.warped[0].data[0].numpy(), atol=1e-2)

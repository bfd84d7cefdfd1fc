"""The way through docs/slicer.md with the sample case, and its pictures of the slice views.

The MR is the MNI152 brain of the package nilearn in place of Slicer's MRBrainTumor1, which would be a download;
MMREG_SCREENSHOTS names the folder where the pictures are kept.
"""

import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("slicer", reason="SLICER SCENE TESTS DID NOT RUN: slicer-core cannot be imported")

import slicer

from MMRegCore.simulate import load_template
from MMRegSlicerLib.deformation import GLYPHS, GRID, show_deformation
from MMRegSlicerLib.landmarks import jump_to, landmark_errors
from MMRegSlicerLib.logic import MMRegSlicerLogic
from MMRegSlicerLib.overlay import Overlay
from MMRegSlicerLib.sample_data import simulate_case
from mrml_scene import add_volume
from slice_view import VIEWS, SliceView, save_png, shared_information

# A coarser search than the preset's own: the tests of this page are not those of the accuracy.
QUICK = {"working_spacing_mm": "1.5"}


@pytest.fixture
def pictures(tmp_path) -> Path:
    return Path(os.environ.get("MMREG_SCREENSHOTS") or tmp_path)


def test_from_the_sample_to_a_result_that_is_seen_to_fit(scene, pictures, monkeypatch):
    pytest.importorskip("nilearn")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    brain = load_template().images[0]
    mr = add_volume(scene, "T1", brain.data[0].numpy(), brain.grid.ras_from_ijk)
    case = simulate_case(mr)
    views = [SliceView(scene, name, orientation, size=300) for name, orientation in VIEWS.items()]
    for view in views:
        view.look_at(case.ultrasound, mr, zoom=2.0)
    ultrasound = [view.draw(foreground=0.0) for view in views]
    before = [view.draw(foreground=1.0) for view in views]

    result = MMRegSlicerLogic().register(case.ultrasound, mr, changes=QUICK, device="cpu")

    landmarks = landmark_errors(result, case.ultrasound_landmarks, case.mr_landmarks)
    errors_mm = np.array([[each.before_mm, each.after_mm] for each in landmarks])
    assert errors_mm[:, 0].mean() > 3
    assert errors_mm[:, 1].mean() < 0.6 * errors_mm[:, 0].mean()
    after = [view.draw(foreground=1.0) for view in views]
    shared = [
        [shared_information(us, picture) for us, picture in zip(ultrasound, states, strict=True)]
        for states in (before, after)
    ]
    assert all(late > early for early, late in zip(*shared, strict=True)), shared

    overlay, rows = Overlay(result), []
    for is_after in (False, True):
        result.show(after=is_after)
        overlay.blend(0.5)
        rows.append([view.picture() for view in views])
    save_png(pictures / "slices.png", rows)
    overlay.checkerboard(12)
    board = views[0].picture()
    show_deformation(result, GRID)
    overlay.blend(0.0)
    grid = views[0].picture()
    show_deformation(result, GLYPHS)
    arrows = views[0].picture()
    show_deformation(result, "")
    save_png(pictures / "compare.png", [[board, grid, arrows]])
    maps = []
    for node in result.maps:
        overlay.overlay_map(node, 0.6)
        maps.append(views[0].picture())
    save_png(pictures / "maps.png", [maps])
    assert len(maps) == 3
    overlay.clear()

    jump_to(landmarks[0], scene)
    place = scene.GetFirstNodeByClass("vtkMRMLSliceNode").GetSliceToRAS()
    assert [place.GetElement(row, 3) for row in range(3)] == pytest.approx(landmarks[0].position_ras)
    result.discard()
    assert mr.GetTransformNodeID() is None
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 2

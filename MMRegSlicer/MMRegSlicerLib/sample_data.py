"""Sample data: Slicer's own brain MR with an ultrasound simulated from it, so that the true transform is known."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import slicer

from MMRegCore.errors import Cancelled, MMRegError
from MMRegSlicerLib import dependencies, mrml_bridge
from MMRegSlicerLib.request import Node
from MMRegSlicerLib.runner import Event, Worker, reported_error
from MMRegSlicerLib.subject_hierarchy import add_to_folder
from MMRegSlicerLib.translation import tr as _
from MMRegSlicerLib.workspace import Workspace

# Contrast-enhanced T1 of a patient with a meningioma; the module Sample Data knows its address and checksum.
MR_SAMPLE = "MRBrainTumor1"
SAMPLE = "MMRegBrainTumor1"
# The average of real landmarks after opening the dura; a random shift may be too small for a demonstration.
MEAN_SHIFT_MM = 5.0
_POLL_S = 0.05

# Called with the stage and the fraction done (0 to 1); False cancels.
ProgressCallback = Callable[[str, float], bool]


@dataclass(frozen=True)
class SampleCase:
    """The nodes of the sample.

    Attributes
    ----------
    mr, ultrasound : vtkMRMLScalarVolumeNode
    true_transform : vtkMRMLTransformNode
        From parent: nodes under it move from the MR to the ultrasound.
    mr_landmarks, ultrasound_landmarks : vtkMRMLMarkupsFiducialNode
        Corresponding points.
    """

    mr: Node
    ultrasound: Node
    true_transform: Node
    mr_landmarks: Node
    ultrasound_landmarks: Node


def register_sample(thumbnail: str) -> None:
    """Add the sample to the module Sample Data; called when the application has started.

    Parameters
    ----------
    thumbnail : str
        Path of a picture.
    """
    logic = importlib.import_module("SampleData").SampleDataLogic()
    mr = logic.sourceForSampleName(MR_SAMPLE)
    if mr is None:  # a version of Slicer without this MR
        return
    logic.registerCustomSampleDataSource(
        category="MMReg",
        sampleName=SAMPLE,
        uris=mr.uris[0],
        fileNames=mr.fileNames[0],
        nodeNames=mr.nodeNames[0],
        checksums=mr.checksums[0],
        thumbnailFileName=thumbnail,
        customDownloader=lambda _source=None: load_sample(),
    )


def load_sample() -> SampleCase | None:
    """Download the MR and simulate the ultrasound on this computer; None after an error, which is shown, or *Cancel*.

    In the application only: asks before packages are installed, and shows a progress dialog.
    """
    title = _("MMReg sample data")
    try:
        dependencies.ensure_installed(lambda question: bool(slicer.util.confirmOkCancelDisplay(question, title)))
        mr = _download_mr()
        # A QProgressDialog.
        dialog: Any = slicer.util.createProgressDialog(windowTitle=title, labelText=_("Starting…"), maximum=100)

        def on_progress(stage: str, fraction: float) -> bool:
            dialog.setLabelText(stage)
            dialog.setValue(round(100 * fraction))
            slicer.app.processEvents()
            return not dialog.wasCanceled

        try:
            return simulate_case(mr, on_progress)
        except MMRegError:  # also after Cancel
            mrml_bridge.remove_node(mr)
            raise
        finally:
            dialog.close()
    except Cancelled:
        return None
    except MMRegError as error:
        slicer.util.errorDisplay(str(error), title)
        return None


def _download_mr() -> Node:
    """The MR in the scene; an error where Slicer could not download or load it."""
    try:
        mr = importlib.import_module("SampleData").SampleDataLogic().downloadSample(MR_SAMPLE)
    except (IndexError, OSError, RuntimeError, ValueError):  # IndexError: there is no file and so no node
        mr = None
    if not hasattr(mr, "GetID"):
        raise MMRegError(_("{name} could not be downloaded. Check the network connection.").format(name=MR_SAMPLE))
    return mr


def simulate_case(mr: Node, on_progress: ProgressCallback = lambda _stage, _fraction: True) -> SampleCase:
    """Simulate an ultrasound of an MR after a brain shift, in a process of its own, and load it.

    Parameters
    ----------
    mr : vtkMRMLScalarVolumeNode
        T1, with or without contrast agent, of a whole head or skull-stripped. It is not modified.
    on_progress : callable
        Called a few times a second.

    Raises
    ------
    Cancelled
        When ``on_progress`` returned False, or the MR was deleted; the scene is not changed.
    MMRegError
        When no ultrasound can be simulated from the MR.
    """
    workspace = Workspace()
    try:
        mrml_bridge.write_volume(mr, workspace.folder / "mr.nrrd")
        output = workspace.folder / "case"
        command = ["-m", "MMRegCore", "simulate", "--json-progress", "--mr", str(workspace.folder / "mr.nrrd")]
        command += ["--contrast", "t1c", "--mean-shift-mm", str(MEAN_SHIFT_MM), "--output", str(output)]
        # The user may close the scene while ``on_progress`` processes events.
        _run(command, lambda stage, fraction: on_progress(stage, fraction) and mr.GetScene() is not None)
        return _load_case(mr, output)
    finally:
        workspace.close()


def _run(command: list[str], on_progress: ProgressCallback) -> None:
    worker = Worker(command)
    latest: dict[str, Event] = {"progress": {"stage": "", "fraction": 0.0}}
    handlers = {name: partial(latest.__setitem__, name) for name in ("progress", "error", "exit")}
    try:
        while worker.poll(handlers):
            if not on_progress(latest["progress"]["stage"], latest["progress"]["fraction"]):
                raise Cancelled(_("Simulation cancelled."))
            time.sleep(_POLL_S)
    finally:
        worker.stop()
    if latest["exit"]["code"] != 0:
        raise reported_error(latest.get("error", {"message": _("The simulation ended unexpectedly.")}))


def _load_case(mr: Node, folder: Path) -> SampleCase:
    scene, name = mr.GetScene(), str(mr.GetName())
    nodes: list[Node] = []
    try:
        ultrasound = mrml_bridge.read_volume(folder / "ultrasound.nii.gz", scene, _("Ultrasound (simulated)"))
        nodes.append(ultrasound)
        nodes.append(mrml_bridge.read_transform(folder / "truth.h5", scene, _("True transform")))
        for side, title in (("mr", name), ("ultrasound", str(ultrasound.GetName()))):
            path = folder / f"landmarks_{side}.mrk.json"
            nodes.append(mrml_bridge.read_points(path, scene, _("{image} landmarks").format(image=title)))
        # All nodes are in the MR's own space: its parent transform applies to them too.
        for node in nodes:
            node.SetAndObserveTransformNodeID(mr.GetTransformNodeID())
        add_to_folder(scene, _("MMReg sample"), [mr, *nodes])
    except BaseException:
        for node in nodes:
            mrml_bridge.remove_node(node)
        raise
    return SampleCase(mr, *nodes)

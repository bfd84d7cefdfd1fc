"""The sample case: Slicer's own brain MR with an ultrasound simulated from it, so that the answer is known."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import slicer

from MMRegCore.errors import Cancelled, MMRegError
from MMRegSlicerLib import dependencies, mrml_bridge
from MMRegSlicerLib.request import Node
from MMRegSlicerLib.result import into_folder
from MMRegSlicerLib.runner import Worker
from MMRegSlicerLib.translation import tr as _
from MMRegSlicerLib.workspace import Workspace

# A T1 with contrast agent of a patient with a meningioma; the module Sample Data knows its address and checksum.
MR_SAMPLE = "MRBrainTumor1"
SAMPLE = "MMRegBrainTumor1"
# As on average over real landmarks after the dura was opened; a drawn shift may be too small to show anything.
MEAN_SHIFT_MM = 5.0
_POLL_S = 0.05

# Told the stage and how far it is, 0 to 1; False cancels.
Alive = Callable[[str, float], bool]


@dataclass(frozen=True)
class SampleCase:
    """What the sample brings into the scene.

    Attributes
    ----------
    mr, ultrasound : vtkMRMLScalarVolumeNode
    truth : vtkMRMLTransformNode
        The right answer, from parent: what is put under it moves from the MR to the ultrasound.
    in_mr, in_ultrasound : vtkMRMLMarkupsFiducialNode
        The same places in both.
    """

    mr: Node
    ultrasound: Node
    truth: Node
    in_mr: Node
    in_ultrasound: Node


def register_sample(thumbnail: str) -> None:
    """Offer the sample in the module Sample Data; called when the application has started.

    Parameters
    ----------
    thumbnail : str
        Path of a picture.
    """
    logic = importlib.import_module("SampleData").SampleDataLogic()
    mr = logic.sourceForSampleName(MR_SAMPLE)
    if mr is None:  # a Slicer that no longer brings this MR has no sample of ours either
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
    """Download the MR, simulate the ultrasound on this computer, and tell a person of errors; None when there was one.

    In the application only: asks before packages are installed, and shows a dialog with *Cancel*.
    """
    title = _("MMReg sample data")
    try:
        dependencies.ensure(lambda question: bool(slicer.util.confirmOkCancelDisplay(question, title)))
        mr = importlib.import_module("SampleData").SampleDataLogic().downloadSample(MR_SAMPLE)
        if not hasattr(mr, "GetID"):
            raise MMRegError(_("{name} could not be downloaded; look at the network.").format(name=MR_SAMPLE))
        # A QProgressDialog.
        dialog: Any = slicer.util.createProgressDialog(windowTitle=title, labelText=_("Starting…"), maximum=100)

        def alive(stage: str, fraction: float) -> bool:
            dialog.setLabelText(stage)
            dialog.setValue(round(100 * fraction))
            slicer.app.processEvents()
            return not dialog.wasCanceled

        try:
            return simulate_case(mr, alive)
        finally:
            dialog.close()
    except Cancelled:
        return None
    except MMRegError as error:
        slicer.util.errorDisplay(str(error), title)
        return None


def simulate_case(mr: Node, alive: Alive = lambda _stage, _fraction: True) -> SampleCase:
    """Simulate an ultrasound of an MR after a brain shift, in a process of its own, and load it with its answer.

    Parameters
    ----------
    mr : vtkMRMLScalarVolumeNode
        T1, with or without contrast agent, of a whole head or skull-stripped. It is not altered.
    alive : callable
        Called a few times a second.

    Raises
    ------
    Cancelled
        When ``alive`` gave False, or the MR was deleted meanwhile; the scene is as before.
    MMRegError
        In one line what is wrong.
    """
    workspace = Workspace()
    try:
        mrml_bridge.write_volume(mr, workspace.folder / "mr.nrrd")
        output = workspace.folder / "case"
        command = ["-m", "MMRegCore", "simulate", "--json-progress", "--mr", str(workspace.folder / "mr.nrrd")]
        command += ["--contrast", "t1c", "--mean-shift-mm", str(MEAN_SHIFT_MM), "--output", str(output)]
        # While ``alive`` lets the application live, a person may close the scene.
        _run(command, lambda stage, fraction: alive(stage, fraction) and mr.GetScene() is not None)
        return _loaded(mr, output)
    finally:
        workspace.close()


def _run(command: list[str], alive: Alive) -> None:
    worker = Worker(command)
    stage, fraction, problem = "", 0.0, ""
    try:
        while True:
            for event in worker.events():
                if event["event"] == "progress":
                    stage, fraction = event["stage"], event["fraction"]
                elif event["event"] == "error":
                    problem = str(event["message"]).removeprefix("error: ")
                elif event["event"] == "exit":
                    if event["code"] != 0:
                        raise MMRegError(problem or _("The simulation ended unexpectedly."))
                    return
            if not alive(stage, fraction):
                raise Cancelled(_("cancelled"))
            time.sleep(_POLL_S)
    finally:
        worker.stop()


def _loaded(mr: Node, folder: Path) -> SampleCase:
    scene, name = mr.GetScene(), str(mr.GetName())
    made: list[Node] = []
    try:
        ultrasound = mrml_bridge.read_volume(folder / "ultrasound.nii.gz", scene, _("Ultrasound (simulated)"))
        made.append(ultrasound)
        made.append(mrml_bridge.read_transform(folder / "truth.h5", scene, _("Known truth")))
        for side, title in (("mr", name), ("ultrasound", str(ultrasound.GetName()))):
            path = folder / f"landmarks_{side}.mrk.json"
            made.append(mrml_bridge.read_points(path, scene, _("Landmarks in {image}").format(image=title)))
        # All of it belongs to the MR's own space; what moves the MR moves the case.
        for node in made:
            node.SetAndObserveTransformNodeID(mr.GetTransformNodeID())
        into_folder(scene, _("MMReg sample"), [mr, *made])
    except BaseException:
        for node in made:
            mrml_bridge.remove(node)
        raise
    return SampleCase(mr, *made[:2], *made[2:])

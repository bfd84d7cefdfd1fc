"""A slice view without the application: Slicer's slice logic, drawn off screen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from mrml_scene import scene_holds

VIEWS = {"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"}
# What of Slicer draws transforms, legends and models over the image.
_MANAGERS = (
    "vtkMRMLTransformsDisplayableManager2D",
    "vtkMRMLColorLegendDisplayableManager",
    "vtkMRMLModelSliceDisplayableManager",
)


class SliceView:
    """One orientation of the scene.

    Parameters
    ----------
    scene : vtkMRMLScene
        From `mrml_scene.new_scene`.
    name, orientation : str
        Such as 'Red' and 'Axial'.
    size : int
        Width and height in pixels.
    """

    def __init__(self, scene: Any, name: str, orientation: str, size: int = 240) -> None:
        application = scene_holds[id(scene)][0]
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)
        if application.GetSliceLogics() is None:
            application.SetSliceLogics(vtk.vtkCollection())
        self._window = vtk.vtkRenderWindow()
        self._window.SetOffScreenRendering(True)
        self._window.SetShowWindow(False)
        self._window.SetSize(size, size)
        renderer = vtk.vtkRenderer()
        renderer.GetActiveCamera().ParallelProjectionOn()
        self._window.AddRenderer(renderer)
        self._interactor = vtk.vtkRenderWindowInteractor()
        self._interactor.SetRenderWindow(self._window)
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        factory.SetMRMLApplicationLogic(application)
        for manager in _MANAGERS:
            if not factory.IsDisplayableManagerRegistered(manager):
                factory.RegisterDisplayableManager(manager)
        self._managers = slicer.vtkMRMLDisplayableManagerGroup()
        self._managers.Initialize(factory, renderer)
        self._logic = slicer.vtkMRMLSliceLogic()
        self._logic.SetMRMLApplicationLogic(application)
        self._logic.SetMRMLScene(scene)
        application.GetSliceLogics().AddItem(self._logic)
        node = self._logic.AddSliceNode(name)
        node.SetOrientation(orientation)
        node.SetMappedInLayout(1)
        self._managers.SetMRMLDisplayableNode(node)
        self._logic.ResizeSliceNode(size, size)
        node.SetDimensions(size, size, 1)
        self._mapper = vtk.vtkImageMapper()
        self._mapper.SetColorWindow(255)
        self._mapper.SetColorLevel(127.5)
        actor = vtk.vtkActor2D()
        actor.SetMapper(self._mapper)
        actor.GetProperty().SetDisplayLocationToBackground()
        renderer.AddViewProp(actor)

    @property
    def composite(self) -> Any:
        """What is shown: background, foreground, opacity."""
        return self._logic.GetSliceCompositeNode()

    def look_at(self, background: Any, foreground: Any, *, zoom: float = 1.0) -> None:
        """Show two volumes, at the middle of the first, the first so much larger; the view then stays where it is."""
        self.composite.SetBackgroundVolumeID(background.GetID())
        self.composite.SetForegroundVolumeID(foreground.GetID())
        self._logic.FitSliceToBackground()
        node = self._logic.GetSliceNode()
        width, height, depth = node.GetFieldOfView()
        node.SetFieldOfView(width / zoom, height / zoom, depth)
        bounds = [0.0] * 6
        background.GetRASBounds(bounds)
        node.JumpSliceByCentering(*[(bounds[axis] + bounds[axis + 1]) / 2 for axis in (0, 2, 4)])

    def draw(self, *, foreground: float) -> np.ndarray:
        """(H, W) brightness of the view, 0 to 255, with the foreground at an opacity."""
        self.composite.SetForegroundOpacity(foreground)
        return self.picture().mean(axis=-1)

    def picture(self) -> np.ndarray:
        """(H, W, 3) the view as it is, 0 to 255, the lowest line first."""
        self._logic.UpdatePipeline()
        self._mapper.SetInputConnection(self._logic.GetImageDataConnection())
        self._window.Render()
        grab = vtk.vtkWindowToImageFilter()
        grab.SetInput(self._window)
        grab.ReadFrontBufferOff()
        grab.Update()
        image = grab.GetOutput()
        width, height, _ = image.GetDimensions()
        return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(height, width, -1)[..., :3]


def save_png(path: Path, rows: list[list[np.ndarray]]) -> None:
    """Write pictures (H, W, 3), the lowest line first, in rows beside and below each other."""
    whole = np.concatenate([np.concatenate(row, axis=1) for row in reversed(rows)])
    image = vtk.vtkImageData()
    image.SetDimensions(whole.shape[1], whole.shape[0], 1)
    image.GetPointData().SetScalars(numpy_to_vtk(whole.reshape(-1, 3), deep=True))
    writer = vtk.vtkPNGWriter()
    writer.SetFileName(str(path))
    writer.SetInputData(image)
    writer.Write()
    assert path.stat().st_size > 10_000


def shared_information(first: np.ndarray, second: np.ndarray) -> float:
    """Normalised mutual information of two pictures (H, W) where the first, the ultrasound, shows anything."""
    inside = first > 0
    counts, _, _ = np.histogram2d(first[inside], second[inside], bins=24)
    joint = counts / counts.sum()
    entropy = [-(part[part > 0] * np.log(part[part > 0])).sum() for part in (joint.sum(0), joint.sum(1), joint)]
    return (entropy[0] + entropy[1]) / entropy[2]

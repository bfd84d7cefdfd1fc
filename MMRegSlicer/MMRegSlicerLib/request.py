"""A registration request, and why it cannot be run yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from MMRegCore.config import DEFAULT_PRESET, load_preset, with_changes
from MMRegCore.errors import MMRegError
from MMRegSlicerLib.translation import tr as _

# How exactly a surgeon sets a landmark in the ultrasound.
LANDMARK_ERROR_MM = "2"
# A MRML node, or None where a docstring says so. Slicer's classes come without types.
Node: TypeAlias = Any


@dataclass(frozen=True)
class Mask:
    """The valid region of an image: a label map volume, or one segment of a segmentation."""

    node: Node
    segment_id: str = ""

    @property
    def is_segment(self) -> bool:
        """Whether the node is a segmentation."""
        return bool(self.node.IsA("vtkMRMLSegmentationNode"))


@dataclass(frozen=True)
class Moving:
    """One MR volume with its mask; both are None until they are selected."""

    node: Node = None
    mask: Mask | None = None


@dataclass(frozen=True)
class Request:
    """The inputs and settings of a registration.

    Attributes
    ----------
    fixed : node or None
        The ultrasound volume.
    moving : tuple of Moving
        The MR volumes, all in the same patient space.
    fixed_mask : Mask or None
        None detects the field of view automatically.
    initial_transform : node or None
        Replaces the parent transform of the MR; None starts from the current position in the scene.
    preset : str
    changes : mapping of str to str
        Settings that differ from the preset, as ``mmreg --set`` takes them.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    name : str
        Name of the result; derived from the images when empty.
    fixed_landmarks, moving_landmarks : node or None
        Point lists of corresponding points that guide the registration, both or neither.
    landmark_error_mm : str
        Their standard deviation along each axis, as ``mmreg --landmark-error-mm`` takes it.
    """

    fixed: Node = None
    moving: tuple[Moving, ...] = (Moving(),)
    fixed_mask: Mask | None = None
    initial_transform: Node = None
    preset: str = DEFAULT_PRESET
    changes: Mapping[str, str] = field(default_factory=dict)
    device: str = "auto"
    name: str = ""
    fixed_landmarks: Node = None
    moving_landmarks: Node = None
    landmark_error_mm: str = LANDMARK_ERROR_MM

    @property
    def moving_nodes(self) -> tuple[Node, ...]:
        """The MR volumes that are selected."""
        return tuple(each.node for each in self.moving if each.node is not None)

    @property
    def result_name(self) -> str:
        """The given name, or one derived from the images."""
        names = ", ".join(str(node.GetName()) for node in self.moving_nodes)
        return self.name or _("{moving} to {fixed}").format(moving=names, fixed=self.fixed.GetName())

    def without(self, node: Node) -> Request:
        """The same request with nothing selected where ``node`` was."""

        def mask(selected: Mask | None) -> Mask | None:
            return None if selected is None or selected.node is node else selected

        def volume(selected: Node) -> Node:
            return None if selected is node else selected

        return replace(
            self,
            fixed=volume(self.fixed),
            moving=tuple(Moving(volume(each.node), mask(each.mask)) for each in self.moving),
            fixed_mask=mask(self.fixed_mask),
            initial_transform=volume(self.initial_transform),
            fixed_landmarks=volume(self.fixed_landmarks),
            moving_landmarks=volume(self.moving_landmarks),
        )

    def validation_error(self) -> str:
        """Say in one sentence why the request cannot be run; empty when it is valid."""
        if self.fixed is None:
            return _("Select the ultrasound volume.")
        if not self.moving_nodes:
            return _("Select at least one MR volume.")
        problems = (
            self._volume_error,
            self._parent_error,
            self._mask_error,
            self._landmark_error,
            self._settings_error,
        )
        return next(filter(None, (problem() for problem in problems)), "")

    def initial_transform_warning(self) -> str:
        """Warn when the initial transform leaves out parent transforms of the MR; empty when it does not."""
        chain = _parent_transforms(self.moving_nodes[0]) if self.moving_nodes else []
        if self.initial_transform is None or self.initial_transform not in chain[1:]:
            return ""
        ignored = ", ".join(str(node.GetName()) for node in chain[: chain.index(self.initial_transform)])
        return _(
            "{initial} is only a part of the transforms of the MR: {ignored} would be ignored. "
            "Select the current position in the scene to use all of them."
        ).format(initial=self.initial_transform.GetName(), ignored=ignored)

    def _volume_error(self) -> str:
        nodes = (self.fixed, *self.moving_nodes)
        if len({node.GetID() for node in nodes}) < len(nodes):
            return _("The same volume is selected twice.")
        for node in nodes:
            image = node.GetImageData()
            if image is None or image.GetNumberOfPoints() == 0:
                return _("{name} contains no image.").format(name=node.GetName())
            if image.GetNumberOfScalarComponents() != 1:
                return _("{name} is a colour or vector volume; select a scalar volume.").format(name=node.GetName())
        return ""

    def _parent_error(self) -> str:
        if self.initial_transform is None and len({node.GetTransformNodeID() for node in self.moving_nodes}) > 1:
            return _("All MR volumes must have the same parent transform.")
        return ""

    def _mask_error(self) -> str:
        images = [(self.fixed, self.fixed_mask), *((each.node, each.mask) for each in self.moving)]
        for image, mask in images:
            if image is None or mask is None:
                continue
            if mask.is_segment and mask.node.GetSegmentation().GetSegment(mask.segment_id) is None:
                return _("Select the segment of {name} that is the mask.").format(name=mask.node.GetName())
            if not mask.is_segment and mask.node.GetTransformNodeID() != image.GetTransformNodeID():
                return _("The mask {mask} must have the same parent transform as {image}.").format(
                    mask=mask.node.GetName(), image=image.GetName()
                )
        return ""

    def _landmark_error(self) -> str:
        if (self.fixed_landmarks is None) != (self.moving_landmarks is None):
            return _("Select the guiding landmarks of both images, or of neither.")
        if self.fixed_landmarks is None:
            return ""
        if self.fixed_landmarks is self.moving_landmarks:
            return _("The same point list is selected for both images.")
        try:
            is_positive = float(self.landmark_error_mm) > 0
        except ValueError:
            is_positive = False
        return "" if is_positive else _("Enter the error of the landmarks, in mm.")

    def _settings_error(self) -> str:
        try:
            with_changes(load_preset(self.preset), self.changes)
        except MMRegError as error:
            return f"{error}."
        return ""


def _parent_transforms(node: Node) -> list[Node]:
    """All transforms above a node, its parent first."""
    chain, parent = [], node.GetParentTransformNode()
    while parent is not None:
        chain.append(parent)
        parent = parent.GetParentTransformNode()
    return chain

"""What a registration is asked to do, and why it cannot be done yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from MMRegCore.config import DEFAULT_PRESET, load_preset, with_changes
from MMRegCore.errors import MMRegError
from MMRegSlicerLib.translation import tr as _

# A MRML node, or None where a docstring says so. Slicer's classes come without types.
Node: TypeAlias = Any


@dataclass(frozen=True)
class Mask:
    """Where an image is evidence: a label map volume, or one segment of a segmentation."""

    node: Node
    segment_id: str = ""

    @property
    def is_segment(self) -> bool:
        """Whether the node is a segmentation."""
        return bool(self.node.IsA("vtkMRMLSegmentationNode"))


@dataclass(frozen=True)
class Moving:
    """One MR, or a place for one that was not chosen yet."""

    node: Node = None
    mask: Mask | None = None


@dataclass(frozen=True)
class Request:
    """Everything that the form holds.

    Attributes
    ----------
    fixed : node or None
        The ultrasound volume.
    moving : tuple of Moving
        The MR volumes, all of one patient space.
    fixed_mask : Mask or None
        Without one the field of view is found automatically.
    start : node or None
        Transform that takes the place of the one above the MR; None starts from where the images lie in the scene.
    preset : str
    changes : mapping of str to str
        Settings of the preset that are changed, as ``mmreg --set`` takes them.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    name : str
        Of the result; made from the images when empty.
    """

    fixed: Node = None
    moving: tuple[Moving, ...] = (Moving(),)
    fixed_mask: Mask | None = None
    start: Node = None
    preset: str = DEFAULT_PRESET
    changes: Mapping[str, str] = field(default_factory=dict)
    device: str = "auto"
    name: str = ""

    @property
    def moving_nodes(self) -> tuple[Node, ...]:
        """The MR volumes that were chosen."""
        return tuple(each.node for each in self.moving if each.node is not None)

    @property
    def result_name(self) -> str:
        """The name that was given, or one that tells what was registered to what."""
        names = ", ".join(str(node.GetName()) for node in self.moving_nodes)
        return self.name or _("{moving} to {fixed}").format(moving=names, fixed=self.fixed.GetName())

    def why_not(self) -> str:
        """Say in one sentence what is missing before this can run; empty when nothing is."""
        if self.fixed is None:
            return _("Choose the ultrasound volume.")
        if not self.moving_nodes:
            return _("Choose at least one MR volume.")
        return self._images() or self._space() or self._masks() or self._settings()

    def start_advice(self) -> str:
        """Warn when the start leaves out transforms that the MR lies under; empty when there is nothing to say."""
        chain = _above(self.moving_nodes[0]) if self.moving_nodes else []
        if self.start is None or self.start not in chain[1:]:
            return ""
        skipped = ", ".join(str(node.GetName()) for node in chain[: chain.index(self.start)])
        return _(
            "{start} is only the upper part of the transforms above the MR: {skipped} would be left out. "
            "Choose no start to honour all of them."
        ).format(start=self.start.GetName(), skipped=skipped)

    def _images(self) -> str:
        nodes = (self.fixed, *self.moving_nodes)
        if len({node.GetID() for node in nodes}) < len(nodes):
            return _("Choose a different volume in every place: one is chosen twice.")
        for node in nodes:
            image = node.GetImageData()
            if image is None or image.GetNumberOfPoints() == 0:
                return _("{name} holds no image.").format(name=node.GetName())
            if image.GetNumberOfScalarComponents() != 1:
                return _("{name} is a colour or vector volume; choose one with a single value per voxel.").format(
                    name=node.GetName()
                )
        return ""

    def _space(self) -> str:
        if self.start is None and len({node.GetTransformNodeID() for node in self.moving_nodes}) > 1:
            return _("The MR volumes lie under different transforms; put them under the same one.")
        return ""

    def _masks(self) -> str:
        images = [(self.fixed, self.fixed_mask), *((each.node, each.mask) for each in self.moving)]
        for image, mask in images:
            if image is None or mask is None:
                continue
            if mask.is_segment and mask.node.GetSegmentation().GetSegment(mask.segment_id) is None:
                return _("Choose the segment of {name} that is the mask.").format(name=mask.node.GetName())
            if not mask.is_segment and mask.node.GetTransformNodeID() != image.GetTransformNodeID():
                return _("The mask {mask} must lie under the same transform as {image}.").format(
                    mask=mask.node.GetName(), image=image.GetName()
                )
        return ""

    def _settings(self) -> str:
        try:
            with_changes(load_preset(self.preset), self.changes)
        except MMRegError as error:
            return f"{error}."
        return ""


def _above(node: Node) -> list[Node]:
    """The transforms that a node lies under, the nearest first."""
    chain, parent = [], node.GetParentTransformNode()
    while parent is not None:
        chain.append(parent)
        parent = parent.GetParentTransformNode()
    return chain

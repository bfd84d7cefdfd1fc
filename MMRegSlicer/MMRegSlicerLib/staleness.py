"""Whether the images changed since they were registered; needs no Qt."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence

import numpy as np
import slicer
import vtk

from MMRegSlicerLib.request import Node
from MMRegSlicerLib.result import Result

# Attribute of the transform node: checksums of the ultrasound and of each MR, as JSON.
_INPUTS = "MMReg.inputs"


def checksums(volumes: Sequence[Node]) -> list[int]:
    """Of voxels and geometry, without parent transforms: the result moves with those of the ultrasound."""
    return [_checksum(each) for each in volumes]


def store_checksums(result: Result, sums: Sequence[int]) -> None:
    """Keep the checksums of the ultrasound and of each MR with the result."""
    result.transform.SetAttribute(_INPUTS, json.dumps(list(sums)))


def changed_inputs(result: Result) -> tuple[str, ...]:
    """The names of the images that changed since; those that were hardened or deleted are left out."""
    text, images = result.transform.GetAttribute(_INPUTS), (result.fixed, *result.moving)
    stored = json.loads(text) if text else []
    if len(stored) != len(images):  # another version of MMReg, or an MR was deleted
        return ()
    pairs = [
        (node, value)
        for node, value in zip(images, stored, strict=True)
        if node is not None and node not in result.hardened_nodes
    ]
    return tuple(str(node.GetName()) for node, value in pairs if _checksum(node) != value)


def _checksum(volume: Node) -> int:
    if volume.GetImageData() is None:
        return 0
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    geometry = slicer.util.arrayFromVTKMatrix(matrix)
    # Rounded: a saved scene keeps fewer digits.
    start = zlib.crc32((np.round(geometry, 3) + 0.0).astype("<f4").tobytes())
    return zlib.crc32(np.ascontiguousarray(slicer.util.arrayFromVolume(volume)).data, start)

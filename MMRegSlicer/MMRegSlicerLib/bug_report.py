"""Versions, settings, sizes and log, without names of nodes, files, persons and computers; needs no Qt."""

from __future__ import annotations

import getpass
import json
import platform
import re
from importlib.metadata import PackageNotFoundError, version

import slicer

from MMRegCore.version import __version__
from MMRegSlicerLib.mrml_bridge import file_name, nodes_of_class
from MMRegSlicerLib.request import Node, Request

_PACKAGES = ("torch", "SimpleITK", "numpy", "safetensors", "Jinja2")
# A path on any system: it may hold a name.
_PATH = r"(?:[A-Za-z]:)?(?:[/\\\\][\w.~%+@ -]+){2,}"
_SHORTEST_NAME = 3


def bug_report(request: Request, log: str, scene: Node) -> str:
    """What a developer needs to know of a registration.

    Parameters
    ----------
    request : Request
    log : str
        As shown in the panel; names of nodes, of the user and of the computer, and paths, are replaced.
    scene : vtkMRMLScene

    Returns
    -------
    str
    """
    settings = {"preset": request.preset, "changes": dict(request.changes), "device": request.device}
    moving = [(f"MR {index}", node) for index, node in enumerate(request.moving_nodes, start=1)]
    moving = [(f"MR {index}", node) for index, node in enumerate(request.moving_nodes, start=1)]
    images = [("ultrasound", request.fixed), *moving]
    lines = [
        f"MMReg {__version__}, Slicer {_slicer_version()}",
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}",
        ", ".join(f"{name} {_version(name)}" for name in _PACKAGES),
        json.dumps(settings, sort_keys=True),
        *(f"{role}: {_size(node)}" for role, node in images if node is not None),
        "",
        _anonymised(log, scene),
    ]
    return "\n".join(lines)


def _slicer_version() -> str:
    application = getattr(slicer, "app", None)
    return str(getattr(application, "applicationVersion", "without the application"))


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _size(volume: Node) -> str:
    image = volume.GetImageData()
    if image is None:
        return "no image"
    size = " × ".join(str(each) for each in image.GetDimensions())
    spacing = " × ".join(f"{each:.3g}" for each in volume.GetSpacing())
    parent = "with" if volume.GetTransformNodeID() else "without"
    return f"{size} voxels of {spacing} mm, {image.GetScalarTypeAsString()}, {parent} a parent transform"


def _anonymised(log: str, scene: Node) -> str:
    text = re.sub(_PATH, "<path>", log)
    names = {str(node.GetName()) for node in nodes_of_class(scene, "vtkMRMLStorableNode") if node.GetName()}
    names |= {file_name(name) for name in names}
    names |= {_user_name(), platform.node()}
    for name in sorted(names, key=len, reverse=True):
        if len(name) >= _SHORTEST_NAME:
            text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "<name>", text, flags=re.IGNORECASE)
    return text


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without users
        return ""

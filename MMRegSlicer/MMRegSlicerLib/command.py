"""A request as files and the command line that registers them."""

from __future__ import annotations

from pathlib import Path

from MMRegSlicerLib.mrml_bridge import write_mask, write_start, write_volume
from MMRegSlicerLib.request import Request


def write_inputs(request: Request, folder: Path) -> list[str]:
    """Write what a request needs into a folder.

    Parameters
    ----------
    request : Request
        One that can run, see `Request.why_not`.
    folder : Path
        The result will be written to ``result`` in it.

    Returns
    -------
    list of str
        The arguments of ``python``.

    Raises
    ------
    InputError
        When a node cannot be written.
    """
    fixed = request.fixed
    write_volume(fixed, folder / "fixed.nrrd")
    command = [
        "-m",
        "MMRegCore",
        "register",
        "--json-progress",
        "--output",
        str(folder / "result"),
        "--fixed",
        str(folder / "fixed.nrrd"),
    ]
    if request.fixed_mask is not None:
        write_mask(request.fixed_mask, fixed, folder / "fixed_mask.nrrd")
        command += ["--fixed-mask", str(folder / "fixed_mask.nrrd")]
    masks = []
    for index, moving in enumerate(each for each in request.moving if each.node is not None):
        # The name of the file becomes the name of the warped image; two MR may have the same one.
        path = folder / f"moving{index}" / f"{_file_name(moving.node.GetName())}.nrrd"
        path.parent.mkdir()
        write_volume(moving.node, path)
        command += ["--moving", str(path)]
        masks.append("none")
        if moving.mask is not None:
            masks[-1] = str(folder / f"moving_mask{index}.nrrd")
            write_mask(moving.mask, moving.node, Path(masks[-1]))
    command += ["--moving-mask", *masks]
    above = request.start if request.start is not None else request.moving_nodes[0].GetParentTransformNode()
    if write_start(fixed, above, folder / "start.h5"):
        command += ["--initial-transform", str(folder / "start.h5")]
    command += ["--preset", request.preset, "--device", request.device]
    if request.changes:
        command += ["--set", *(f"{key}={value}" for key, value in request.changes.items())]
    return command


def _file_name(name: str) -> str:
    """A name without the letters that some file system does not take."""
    return "".join(letter if letter.isalnum() else "_" for letter in name)[:60] or "volume"

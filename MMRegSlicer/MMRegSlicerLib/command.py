"""The input files and the command line of a registration request."""

from __future__ import annotations

from pathlib import Path

from MMRegSlicerLib.guide import write_landmarks
from MMRegSlicerLib.mrml_bridge import file_name, write_initial_transform, write_mask, write_volume
from MMRegSlicerLib.request import Request


def write_inputs(request: Request, folder: Path) -> list[str]:
    """Write the input files of a request.

    Parameters
    ----------
    request : Request
        Must be valid, see `Request.validation_error`.
    folder : Path
        Receives the files; the result will be written to its subfolder ``result``.

    Returns
    -------
    list of str
        The arguments of ``mmreg``.

    Raises
    ------
    InputError
        When a node cannot be written, or the guiding landmarks are no pairs.
    """
    fixed = request.fixed
    write_volume(fixed, folder / "fixed.nrrd")
    command = [
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
        path = folder / f"moving{index}" / f"{file_name(moving.node.GetName())}.nrrd"
        path.parent.mkdir()
        write_volume(moving.node, path)
        command += ["--moving", str(path)]
        masks.append("none")
        if moving.mask is not None:
            masks[-1] = str(folder / f"moving_mask{index}.nrrd")
            write_mask(moving.mask, moving.node, Path(masks[-1]))
    command += ["--moving-mask", *masks]
    initial = request.initial_transform or request.moving_nodes[0].GetParentTransformNode()
    if write_initial_transform(fixed, initial, folder / "initial.h5"):
        command += ["--initial-transform", str(folder / "initial.h5")]
    command += write_landmarks(request, folder)
    command += ["--preset", request.preset, "--device", request.device]
    if request.changes:
        command += ["--set", *(f"{key}={value}" for key, value in request.changes.items())]
    return command

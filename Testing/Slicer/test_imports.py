"""The module uses the public names, settings, quality numbers, pairing and errors of the core only, never torch."""

import ast
from pathlib import Path

import MMRegCore
from MMRegCore.cli.arguments import build_parser
from MMRegSlicerLib.request import Request

MODULE = Path(__file__).parents[2] / "MMRegSlicer"
ALLOWED = {
    "MMRegCore",
    "MMRegCore.assessment.quality",
    "MMRegCore.config",
    "MMRegCore.errors",
    "MMRegCore.evaluate.pairing",
    "MMRegCore.version",
}
FORBIDDEN = {"torch", "SimpleITK", "matplotlib", "PySide6", "scipy"}


def test_the_form_begins_with_the_preset_that_the_command_takes():
    arguments = build_parser().parse_args(["register", "--fixed", "a", "--moving", "b", "--output", "c"])
    assert (Request().preset, Request().device) == (arguments.preset, arguments.device)


def test_what_the_module_imports():
    for path in [MODULE / "MMRegSlicer.py", *(MODULE / "MMRegSlicerLib").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {node.module or ""}
                if node.module == "MMRegCore":
                    assert {alias.name for alias in node.names} <= {*MMRegCore.__all__, "errors"}, path.name
            else:
                continue
            core = {name for name in names if name.startswith("MMRegCore")}
            assert core <= ALLOWED, f"{path.name} imports {core}"
            assert not {name.partition(".")[0] for name in names} & FORBIDDEN, path.name

"""The public names: they are a promise; one that disappears breaks other people's programs."""

import ast
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import MMRegCore

PROMISED = {
    "Cancelled",
    "DeviceError",
    "DisplacementField",
    "GeometryError",
    "Grid",
    "InputError",
    "MMRegError",
    "Monitor",
    "RegistrationResult",
    "RegistrationSettings",
    "SpatialTransform",
    "Volume",
    "load_preset",
    "read_landmarks",
    "read_transform",
    "read_volume",
    "register",
    "target_registration_error",
    "write_transform",
    "write_volume",
}


def test_no_public_name_came_or_went():
    assert set(MMRegCore.__all__) == PROMISED


def test_every_public_name_can_be_had_and_is_documented():
    for name in MMRegCore.__all__:
        value = getattr(MMRegCore, name)
        assert value.__name__ == name
        assert value.__doc__, name
    assert set(dir(MMRegCore)) >= PROMISED


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(MMRegCore.__file__).read_text(encoding="utf-8"))
    (checked,) = (node for node in tree.body if isinstance(node, ast.If))
    imported = {(alias.name, node.module.removeprefix("MMRegCore.")) for node in checked.body for alias in node.names}
    assert imported == set(MMRegCore._HOME.items())


def test_unknown_names_are_attribute_errors():
    assert not hasattr(MMRegCore, "regsiter")


def test_version_is_the_installed_one():
    assert version("mmreg") == MMRegCore.__version__


def test_settings_and_help_do_not_wait_for_torch():
    code = (
        "import sys; from MMRegCore.cli import main; "
        "verbs = [['presets'], ['presets', '--json'], ['presets', '--show', 'mcbo'], ['register', '--help']]; "
        "codes = [main(words) for words in verbs]; "
        "sys.exit(str(codes) if any(codes) or {'torch', 'numpy', 'SimpleITK'} & set(sys.modules) else 0)"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False)
    assert finished.returncode == 0, finished.stderr


def test_registration_does_not_wait_for_pictures_or_the_demo():
    code = (
        "import sys, MMRegCore; [getattr(MMRegCore, name) for name in MMRegCore.__all__]; "
        "sys.exit(str({'matplotlib', 'nilearn', 'slicer', 'vtk'} & set(sys.modules) or ''))"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=False)
    assert finished.stderr.strip() == ""

"""Missing packages are installed after one confirmation, and failures are explained."""

import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import tomllib

from MMRegSlicerLib import dependencies
from MMRegSlicerLib.dependencies import DependencyError, ensure_installed

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


@pytest.fixture
def slicer_python(monkeypatch):
    """A Slicer in which nothing is installed; ``installed`` fills when something is."""
    installed: list[str] = []
    monkeypatch.setattr(dependencies, "find_spec", lambda name: object() if name in installed else None)

    class PyTorchUtilsLogic:
        def installTorch(self, askConfirmation, torchVersionRequirement):  # noqa: N802, N803
            assert (askConfirmation, torchVersionRequirement) == (False, ">=2.4")
            installed.append("torch")
            return SimpleNamespace()

    def pip_ensure(requirements, *, skip_packages, **options):
        assert {"SimpleITK", "numpy", "pydicom", "vtk"} <= set(skip_packages)
        assert options == {"requester": "MMReg", "prompt_install": False, "skip_in_testing": False}
        installed.extend(requirement.name.lower() for requirement in requirements)

    torch_utilities, packaging = ModuleType("PyTorchUtils"), ModuleType("slicer.packaging")
    torch_utilities.PyTorchUtilsLogic, packaging.pip_ensure = PyTorchUtilsLogic, pip_ensure
    monkeypatch.setitem(sys.modules, "PyTorchUtils", torch_utilities)
    monkeypatch.setitem(sys.modules, "slicer.packaging", packaging)
    return SimpleNamespace(installed=installed, torch=torch_utilities, packaging=packaging)


def test_versions_are_those_that_the_core_needs():
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    needed = {*project["dependencies"], *project["optional-dependencies"]["report"]}
    shipped = {text for text in needed if re.match(r"(numpy|pydicom|SimpleITK)\b", text)}
    assert {package.requirement for package in dependencies.packages()} == needed - shipped


def test_asks_once_and_names_everything_with_its_size(slicer_python):
    asked = []
    assert ensure_installed(lambda text: asked.append(text) or True)
    assert len(asked) == 1
    for package in dependencies.packages():
        assert f"{package.requirement} ({package.size}): {package.purpose}" in asked[0]
    assert slicer_python.installed == ["torch", "safetensors", "jinja2", "matplotlib"]
    assert not ensure_installed(lambda text: pytest.fail("nothing is missing any more"))


def test_older_slicers_use_their_older_way(slicer_python, monkeypatch):
    monkeypatch.setitem(sys.modules, "slicer.packaging", None)
    util = ModuleType("slicer.util")
    util.pip_install = lambda names: slicer_python.installed.extend(name.split(">")[0].lower() for name in names)
    monkeypatch.setitem(sys.modules, "slicer.util", util)
    ensure_installed(lambda text: True)
    assert slicer_python.installed == ["torch", "safetensors", "jinja2", "matplotlib"]


def test_a_refusal_installs_nothing(slicer_python):
    with pytest.raises(DependencyError, match="Nothing was installed. Registration requires torch"):
        ensure_installed(lambda text: False)
    assert slicer_python.installed == []


def test_without_the_extension_pytorch_it_says_where_to_get_it(slicer_python, monkeypatch):
    monkeypatch.setitem(sys.modules, "PyTorchUtils", None)
    with pytest.raises(DependencyError, match="PyTorch extension from Slicer's Extensions Manager"):
        ensure_installed(lambda text: True)


def test_failures_are_explained(slicer_python):
    def fail(*_, **__):
        raise RuntimeError("no network")

    slicer_python.packaging.pip_ensure = fail
    with pytest.raises(
        DependencyError, match="safetensors could not be installed .no network.. Check the network connection"
    ):
        ensure_installed(lambda text: True)
    slicer_python.packaging.pip_ensure = lambda *_, **__: None
    with pytest.raises(DependencyError, match="safetensors, Jinja2, matplotlib cannot be found after the installation"):
        ensure_installed(lambda text: True)

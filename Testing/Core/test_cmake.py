"""The extension's CMake files: every file of the two packages is installed; without Slicer the tests are registered."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Stands in for Slicer's own package: the macro writes down what it was given.
SLICER = """
set(Slicer_FOUND TRUE)
set(BUILD_TESTING TRUE)
foreach(name USE_FILE EXTENSION_GENERATE_CONFIG EXTENSION_CPACK)
  set(Slicer_${name} ${CMAKE_CURRENT_LIST_DIR}/empty.cmake)
endforeach()
macro(slicerMacroBuildScriptedModule)
  file(WRITE ${CMAKE_BINARY_DIR}/given_${ARGV1}.txt "${ARGN}")
endmacro()
macro(slicer_add_python_unittest)
  file(WRITE ${CMAKE_BINARY_DIR}/given_test.txt "${ARGN}")
endmacro()
"""


@pytest.fixture
def cmake(tmp_path):
    if shutil.which("cmake") is None:
        pytest.skip("there is no cmake here")

    def configure(*options: str) -> Path:
        build = tmp_path / "build"
        command = ["cmake", "-S", str(ROOT), "-B", str(build), "--no-warn-unused-cli", *options]
        finished = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
        assert finished.returncode == 0, finished.stdout + finished.stderr
        return build

    return configure


def on_disk(package: str, *patterns: str) -> set[str]:
    folder = ROOT / package
    return {path.relative_to(folder).as_posix() for pattern in patterns for path in folder.rglob(pattern)}


def test_the_extension_installs_every_file(cmake, tmp_path):
    (tmp_path / "SlicerConfig.cmake").write_text(SLICER)
    (tmp_path / "empty.cmake").write_text("")
    build = cmake(f"-DSlicer_DIR={tmp_path}")
    core = set((build / "given_MMRegCore.txt").read_text().split(";"))
    assert on_disk("MMRegCore", "*.py", "*.json", "*.j2", "*.safetensors") <= core
    assert "WITH_SUBDIR" in core
    module = set((build / "given_MMRegSlicer.txt").read_text().split(";"))
    assert on_disk("MMRegSlicer", "*.py", "*.ui", "*.png") <= module
    assert "WITH_SUBDIR" not in module
    assert (build / "given_test.txt").read_text() == "SCRIPT;MMRegSlicer.py"


def test_without_slicer_both_tiers_are_tests(cmake):
    build = cmake()
    command = ["ctest", "--test-dir", str(build), "--show-only"]
    shown = subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout
    assert "Test #1: Core" in shown
    assert "Test #2: Slicer" in shown

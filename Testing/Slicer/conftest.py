"""A fresh scene for every test that asks for one."""

from typing import Any

import pytest

# These files run in processes of their own, see test_application.py and test_widget.py.
collect_ignore = ["application", "widget"]


@pytest.fixture
def scene(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Slicer's scene, also as ``slicer.mrmlScene``."""
    pytest.importorskip("slicer", reason="SLICER SCENE TESTS DID NOT RUN: slicer-core cannot be imported")
    from mrml_scene import new_scene, scene_holds

    made = new_scene(tmp_path_factory.mktemp("cache"))
    yield made
    made.Clear(1)
    scene_holds.pop(id(made))

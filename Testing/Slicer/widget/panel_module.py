"""The module in the application: description, self-test, reload, sample data."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import slicer
from PySide6 import QtWidgets

from MMRegSlicerLib.sample_data import load_sample
from MMRegSlicerLib.self_test import CASES
from mrml_scene import add_volume, node_ids


def test_description(opened):
    described = opened.module.described
    assert described.title == "MMReg: MR to ultrasound"
    assert described.categories == ["Registration"]
    assert "not a medical device" in described.helpText
    assert "Apache License 2.0" in described.acknowledgementText
    assert "arxiv.org/abs/2409.05040" in described.acknowledgementText


def test_slicers_own_test_runs_the_same_cases(opened, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    ran = []
    test = opened.module.module.MMRegSlicerTest()
    monkeypatch.setattr(test, "delayDisplay", ran.append)
    test.runTest()
    assert ran == [case.__name__ for case in CASES]


def test_it_can_be_opened_again_after_a_reload(opened):
    opened.module.widget.cleanup()
    opened.module.widget.setup()
    opened.module.widget.enter()
    assert opened.module.widget.panel.ui.statusLabel.text() == "Select the ultrasound volume."


def test_the_logic_is_found_beside_the_module(opened):
    logic = opened.module.module.MMRegSlicerLogic()
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "US")
    assert logic.makeRequest(node, [node], preset="mcbo-clem").preset == "mcbo-clem"


def test_the_sample_is_offered_when_the_application_has_started_and_can_be_cancelled(opened, monkeypatch):
    registered, errors = [], []
    source = SimpleNamespace(uris=["a"], fileNames=["b"], nodeNames=["c"], checksums=["d"])
    sample_data = ModuleType("SampleData")
    sample_data.SampleDataLogic = lambda: SimpleNamespace(
        sourceForSampleName=lambda name: source,
        registerCustomSampleDataSource=lambda **options: registered.append(options),
        downloadSample=lambda name: add_volume(slicer.mrmlScene, name, np.ones((30, 30, 30)), np.eye(4)),
    )
    monkeypatch.setitem(sys.modules, "SampleData", sample_data)
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, title: errors.append(text))
    slicer.app.started[-1]()
    assert [options["sampleName"] for options in registered] == ["MMRegBrainTumor1"]
    assert registered[0]["thumbnailFileName"].endswith("Resources/Icons/MMRegSlicer.png")

    slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    before = node_ids(slicer.mrmlScene)
    # What has no contrast is refused by the core; the dialog is a real one.
    assert registered[0]["customDownloader"](source) is None
    assert "to show a brain" in errors[0]
    dialogs = lambda: [w for w in QtWidgets.QApplication.topLevelWidgets() if w.inherits("QProgressDialog")]  # noqa: E731
    assert not any(dialog.isVisible() for dialog in dialogs())
    monkeypatch.setattr(slicer.app, "processEvents", lambda: [dialog.cancel() for dialog in dialogs()], raising=False)
    assert load_sample() is None
    assert len(errors) == 1
    assert node_ids(slicer.mrmlScene) == before


def test_a_reload_imports_every_part_again(opened, monkeypatch):
    before = sys.modules["MMRegSlicerLib.widget"]
    parts = {name: part for name, part in sys.modules.items() if name.partition(".")[0] == "MMRegSlicerLib"}
    reloaded = []
    base = type(opened.module.widget).__mro__[1]

    def on_reload(widget):
        reloaded.append(widget)

    monkeypatch.setattr(base, "onReload", on_reload, raising=False)
    try:
        opened.module.widget.onReload()
        assert reloaded == [opened.module.widget]
        from MMRegSlicerLib import widget

        assert widget is not before
    finally:
        sys.modules.update(parts)
        sys.modules["MMRegSlicerLib"].widget = before


def test_the_menu_of_parameter_sets_says_so(opened):
    assert opened.ui.parameterSelector.labels == {"vtkMRMLScriptedModuleNode": "parameter set"}

"""The module as the application meets it: description, self-test, reload."""

import slicer

from MMRegSlicerLib.self_test import CASES


def test_it_says_what_it_is_and_what_it_is_not(opened):
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
    assert opened.module.widget.panel.ui.statusLabel.text() == "Choose the ultrasound volume."


def test_the_logic_is_found_beside_the_module(opened):
    logic = opened.module.module.MMRegSlicerLogic()
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "US")
    assert logic.makeRequest(node, [node], preset="mcbo-clem").preset == "mcbo-clem"

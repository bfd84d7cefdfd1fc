"""The Slicer module MMRegSlicer: the classes that the application looks for; the rest is in MMRegSlicerLib."""

import sys
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

from MMRegSlicerLib.logic import MMRegSlicerLogic

__all__ = ["MMRegSlicer", "MMRegSlicerLogic", "MMRegSlicerTest", "MMRegSlicerWidget"]


class MMRegSlicer(ScriptedLoadableModule):
    """Title, category, help and acknowledgement of the module."""

    def __init__(self, parent: Any) -> None:  # noqa: ANN401 - a C++ object
        super().__init__(parent)
        parent.title = _("MMReg: MR to ultrasound")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Registration")]
        parent.dependencies = []
        parent.contributors = ["The MMReg contributors"]
        parent.helpText = _(
            "Registers preoperative MR to intraoperative ultrasound, and provides quality measures to verify the "
            "result.<p><b>Research software, not a medical device.</b> It is not approved for clinical use; "
            "do not base treatment on it.</p>"
        )
        parent.acknowledgementText = _(
            "Apache License 2.0. Images are registered on this computer; nothing is uploaded.<p>Methods: Wein et al. "
            "2008 and Fuerst et al. 2014 (LC²), Wang et al., <i>Unsupervised Multimodal 3D Medical Image Registration "
            "with Multilevel Correlation Balanced Optimization</i>, 2024, <a href='https://arxiv.org/abs/2409.05040'>"
            "arXiv:2409.05040</a> (MCBO). CITATION.cff names the papers of every preset.</p>"
        )
        # The module Sample Data must have been loaded.
        slicer.app.connect("startupCompleted()", self._register_sample)

    def _register_sample(self) -> None:
        from MMRegSlicerLib.sample_data import register_sample

        register_sample(str(Path(self.parent.path).parent / "Resources" / "Icons" / "MMRegSlicer.png"))


class MMRegSlicerWidget(ScriptedLoadableModuleWidget):
    """The panel of the module."""

    def setup(self) -> None:
        """Create the panel, when the module is opened for the first time."""
        super().setup()
        # Qt is imported only here, so that the logic can be used without it.
        from MMRegSlicerLib.widget import Panel

        root = slicer.util.loadUI(self.resourcePath("UI/MMRegSlicer.ui"))
        self.layout.addWidget(root)
        root.setMRMLScene(slicer.mrmlScene)
        self.logic = MMRegSlicerLogic()
        self.panel = Panel(slicer.util.childWidgetVariables(root), self.logic)
        self.panel.enter()

    def enter(self) -> None:
        """Update the panel, when the user switches to the module."""
        self.panel.enter()

    def exit(self) -> None:
        """Disable the shortcuts, when the user switches to another module."""
        self.panel.exit()

    def onReload(self) -> None:  # noqa: N802
        """Import the parts of the module again too, when a developer reloads it."""
        for name in [each for each in sys.modules if each.partition(".")[0] == "MMRegSlicerLib"]:
            del sys.modules[name]
        super().onReload()

    def cleanup(self) -> None:
        """Stop all processes, when the module is reloaded or the application quits."""
        self.panel.cleanup()


class MMRegSlicerTest(ScriptedLoadableModuleTest):
    """The self-test, for Slicer's own test runner."""

    def setUp(self) -> None:
        """Start with an empty scene."""
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:  # noqa: N802
        """Run every case."""
        from MMRegSlicerLib.self_test import CASES

        for case in CASES:
            self.setUp()
            self.delayDisplay(case.__name__)
            case()

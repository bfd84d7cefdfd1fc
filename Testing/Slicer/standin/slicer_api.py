"""The part of Qt, CTK and Slicer that the module may use: class → header, properties, methods and signals.

The qMRML and CTK ones were looked up in the headers named, as of 2025 (Slicer, commonTK/CTK); Qt's are of Qt 5 and 6
alike. The stand-in raises when the module uses anything that is not here. Members of a base class are listed with it.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Api:
    """What of one class may be used."""

    header: str
    base: str = ""
    properties: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    signals: tuple[str, ...] = ()


QT = {
    "QObject": Api("QObject", "", ("objectName",), ("blockSignals", "deleteLater", "children")),
    "QTimer": Api("QTimer", "QObject", (), ("setInterval", "setSingleShot", "start", "stop"), ("timeout()",)),
    "QWidget": Api(
        "QWidget",
        "QObject",
        (),
        ("setEnabled", "setVisible", "hide", "setToolTip", "setStyleSheet", "layout"),
    ),
    "QLabel": Api("QLabel", "QWidget", (), ("setText",)),
    "QAbstractButton": Api(
        "QAbstractButton", "QWidget", ("checked",), ("setText", "setChecked"), ("clicked()", "toggled(bool)")
    ),
    "QPushButton": Api("QPushButton", "QAbstractButton"),
    "QToolButton": Api("QToolButton", "QAbstractButton"),
    "QCheckBox": Api("QCheckBox", "QAbstractButton"),
    "QComboBox": Api(
        "QComboBox",
        "QWidget",
        ("currentIndex", "currentText"),
        ("addItem", "clear", "findData", "itemData", "setCurrentIndex"),
        ("currentIndexChanged(int)",),
    ),
    "QLineEdit": Api("QLineEdit", "QWidget", ("text",), ("setText",), ("editingFinished()",)),
    "QPlainTextEdit": Api("QPlainTextEdit", "QWidget", (), ("appendPlainText", "setPlainText", "toPlainText")),
    "QTableWidget": Api(
        "QTableWidget",
        "QWidget",
        (),
        ("setColumnCount", "setHorizontalHeaderLabels", "setItem", "setRowCount"),
        ("cellClicked(int,int)",),
    ),
    "QTableWidgetItem": Api("QTableWidget"),
    "QProgressBar": Api("QProgressBar", "QWidget", (), ("setValue",)),
    "QSlider": Api("QAbstractSlider", "QWidget", ("value",), ("setValue",), ("valueChanged(int)",)),
    "QVBoxLayout": Api("QBoxLayout", "QObject", (), ("addWidget", "setContentsMargins")),
    "QHBoxLayout": Api("QBoxLayout", "QObject", (), ("addWidget", "setContentsMargins")),
    "QFormLayout": Api("QFormLayout", "QObject", (), ("addRow", "removeRow", "rowCount", "setContentsMargins")),
    "QShortcut": Api("QShortcut", "QObject", (), ("setEnabled",), ("activated()",)),
    "QKeySequence": Api("QKeySequence"),
    # Made by slicer.util.createProgressDialog.
    "QProgressDialog": Api("QProgressDialog", "QWidget", ("wasCanceled",), ("close", "setLabelText", "setValue")),
    # What qApp.clipboard() returns.
    "QClipboard": Api("QClipboard", "QObject", (), ("setText",)),
    "QFileDialog": Api("QFileDialog", "", (), ("getSaveFileName",)),
}
# In CTK it is a QAbstractButton; the module uses nothing of that.
CTK = {"ctkCollapsibleButton": Api("Libs/Widgets/ctkCollapsibleButton.h", "QWidget", ("text", "collapsed"))}
MRML = {
    "qMRMLWidget": Api("Libs/MRML/Widgets/qMRMLWidget.h", "QWidget", (), ("setMRMLScene",)),
    "qMRMLNodeComboBox": Api(
        "Libs/MRML/Widgets/qMRMLNodeComboBox.h",
        "QWidget",
        (
            "nodeTypes",
            "showChildNodeTypes",
            "noneEnabled",
            "noneDisplay",
            "addEnabled",
            "removeEnabled",
            "renameEnabled",
            "showHidden",
            "baseName",
        ),
        ("addAttribute", "currentNode", "setCurrentNode", "setMRMLScene", "setNodeTypeLabel"),
        ("currentNodeChanged(vtkMRMLNode*)",),
    ),
}
# Functions of slicer.util that open windows or need the application.
UTIL = (
    "arrayFromVTKMatrix",
    "loadUI",
    "childWidgetVariables",
    "confirmOkCancelDisplay",
    "createProgressDialog",
    "errorDisplay",
    "mainWindow",
    "startupEnvironment",
)
# Of qSlicerApplication (Base/QTGUI/qSlicerApplication.h) and its base QCoreApplication; `connect` is PythonQt's own.
APPLICATION = ("applicationLogic", "clipboard", "connect", "processEvents")

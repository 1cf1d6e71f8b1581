"""Stand-ins for the CTK and qMRML widgets that scripted modules use most."""

from __future__ import annotations

from typing import ClassVar

from PySide6 import QtWidgets
from PySide6.QtCore import Property, Qt, Signal

from .properties import Strict, qt_property


class qMRMLWidget(Strict, QtWidgets.QWidget):
    """A widget with a scene, which it passes on by `mrmlSceneChanged(vtkMRMLScene*)`."""

    QT_CLASS = "qMRMLWidget"
    SIGNALS: ClassVar = {"mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged"}
    mrmlSceneChanged = Signal(object)

    def mrmlScene(self):
        return getattr(self, "_scene", None)

    def setMRMLScene(self, scene) -> None:
        if scene is not self.mrmlScene():
            self._scene = scene
            self.mrmlSceneChanged.emit(scene)


class qSlicerScriptedLoadableModuleWidget(qMRMLWidget):
    """The parent of a scripted module's widget; `self()` is the Python object."""

    QT_CLASS = "qSlicerScriptedLoadableModuleWidget"

    isEntered = qt_property(bool, "isEntered", False)

    def self(self):
        return self._python

    def enter(self) -> None:
        self.isEntered = True
        self._python.enter()

    def exit(self) -> None:
        self.isEntered = False
        self._python.exit()

    def _changed(self, name: str, value: object) -> None:
        pass


class ctkCollapsibleButton(Strict, QtWidgets.QAbstractButton):
    """A group box that a click on its header folds up."""

    QT_CLASS = "ctkCollapsibleButton"
    contentsCollapsed = Signal(bool)
    flat = qt_property(bool, "flat", False)

    def __init__(self, *arguments) -> None:
        text = next((a for a in arguments if isinstance(a, str)), "")
        super().__init__(*[a for a in arguments if not isinstance(a, str)])
        self._hidden_before: list[QtWidgets.QWidget] = []
        self.setText(text)
        self.setCheckable(True)
        self.setChecked(True)
        self.setContentsMargins(6, self.fontMetrics().height() + 8, 6, 6)
        self.connect("toggled(bool)", self._show_contents)

    def _changed(self, name: str, value: object) -> None:
        self.update()

    def _contents(self) -> list[QtWidgets.QWidget]:
        return [child for child in self.children() if isinstance(child, QtWidgets.QWidget)]

    def _show_contents(self, show: bool) -> None:
        if not show:  # what was hidden before stays hidden when the contents come back
            self._hidden_before = [child for child in self._contents() if child.isHidden()]
        for child in self._contents():
            child.setVisible(show and child not in self._hidden_before)
        self.contentsCollapsed.emit(not show)

    def _get_collapsed(self) -> bool:
        return not self.isChecked()

    def _set_collapsed(self, collapsed: bool) -> None:
        self.setChecked(not collapsed)

    collapsed = Property(bool, _get_collapsed, _set_collapsed)

    def setCollapsed(self, collapsed: bool) -> None:
        self.collapsed = collapsed

    def hitButton(self, position) -> bool:
        return position.y() <= self.contentsMargins().top()

    def paintEvent(self, event) -> None:
        painter = QtWidgets.QStylePainter(self)
        option = QtWidgets.QStyleOptionGroupBox()
        option.initFrom(self)
        option.text = f"{'▾' if self.isChecked() else '▸'} {self.text}"
        option.textAlignment = Qt.AlignLeft
        option.subControls = QtWidgets.QStyle.SC_GroupBoxFrame | QtWidgets.QStyle.SC_GroupBoxLabel
        painter.drawComplexControl(QtWidgets.QStyle.CC_GroupBox, option)


def _forward(kind: type, name: str) -> Property:
    """A property of a ctkSliderWidget that is its spin box's."""
    return Property(
        kind, lambda self: self._box.property(name), lambda self, value: self._box.setProperty(name, kind(value))
    )


class ctkSliderWidget(Strict, QtWidgets.QWidget):
    """A slider beside a spin box; here the spin box alone (`value` and its signals are what modules use)."""

    QT_CLASS = "ctkSliderWidget"
    valueChanged = Signal(float)
    valueIsChanging = Signal(float)
    tracking = qt_property(bool, "tracking", True)
    value = _forward(float, "value")
    minimum = _forward(float, "minimum")
    maximum = _forward(float, "maximum")
    singleStep = _forward(float, "singleStep")
    decimals = _forward(int, "decimals")

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._box = QtWidgets.QDoubleSpinBox(self)
        self._box.setRange(0, 100)
        QtWidgets.QHBoxLayout(self).addWidget(self._box)
        self._box.connect("valueChanged(double)", self.valueChanged.emit)

    def _changed(self, name: str, value: object) -> None:
        pass

    def setValue(self, value: float) -> None:
        self._box.setValue(value)


class ctkComboBox(QtWidgets.QComboBox):
    """A combo box with a text for "nothing selected"."""

    QT_CLASS = "ctkComboBox"

    def _get_default(self) -> str:
        return self.placeholderText

    def _set_default(self, text: str) -> None:
        self.setPlaceholderText(text)

    defaultText = Property(str, _get_default, _set_default)


class ctkMessageBox(QtWidgets.QMessageBox):
    """A message box with "don't show again" (never ticked here)."""

    QT_CLASS = "ctkMessageBox"
    dontShowAgainSettingsKey = qt_property(str, "dontShowAgainSettingsKey", "")

    def _changed(self, name: str, value: object) -> None:
        pass

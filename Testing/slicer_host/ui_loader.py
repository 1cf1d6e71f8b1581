"""`qt.QUiLoader` that knows the stand-in widgets and refuses what it does not know."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from weakref import WeakKeyDictionary

from PySide6 import QtCore, QtUiTools, QtWidgets
from PySide6.QtCore import QObject

from .node_combo_box import qMRMLNodeComboBox
from .pythonqt import find_signal
from .widgets import ctkCollapsibleButton, ctkComboBox, ctkMessageBox, ctkSliderWidget, qMRMLWidget

STAND_INS = {
    cls.QT_CLASS: cls
    for cls in (qMRMLWidget, qMRMLNodeComboBox, ctkCollapsibleButton, ctkComboBox, ctkMessageBox, ctkSliderWidget)
}
FOREIGN = ("ctk", "qMRML", "qSlicer")
_placeholders: dict[str, type] = {}
# The objects of each loaded form: the Python halves of the stand-ins must live as long as the form.
_kept: WeakKeyDictionary = WeakKeyDictionary()


def placeholder(name: str) -> type:
    """A class without stand-in: usable in `isinstance` and annotations, raises when it is created."""

    def __init__(self, *arguments, **keywords):
        raise NotImplementedError(f"no stand-in for {name}")

    return _placeholders.setdefault(name, type(name, (QtWidgets.QWidget,), {"QT_CLASS": name, "__init__": __init__}))


class UiLoader(QtUiTools.QUiLoader):
    """Loads .ui files.

    Raises
    ------
    NotImplementedError
        A CTK, qMRML or qSlicer class without stand-in.
    ValueError
        A class that is not declared under customwidgets, a property that its class does not have (and that is not
        marked as dynamic by `stdset="0"`), or a connection between objects, signals or slots that do not exist.
    """

    def createWidget(self, name: str, parent=None, object_name: str = ""):
        if name in STAND_INS:
            widget = STAND_INS[name](parent)
            widget.setObjectName(object_name)
            return widget
        if name.startswith(FOREIGN):
            raise NotImplementedError(f"no stand-in for {name} ({object_name})")
        return super().createWidget(name, parent, object_name)

    def load(self, device: QtCore.QIODevice, parent=None):
        root = ElementTree.fromstring(device.readAll().data())
        used = {widget.get("class") for widget in root.iter("widget")}
        unknown = [name for name in used if name.startswith(FOREIGN) and name not in STAND_INS]
        if unknown:  # an exception in createWidget would be lost in C++
            raise NotImplementedError(f"no stand-in for {unknown}")
        undeclared = used & set(STAND_INS) - {c.findtext("class") for c in root.iter("customwidget")}
        if undeclared:
            raise ValueError(f".ui file uses {sorted(undeclared)} without a <customwidget> entry")
        connections = [c for section in root.findall("connections") for c in section]
        for section in root.findall("connections"):  # QUiLoader knows no slots of Python classes
            root.remove(section)
        buffer = QtCore.QBuffer()
        buffer.setData(ElementTree.tostring(root))
        buffer.open(QtCore.QIODevice.ReadOnly)
        widget = super().load(buffer, parent)
        if widget is None:
            raise ValueError(f"Qt cannot load the .ui file: {self.errorString()}")
        objects = {child.objectName: child for child in [widget, *widget.findChildren(QObject)]}
        self._check_properties(root, objects)
        for connection in connections:
            self._connect(connection, objects)
        _kept[widget] = list(objects.values())
        return widget

    @staticmethod
    def _check_properties(root: ElementTree.Element, objects: dict[str, QObject]) -> None:
        for element in root.iter("widget"):
            child = objects[element.get("name")]
            for entry in element.findall("property"):
                name = entry.get("name")
                if entry.get("stdset") != "0" and child.metaObject().indexOfProperty(name) < 0:
                    raise ValueError(f"{element.get('class')} {element.get('name')} has no property {name!r}")

    @staticmethod
    def _connect(connection: ElementTree.Element, objects: dict[str, QObject]) -> None:
        sender, receiver = objects.get(connection.findtext("sender")), objects.get(connection.findtext("receiver"))
        slot = connection.findtext("slot").split("(")[0]
        if sender is None or receiver is None or not hasattr(receiver, slot):
            raise ValueError(f".ui connection of unknown objects or slots: {[part.text for part in connection]}")
        signal, _ = find_signal(sender, connection.findtext("signal"))
        signal.connect(getattr(receiver, slot))

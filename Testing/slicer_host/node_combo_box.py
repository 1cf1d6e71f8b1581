"""Stand-in for qMRMLNodeComboBox: the nodes of the scene that pass its filter, "None", and actions, in a QComboBox.

The model's rows are changed one by one, so that what happens to the current row when its node is removed, and when a
first node comes in, is Qt's own doing, as in the real widget.
"""

from __future__ import annotations

from typing import ClassVar

import vtk
from PySide6 import QtGui, QtWidgets
from PySide6.QtCore import Property, Qt, Signal

from .properties import Strict, qt_property, weak_callback

_ID = Qt.UserRole
_ACTION = Qt.UserRole + 1


class qMRMLNodeComboBox(Strict, QtWidgets.QWidget):
    """A selector of MRML nodes; see Slicer's documentation of the class."""

    QT_CLASS = "qMRMLNodeComboBox"
    SIGNALS: ClassVar = {
        "currentNodeChanged(vtkMRMLNode*)": "currentNodeChanged",
        "currentNodeChanged(bool)": "_currentValid",
        "nodeActivated(vtkMRMLNode*)": "nodeActivated",
        "nodeAdded(vtkMRMLNode*)": "nodeAdded",
        "nodeAddedByUser(vtkMRMLNode*)": "nodeAddedByUser",
        "nodeAboutToBeRemoved(vtkMRMLNode*)": "nodeAboutToBeRemoved",
    }
    currentNodeChanged = Signal(object)
    _currentValid = Signal(bool)
    currentNodeIDChanged = Signal(str)
    nodeActivated = Signal(object)
    nodeAdded = Signal(object)
    nodeAddedByUser = Signal(object)
    nodeAboutToBeRemoved = Signal(object)

    nodeTypes = qt_property("QStringList", "nodeTypes", [])
    hideChildNodeTypes = qt_property("QStringList", "hideChildNodeTypes", [])
    showHidden = qt_property(bool, "showHidden", False)
    showChildNodeTypes = qt_property(bool, "showChildNodeTypes", True)
    noneEnabled = qt_property(bool, "noneEnabled", False)
    noneDisplay = qt_property(str, "noneDisplay", "None")
    addEnabled = qt_property(bool, "addEnabled", True)
    removeEnabled = qt_property(bool, "removeEnabled", True)
    editEnabled = qt_property(bool, "editEnabled", False)
    renameEnabled = qt_property(bool, "renameEnabled", False)
    baseName = qt_property(str, "baseName", "")
    selectNodeUponCreation = qt_property(bool, "selectNodeUponCreation", True)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene = None
        self._requested = ""  # what was selected before there was a scene
        self._attributes: list[tuple] = []
        self._scene_tags: list[int] = []
        self._node_tags: dict[str, tuple] = {}
        self._last = ""  # id of the node that was last told of
        self._model = QtGui.QStandardItemModel(self)
        self._box = QtWidgets.QComboBox(self)
        self._box.setModel(self._model)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._box)
        self._box.connect("currentIndexChanged(int)", self._tell)
        self._box.connect("activated(int)", self._activate)
        self.connect("destroyed()", self._unobserve)
        self.setEnabled(False)

    # ---- the scene

    def mrmlScene(self):
        return self._scene

    def setMRMLScene(self, scene) -> None:
        if scene is self._scene:
            return
        self._unobserve()
        keep = self._requested or self.currentNodeID
        self._scene, self._requested = scene, ""
        self._box.blockSignals(True)
        self._model.clear()
        self._sync()
        self._box.setCurrentIndex(0 if scene and (self.noneEnabled or self.nodeCount()) else -1)
        self._box.blockSignals(False)
        if scene:
            for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent):
                self._scene_tags.append(scene.AddObserver(event, weak_callback(self._on_node, vtk.VTK_OBJECT)))
            for event in (scene.EndCloseEvent, scene.EndImportEvent):
                self._scene_tags.append(scene.AddObserver(event, weak_callback(self._sync)))
        if keep:
            self.setCurrentNodeID(keep)
        self.setEnabled(scene is not None)
        self._tell()

    def _on_node(self, node) -> None:
        if node.GetID() in self._node_tags or self._shows(node):
            self._sync()

    def _unobserve(self) -> None:
        for tag in self._scene_tags:
            self._scene.RemoveObserver(tag)
        self._scene_tags = []
        for node, tag in self._node_tags.values():
            node.RemoveObserver(tag)
        self._node_tags = {}

    def addAttribute(self, nodeType: str, attributeName: str, attributeValue=None) -> None:
        """Show only nodes with the attribute (of the value, if one is given); new nodes get it."""
        self._attributes.append((nodeType, attributeName, attributeValue))
        self._sync()

    def removeAttribute(self, nodeType: str, attributeName: str) -> None:
        self._attributes = [a for a in self._attributes if a[:2] != (nodeType, attributeName)]
        self._sync()

    def _shows(self, node) -> bool:
        if node.GetHideFromEditors() and not self.showHidden:
            return False
        types = [t for t in self.nodeTypes if (node.IsA(t) if self.showChildNodeTypes else node.GetClassName() == t)]
        if not types or any(node.IsA(t) for t in self.hideChildNodeTypes):
            return False
        for kind, name, value in self._attributes:
            if kind in types and (node.GetAttribute(name) is None or value not in (None, node.GetAttribute(name))):
                return False
        return True

    # ---- rows

    def _changed(self, name: str, value: object) -> None:
        if name not in ("baseName", "selectNodeUponCreation"):
            self._sync()

    def _actions(self) -> list[tuple[str, str]]:
        label = "node" if not self.nodeTypes else self._scene.GetTagByClassName(self.nodeTypes[0]) or "node"
        offered = [("Rename current {}", self.renameEnabled), ("Edit current {}", self.editEnabled)]
        offered += [("Create new {}", self.addEnabled), ("Delete current {}", self.removeEnabled)]
        return [(text.format(label), text.split()[0]) for text, enabled in offered if enabled]

    def _wanted(self) -> list[tuple[str, str, str]]:
        """The rows (text, node id, action) that the box should have."""
        if not self._scene:
            return []
        nodes = [self._scene.GetNthNode(i) for i in range(self._scene.GetNumberOfNodes())]
        rows = [(self.noneDisplay, "", "")] if self.noneEnabled else []
        rows += [(node.GetName(), node.GetID(), "") for node in nodes if self._shows(node)]
        return rows + [(text, "", action) for text, action in self._actions()]

    def _row(self, index: int) -> tuple[str, str, str]:
        item = self._model.item(index)
        return item.text(), item.data(_ID), item.data(_ACTION)

    def _sync(self) -> None:
        """Bring the rows in line with the scene, one by one."""
        wanted = self._wanted()
        keys = [row[1:] for row in wanted]
        for index in reversed(range(self._model.rowCount())):
            if self._row(index)[1:] not in keys:
                self._forget(self._row(index)[1])
                self._model.removeRow(index)
        for index, (text, node_id, action) in enumerate(wanted):
            if index < self._model.rowCount() and self._row(index)[1:] == (node_id, action):
                self._model.item(index).setText(text)
                continue
            item = QtGui.QStandardItem(text)
            item.setData(node_id, _ID)
            item.setData(action, _ACTION)
            self._model.insertRow(index, item)
            self._observe(node_id)
        if not self.currentNodeID:  # not on an action
            self._box.setCurrentIndex(0 if self.noneEnabled else -1)
        self._tell()

    def _observe(self, node_id: str) -> None:
        node = self._scene.GetNodeByID(node_id) if node_id else None
        if node and node_id not in self._node_tags:
            self._node_tags[node_id] = (node, node.AddObserver("ModifiedEvent", weak_callback(self._sync)))
            self.nodeAdded.emit(node)

    def _forget(self, node_id: str) -> None:
        if node_id in self._node_tags:
            node, tag = self._node_tags.pop(node_id)
            self.nodeAboutToBeRemoved.emit(node)
            node.RemoveObserver(tag)

    # ---- the current node

    def _get_current_id(self) -> str:
        index = self._box.currentIndex
        node_id = self._row(index)[1] if 0 <= index < self._model.rowCount() else ""
        return node_id if node_id and self._scene.GetNodeByID(node_id) else ""

    def setCurrentNodeID(self, node_id: str | None) -> None:
        node_id = node_id or ""
        if not self._scene:
            self._requested = node_id
            return
        found = [i for i in range(self._model.rowCount()) if node_id and self._row(i)[1] == node_id]
        self._box.setCurrentIndex(found[0] if found else 0 if self.noneEnabled else -1)

    currentNodeID = Property(str, _get_current_id, setCurrentNodeID)

    def currentNode(self):
        return self._scene.GetNodeByID(self.currentNodeID) if self.currentNodeID else None

    def setCurrentNode(self, node) -> None:
        self.setCurrentNodeID(node.GetID() if node else "")

    def setCurrentNodeIndex(self, index: int) -> None:
        self._box.setCurrentIndex(-1 if index >= self.nodeCount() else index + self.noneEnabled)

    def nodeCount(self) -> int:
        return sum(bool(self._row(i)[1]) for i in range(self._model.rowCount()))

    def nodeFromIndex(self, index: int):
        ids = [self._row(i)[1] for i in range(self._model.rowCount()) if self._row(i)[1]]
        return self._scene.GetNodeByID(ids[index]) if 0 <= index < len(ids) else None

    def _tell(self) -> None:
        node_id = self.currentNodeID
        if not node_id and self._box.currentIndex >= 0 and self._row(self._box.currentIndex)[2] and self.nodeCount():
            self.setCurrentNode(self.nodeFromIndex(self.nodeCount() - 1))  # landed on an action: the last node instead
        elif node_id != self._last:
            self._last = node_id
            node = self.currentNode()
            self.currentNodeChanged.emit(node)
            self._currentValid.emit(node is not None)
            self.currentNodeIDChanged.emit(node_id)

    # ---- actions

    def _activate(self, index: int) -> None:
        action = self._row(index)[2]
        if not action:
            self.nodeActivated.emit(self.currentNode())
        elif action == "Create":
            self.addNode()
        else:
            raise NotImplementedError(f"no stand-in for the action {action!r} of a node selector")

    def addNode(self, nodeType: str | None = None):
        """Create a node as "Create new ..." does; None if its type is not among `nodeTypes`."""
        nodeType = nodeType or (self.nodeTypes[0] if self.nodeTypes else "")
        if nodeType not in self.nodeTypes:
            return None
        node = self._scene.CreateNodeByClass(nodeType)
        node.UnRegister(None)  # the Python variable owns it now
        base = self.baseName or self._scene.GetTagByClassName(nodeType)
        node.SetName(self._scene.GenerateUniqueName(base))
        for _, name, value in self._attributes:
            node.SetAttribute(name, "" if value is None else str(value))
        node = self._scene.AddNode(node)
        if self.selectNodeUponCreation:
            self.setCurrentNode(node)
        self.nodeAddedByUser.emit(node)
        return node

    def removeCurrentNode(self) -> None:
        self._scene.RemoveNode(self.currentNode())

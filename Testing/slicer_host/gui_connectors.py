"""Which widgets a parameter can be bound to, and how: the pairs that Slicer's parameterNodeWrapper knows, no others."""

from __future__ import annotations

import enum
import typing
from collections.abc import Callable
from dataclasses import dataclass

import slicer
from PySide6 import QtWidgets

from .node_combo_box import qMRMLNodeComboBox
from .serializers import Choice, Maximum, Minimum, WithinRange, split
from .widgets import ctkSliderWidget


@dataclass
class Decimals:
    """Annotation: decimals of a spin box or slider."""

    value: int


@dataclass
class SingleStep:
    """Annotation: step of a spin box or slider."""

    value: float


class Connector:
    """A widget bound to a value: `read`, `write`, and `on_changed(callback or None)`."""

    def __init__(self, widget, signal, read: Callable[[], object], write: Callable[[object], None]) -> None:
        self.widget, self._signal, self.read, self.write = widget, signal, read, write
        self._callback = None

    def on_changed(self, callback: Callable[[], None] | None) -> None:
        if self._callback:
            self._signal.disconnect(self._changed)
        self._callback = callback
        if callback:
            self._signal.connect(self._changed)

    def _changed(self) -> None:
        if self._callback:
            self._callback()


def _property(widget, signal, name: str) -> Connector:
    return Connector(widget, signal, lambda: getattr(widget, name), lambda value: setattr(widget, name, value))


def _first(annotations: list, kind: type):
    return next((a for a in annotations if isinstance(a, kind)), None)


def _set_range(widget, annotations: list, must_be_bounded: bool, unbounded: tuple) -> None:
    decimals, step = _first(annotations, Decimals), _first(annotations, SingleStep)
    if decimals:
        widget.decimals = decimals.value
    if step:
        widget.singleStep = step.value
    both = _first(annotations, WithinRange)
    lower, upper = both or _first(annotations, Minimum), both or _first(annotations, Maximum)
    if must_be_bounded and not (lower and upper):
        raise RuntimeError("a slider needs bounds: annotate WithinRange, or Minimum and Maximum")
    widget.minimum = lower.minimum if lower else unbounded[0]
    widget.maximum = upper.maximum if upper else unbounded[1]


def _combo_box(widget, items: list, labels: list[str]) -> Connector:
    """Items of a combo box, replaced by those of the type."""
    widget.clear()
    widget.addItems(labels)

    def write(value) -> None:
        if value not in items:
            raise ValueError(f"Unable to find value {value} in {items}")
        widget.currentIndex = items.index(value)

    return Connector(widget, widget.currentIndexChanged, lambda: items[widget.currentIndex], write)


def node_types(kind) -> list[str] | None:
    """Class names of a node type or of a union of node types (and None); None if it is neither."""
    members = typing.get_args(kind) if typing.get_origin(kind) is typing.Union else (kind,)
    members = [split(member)[0] for member in members]
    nodes = [m for m in members if isinstance(m, type) and issubclass(m, slicer.vtkMRMLNode)]
    if not nodes or any(m not in nodes and m is not type(None) for m in members):
        return None
    return [node().GetClassName() for node in nodes]  # fails for abstract classes, as in Slicer


def create(widget, annotated) -> Connector:
    """The connector of a widget and a (possibly annotated) type.

    Raises
    ------
    RuntimeError
        Slicer has none for this pair.
    """
    kind, annotations = split(annotated)
    cls = type(widget)  # exactly: Slicer does not look at subclasses either
    if kind is bool and cls is QtWidgets.QCheckBox:
        return _property(widget, widget.stateChanged, "checked")
    if kind is bool and cls is QtWidgets.QPushButton:
        widget.checkable = True
        return _property(widget, widget.toggled, "checked")
    if kind is int and cls in (QtWidgets.QSlider, QtWidgets.QSpinBox):
        _set_range(widget, annotations, cls is QtWidgets.QSlider, (-(2**31), 2**31 - 1))
        return _property(widget, widget.valueChanged, "value")
    if kind is float and cls in (QtWidgets.QDoubleSpinBox, ctkSliderWidget):
        _set_range(widget, annotations, cls is ctkSliderWidget, (float("-inf"), float("inf")))
        return _property(widget, widget.valueChanged, "value")
    if cls is QtWidgets.QComboBox and kind in (int, float, str, bool):
        choice = _first(annotations, Choice)
        if not choice:
            raise RuntimeError("a combo box needs the annotation Choice")
        return _combo_box(widget, list(choice.choices), [str(c) for c in choice.choices])
    if cls is QtWidgets.QComboBox and isinstance(kind, type) and issubclass(kind, enum.Enum):
        label = getattr(kind, "label", lambda member: member.name)
        return _combo_box(widget, list(kind), [label(member) for member in kind])
    if kind is str and cls is QtWidgets.QLineEdit:
        return _property(widget, widget.textChanged, "text")
    if kind is str and cls is QtWidgets.QTextEdit:
        return Connector(widget, widget.textChanged, widget.toPlainText, widget.setPlainText)
    types = node_types(kind) if cls is qMRMLNodeComboBox else None
    if types:
        widget.nodeTypes = types
        return Connector(widget, widget.currentNodeChanged, widget.currentNode, widget.setCurrentNode)
    raise RuntimeError(f"Unable to create GUI connector from datatype '{annotated}' to widget type '{cls}'")

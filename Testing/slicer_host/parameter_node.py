"""Stand-in for `slicer.parameterNodeWrapper`: typed access to a parameter node, and its binding to widgets."""

from __future__ import annotations

import sys
import typing
from types import ModuleType, SimpleNamespace

import slicer
import vtk
from PySide6 import QtWidgets

from . import gui_connectors, serializers
from .properties import weak_callback
from .serializers import Default, Validator

PROPERTY = "SlicerParameterName"
# Wrappers that are bound to widgets, and the tags of their observers. In Slicer the leak of `connectGui` keeps them
# alive. They must live: Python's garbage collector takes a closure that only an observer holds, if the closure refers
# to the observed object, and VTK then calls what is no more (a crash, also in Slicer).
_bound: list[tuple] = []


class _Value:
    """The value of one parameter, kept until the node changes, as Slicer does: it may be read very often."""

    def __init__(self, parameter: SimpleNamespace, node) -> None:
        self.parameter, self._node, self._writing = parameter, node, False
        if not parameter.serializer.is_in(node, parameter.name):
            self._store(parameter.default.value)
        self.value = self._read()
        self._tag = node.AddObserver(vtk.vtkCommand.ModifiedEvent, weak_callback(self._on_modified))

    def __del__(self) -> None:
        if hasattr(self, "_tag"):
            self._node.RemoveObserver(self._tag)

    def _read(self):
        if not self.parameter.serializer.is_in(self._node, self.parameter.name):
            self._store(self.parameter.default.value)
        return self.parameter.serializer.read(self._node, self.parameter.name)

    def _store(self, value) -> None:
        for validator in self.parameter.validators:
            validator.validate(value)
        self.parameter.serializer.write(self._node, self.parameter.name, value)

    def _on_modified(self) -> None:
        if not self._writing:
            self.value = self._read()

    def write(self, value) -> None:
        self._writing = True
        try:
            with slicer.util.NodeModify(self._node):
                self._store(value)
                self.value = self._read()  # before any observer asks
        finally:
            self._writing = False


def _init(self, parameterNode, prefix: str | None = None) -> None:
    self.parameterNode = parameterNode
    self._guis: dict[int, dict] = {}
    self._next_tag = 0
    self._updating_gui = False
    self._values = {}
    for name, parameter in self.allParameters.items():
        named = SimpleNamespace(**{**vars(parameter), "name": f"{prefix or ''}{name}"})
        self._values[name] = _Value(named, parameterNode)


def _check(self, name: str) -> None:
    if name not in self.allParameters:
        raise ValueError(f"Cannot find a param with the given name: {name}; found {list(self.allParameters)}")


class _Methods:
    """What the decorator adds to the class."""

    def default(self, name: str) -> Default:
        _check(self, name)
        return self.allParameters[name].default

    def isCached(self, name: str) -> bool:
        _check(self, name)
        return True

    def getValue(self, name: str):
        _check(self, name)
        return self._values[name].value

    def setValue(self, name: str, value) -> None:
        _check(self, name)
        self._values[name].write(value)

    def StartModify(self):
        return self.parameterNode.StartModify()

    def EndModify(self, wasModified):
        return self.parameterNode.EndModify(wasModified)

    def AddObserver(self, event, callback, priority: float = 0.0) -> int:
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag: int) -> None:
        self.parameterNode.RemoveObserver(tag)

    def Modified(self) -> None:
        self.parameterNode.Modified()

    def connectGui(self, gui) -> None:
        """Bind the widgets that carry the property SlicerParameterName.

        Returns None, as Slicer does up to 5.12 (issue 7547): what this connects, `disconnectGui` cannot find.
        """
        if getattr(gui, "isWidgetType", lambda: False)():
            widgets = gui.findChildren(QtWidgets.QWidget)
        else:
            widgets = gui.__dict__.values()
        self.connectParametersToGui({w.property(PROPERTY): w for w in widgets if w.property(PROPERTY)})

    def connectParametersToGui(self, mapping: dict) -> int:
        """Bind parameters to widgets; returns the tag for `disconnectGui`."""
        for name in mapping:
            _check(self, name)
        kinds = {name: parameter.annotated for name, parameter in self.allParameters.items()}
        connectors = {name: gui_connectors.create(widget, kinds[name]) for name, widget in mapping.items()}
        tag, self._next_tag = self._next_tag, self._next_tag + 1
        self._guis[tag] = connectors
        for name, connector in connectors.items():
            connector.write(self.getValue(name))
            connector.on_changed(_from_gui(self, name, connector))
        observer = self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: _to_gui(self))
        _bound.append((self, observer))  # disconnectGui does not remove it: as in Slicer
        return tag

    def disconnectGui(self, tag: int | None) -> None:
        for connector in self._guis.pop(tag, {}).values():
            connector.on_changed(None)


def _from_gui(wrapper, name: str, connector):
    def callback() -> None:
        with slicer.util.NodeModify(wrapper):
            if not wrapper._updating_gui:
                wrapper.setValue(name, connector.read())

    return callback


def _to_gui(wrapper) -> None:
    if wrapper._updating_gui:
        return
    wrapper._updating_gui = True
    try:
        with slicer.util.NodeModify(wrapper):
            for connectors in wrapper._guis.values():
                for name, connector in connectors.items():
                    connector.write(wrapper.getValue(name))
    finally:
        wrapper._updating_gui = False


def _parameter(cls: type, name: str, annotated) -> SimpleNamespace:
    kind, annotations = serializers.split(annotated)
    try:
        serializer = serializers.serializer_for(kind)
    except TypeError as error:
        raise TypeError(f"Unable to create serializer for {cls} member {name}") from error
    defaults = [a for a in annotations if isinstance(a, Default)]
    if hasattr(cls, name):
        default = Default(getattr(cls, name))
    else:
        default = defaults[0] if defaults else Default(serializer.default())
    validators = [a for a in annotations if isinstance(a, Validator)]
    return SimpleNamespace(serializer=serializer, default=default, validators=validators, annotated=annotated)


def parameterNodeWrapper(cls: type | None = None):
    """Class decorator; see Slicer's documentation of parameterNodeWrapper."""
    if cls is None:
        return parameterNodeWrapper
    hints = typing.get_type_hints(cls, include_extras=True)
    parameters = {name: _parameter(cls, name, annotated) for name, annotated in hints.items()}
    for name in parameters:
        setattr(
            cls,
            name,
            property(lambda self, n=name: self.getValue(n), lambda self, value, n=name: self.setValue(n, value)),
        )
    added = {name: member for name, member in vars(_Methods).items() if not name.startswith("__")}
    added |= {"allParameters": parameters, "_is_parameter_node_wrapper": True}
    for name, member in added.items():
        if hasattr(cls, name):
            raise ValueError(f"Cannot use reserved name '{name}' in a parameterNodeWrapper")
        setattr(cls, name, member)
    cls.__init__ = _init
    return cls


def isParameterNodeWrapper(classOrObject) -> bool:
    return getattr(classOrObject, "_is_parameter_node_wrapper", False)


def parameterPack(*_, **__):
    raise NotImplementedError("no stand-in for parameter packs")


def release() -> None:
    """Let go of all wrappers: when their module is unloaded."""
    for wrapper, observer in _bound:
        wrapper.RemoveObserver(observer)
    _bound.clear()


def install() -> None:
    """Register `slicer.parameterNodeWrapper`."""
    module = ModuleType("slicer.parameterNodeWrapper")
    members = [parameterNodeWrapper, isParameterNodeWrapper, parameterPack, Default, Validator]
    members += [gui_connectors.Decimals, gui_connectors.SingleStep]
    members += [serializers.Minimum, serializers.Maximum, serializers.WithinRange, serializers.Choice]
    module.__dict__.update({member.__name__: member for member in members}, SlicerParameterNamePropertyName=PROPERTY)
    module.__all__ = [*(member.__name__ for member in members), "SlicerParameterNamePropertyName"]
    sys.modules[module.__name__] = module
    slicer.parameterNodeWrapper = module

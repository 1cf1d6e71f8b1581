"""Helpers for the stand-in widgets."""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakMethod

import shiboken6
from PySide6.QtCore import Property, QObject


def weak_callback(method: Callable, call_data: int | None = None) -> Callable:
    """A VTK observer that calls a method without keeping its object alive, and not after its end.

    With the type of the event's data (such as vtk.VTK_OBJECT) the method gets the data.
    """
    reference = WeakMethod(method)

    def callback(caller, event, *data) -> None:
        alive = reference()
        if alive and (not isinstance(alive.__self__, QObject) or shiboken6.isValid(alive.__self__)):
            alive(*data)

    if call_data is not None:
        callback.CallDataType = call_data
    return callback


def qt_property(kind: type | str, name: str, default: object) -> Property:
    """A Qt property that keeps its value in the object and calls `_changed(name, value)` when it changes."""
    key = f"_{name}"

    def get(self):
        return getattr(self, key, default)

    def set_(self, value: object) -> None:
        if value != get(self):
            setattr(self, key, value)
            self._changed(name, value)

    return Property(kind, get, set_)


class Strict:
    """Mixin of the stand-ins: refuses attributes that the class does not have, as PythonQt does."""

    def __setattr__(self, name: str, value: object) -> None:
        if not name.startswith("_") and not hasattr(type(self), name):
            raise AttributeError(f"'{name}' does not exist on {type(self).__name__}; creating it is not allowed")
        super().__setattr__(name, value)

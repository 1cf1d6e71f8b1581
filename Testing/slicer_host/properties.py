"""Helpers for the stand-in widgets."""

from __future__ import annotations

from PySide6.QtCore import Property


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

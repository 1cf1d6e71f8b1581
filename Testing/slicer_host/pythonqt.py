"""PythonQt's conventions on top of PySide6: properties as attributes, signals connected by signature.

Slicer wraps Qt by PythonQt, whose Python side differs from PySide6's: `button.text` is the text (not a method),
`button.connect('clicked(bool)', f)` connects, and misspelt attributes and signals are refused. `install` changes the
PySide6 classes of this process accordingly.
"""

from __future__ import annotations

import enum
import inspect
from types import ModuleType

import shiboken6
import shiboken6.Shiboken
from PySide6 import QtCore
from PySide6.QtCore import QObject

# Properties whose name is a virtual method: shiboken would call the attribute as an override.
_VIRTUAL = {"sizeHint", "minimumSizeHint", "duration"}
# (object address, signature) -> [(callable given by the user, callable connected in its place)]
_connections: dict[tuple[int, str], list[tuple]] = {}


class ByteArray:
    """What PythonQt hands out for a QByteArray: bytes only by `.data()`, no buffer (`bytes(x)` is a TypeError)."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def data(self) -> bytes:
        return self._data

    def size(self) -> int:
        return len(self._data)

    length = count = size

    def isEmpty(self) -> bool:
        return not self._data

    def __str__(self) -> str:
        return self._data.decode()


def _plain(value):
    """Qt cannot convert the integers that VTK's enums are."""
    return int(value) if isinstance(value, int) and not isinstance(value, (bool, enum.Enum)) else value


class _QtProperty:
    """A Qt property as an attribute of instances; the class keeps what it had (`QTimer.singleShot`)."""

    def __init__(self, name: str, shadowed: object) -> None:
        self.name, self.shadowed = name, shadowed

    def __get__(self, instance: QObject | None, owner: type):
        if instance is None:
            return self.shadowed if self.shadowed is not None else self
        return instance.property(self.name)

    def __set__(self, instance: QObject, value: object) -> None:
        if not instance.setProperty(self.name, _plain(value)):
            raise AttributeError(f"Property {self.name!r} of {instance.className()} does not accept {value!r}")


def _own(cls: type, name: str):
    """An attribute of a class as a class attribute (PySide6 fills the dictionaries of its classes lazily)."""
    found = inspect.getattr_static(cls, name, None)
    return found.shadowed if isinstance(found, _QtProperty) else getattr(cls, name, None)


def _add_properties(cls: type) -> None:
    meta = cls.staticMetaObject
    for index in range(meta.propertyOffset(), meta.propertyCount()):
        name = meta.property(index).name()
        if name not in _VIRTUAL:
            setattr(cls, name, _QtProperty(name, _own(cls, name)))


def _refuse_new_attributes(cls: type) -> None:
    """Let plain Qt objects refuse attributes that they lack; subclasses written in Python may have their own."""

    def checked(self: QObject, name: str, value: object) -> None:
        if type(self) is cls and not hasattr(cls, name):
            raise AttributeError(f"'{name}' does not exist on {cls.__name__}; creating it is not allowed")
        if isinstance(inspect.getattr_static(type(self), name, None), QtCore.Property):  # declared in Python
            self.setProperty(name, _plain(value))
        else:
            shiboken6.Shiboken.Object.__setattr__(self, name, value)

    cls.__setattr__ = checked


def _connect_by_signature(cls: type) -> None:
    """Answer before PySide6, which hard-wires `connect` and `disconnect` in the attribute look-up of some classes.

    PySide6 itself calls `sender.connect(sender, ...)` here and there (QMenu.addAction): that goes on to its own.
    """
    look_up = cls.__getattribute__
    ours = {"connect": connect, "disconnect": disconnect}

    def get(self: QObject, name: str):
        found = look_up(self, name)
        if name not in ours:
            return found
        return lambda *a: found(*a) if a and isinstance(a[0], QObject) else ours[name](self, *a)

    cls.__getattribute__ = get


def find_signal(sender: QObject, signature: str) -> tuple:
    """The bound signal of a C++ signature, and the number of its arguments.

    Raises
    ------
    ValueError
        The object has no such signal (Slicer only prints this; a test wants it loud).
    """
    signature = signature.replace(" ", "")
    name, _, rest = signature.partition("(")
    arguments = [a for a in rest.rstrip(")").split(",") if a]
    stand_in = getattr(type(sender), "SIGNALS", {})
    if signature in stand_in:
        return getattr(sender, stand_in[signature]), len(arguments)
    normalized = QtCore.QMetaObject.normalizedSignature(signature).toStdString()
    if sender.metaObject().indexOfSignal(normalized) < 0:
        raise ValueError(f"{sender.className()} has no signal {signature}")
    signal = getattr(sender, name)
    try:
        return signal[tuple(arguments)], len(arguments)
    except (KeyError, IndexError):  # not overloaded: PySide6 names types in its own way
        return signal, len(arguments)


def _accepted(function, offered: int) -> int:
    """How many of the offered arguments PythonQt passes: it cuts them to what a Python function takes."""
    if not inspect.isroutine(function) or inspect.isbuiltin(function):
        return offered
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return offered
    return min(offered, sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters))


def connect(self: QObject, signature: str, function) -> bool:
    """PythonQt's `sender.connect('signal(types)', callable)`."""
    if not isinstance(signature, str) or not callable(function):
        raise TypeError("connect() takes a signal's signature as a string, and a callable")
    signal, offered = find_signal(self, signature)
    count = _accepted(function, offered)

    def slot(*arguments):
        function(*arguments[:count])

    signal.connect(slot)
    address = shiboken6.getCppPointer(self)[0]
    if not any(key[0] == address for key in _connections):  # forget them with the object: addresses are used again
        self.destroyed.connect(lambda *_: _forget(address))
    _connections.setdefault((address, signature.replace(" ", "")), []).append((function, slot))
    return True


def disconnect(self: QObject, signature: str, function=None) -> bool:
    """PythonQt's `sender.disconnect('signal(types)', callable)`; without a callable, of all that were connected."""
    signal, _ = find_signal(self, signature)
    known = _connections.get((shiboken6.getCppPointer(self)[0], signature.replace(" ", "")), [])
    found = [pair for pair in known if function is None or pair[0] == function]
    for pair in found:
        signal.disconnect(pair[1])
        known.remove(pair)
    return bool(found)


def _forget(address: int) -> None:
    for key in [key for key in _connections if key[0] == address]:
        del _connections[key]


def _give_byte_arrays(cls: type, names: list[str]) -> None:
    for name in names:
        original = getattr(cls, name)
        setattr(cls, name, lambda self, *a, _original=original: ByteArray(_original(self, *a).data()))


def install(*modules: ModuleType) -> None:
    """Give the classes of PySide6 modules PythonQt's conventions; once per process."""
    for module in modules:
        for name in dir(module):
            cls = getattr(module, name)
            if isinstance(cls, type) and issubclass(cls, QObject) and hasattr(cls, "staticMetaObject"):
                _add_properties(cls)
                _refuse_new_attributes(cls)
                if "__getattribute__" in cls.__dict__:
                    _connect_by_signature(cls)
    _give_byte_arrays(QtCore.QIODevice, ["read", "readAll", "readLine", "peek"])
    _give_byte_arrays(QtCore.QProcess, ["readAllStandardOutput", "readAllStandardError"])
    QObject.name = _QtProperty("objectName", None)
    QObject.className = lambda self: getattr(type(self), "QT_CLASS", None) or self.metaObject().className()
    QObject.delete = lambda self: shiboken6.delete(self)
    dynamic = QObject.dynamicPropertyNames
    QObject.dynamicPropertyNames = lambda self: [n.toStdString() for n in dynamic(self)]

"""How typed parameters are kept in a vtkMRMLScriptedModuleNode: same names and texts as Slicer's parameterNodeWrapper.

Stands in for numbers, text, paths, enums, nodes and unions of these; Slicer also knows list, tuple, dict, ranges and
parameter packs.
"""

from __future__ import annotations

import enum
import pathlib
import typing
from collections.abc import Callable
from dataclasses import dataclass

import slicer


class Validator:
    """Base of the annotations that check a value; `validate` raises."""

    def validate(self, value) -> None:
        raise NotImplementedError


class Minimum(Validator):
    def __init__(self, minimum) -> None:
        self.minimum = minimum

    def validate(self, value) -> None:
        if value < self.minimum:
            raise ValueError(f"Value must be at least {self.minimum}, is {value}")


class Maximum(Validator):
    def __init__(self, maximum) -> None:
        self.maximum = maximum

    def validate(self, value) -> None:
        if value > self.maximum:
            raise ValueError(f"Value must be at most {self.maximum}, is {value}")


class WithinRange(Validator):
    def __init__(self, minimum, maximum) -> None:
        self.minimum, self.maximum = minimum, maximum

    def validate(self, value) -> None:
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"Value must be within [{self.minimum}, {self.maximum}], is {value}")


class Choice(Validator):
    def __init__(self, choices) -> None:
        self.choices = choices

    def validate(self, value) -> None:
        if value not in self.choices:
            raise ValueError(f"Value is {value!r}, must be one of {self.choices}")


class Default:
    """The value of a parameter that nobody has set."""

    def __init__(self, value=None, *, generator: Callable | None = None) -> None:
        self._value, self._generator = value, generator

    @property
    def value(self):
        return self._generator() if self._generator else self._value


@dataclass(frozen=True)
class TextSerializer:
    """A value kept as one text parameter."""

    kind: type
    accepted: tuple[type, ...]
    default: Callable
    to_text: Callable[[object], str]
    from_text: Callable[[str], object]

    def check(self, value) -> None:
        if not isinstance(value, self.accepted):
            raise TypeError(f"Value must be of type {self.kind.__name__}, is {value!r}")

    def is_in(self, node, name: str) -> bool:
        return bool(node.HasParameter(name))

    def write(self, node, name: str, value) -> None:
        self.check(value)
        node.SetParameter(name, self.to_text(value))

    def read(self, node, name: str):
        return self.from_text(node.GetParameter(name))

    def remove(self, node, name: str) -> None:
        node.UnsetParameter(name)


@dataclass(frozen=True)
class NodeSerializer:
    """A node, kept as a node reference; an empty parameter of the same name tells None from never set."""

    kind: type

    @staticmethod
    def default() -> None:
        return None

    def check(self, value) -> None:
        if value is not None and not isinstance(value, self.kind):
            raise TypeError(f"Value must be a {self.kind.__name__}, is {value!r}")

    def is_in(self, node, name: str) -> bool:
        return bool(node.HasParameter(name))

    def write(self, node, name: str, value) -> None:
        self.check(value)
        node.SetParameter(name, "")
        node.SetNodeReferenceID(name, value.GetID() if value is not None else None)

    def read(self, node, name: str):
        return node.GetNodeReference(name)

    def remove(self, node, name: str) -> None:
        node.UnsetParameter(name)
        node.RemoveNodeReferenceIDs(name)


@dataclass(frozen=True)
class UnionSerializer:
    """One of several types, kept under `name.index` of the type."""

    members: tuple

    def default(self):
        return None if len(self.members) == 2 and _is_none(self.members[1]) else self.members[0].default()

    def check(self, value) -> None:
        self._member_for(value)

    def _member_for(self, value) -> int:
        for index, member in enumerate(self.members):
            if value is None and not isinstance(member, NodeSerializer) and not _is_none(member):
                continue
            try:
                member.check(value)
            except TypeError:
                continue
            return index
        raise TypeError(f"Unable to write value {value!r} of type {type(value)}")

    def is_in(self, node, name: str) -> bool:
        return any(member.is_in(node, f"{name}.{index}") for index, member in enumerate(self.members))

    def write(self, node, name: str, value) -> None:
        index = self._member_for(value)
        with slicer.util.NodeModify(node):
            self.remove(node, name)
            self.members[index].write(node, f"{name}.{index}", value)

    def read(self, node, name: str):
        for index, member in enumerate(self.members):
            if member.is_in(node, f"{name}.{index}"):
                return member.read(node, f"{name}.{index}")
        raise KeyError(f"Unable to find value for name: {name}")

    def remove(self, node, name: str) -> None:
        for index, member in enumerate(self.members):
            member.remove(node, f"{name}.{index}")


def _is_none(serializer) -> bool:
    return getattr(serializer, "kind", None) is type(None)


def split(annotated) -> tuple[object, list]:
    """The type of an `Annotated[type, ...]` (or a plain type), and its annotations."""
    kind, *annotations = typing.get_args(typing.Annotated[annotated, None])
    return kind, annotations[:-1]


def serializer_for(kind):
    """The serializer of a type.

    Raises
    ------
    TypeError
        Slicer has none for this type, or the host has no stand-in for it.
    """
    if isinstance(kind, type) and issubclass(kind, slicer.vtkMRMLNode):
        return NodeSerializer(kind)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return TextSerializer(kind, (kind,), lambda: next(iter(kind)), lambda value: value.name, kind.__getitem__)
    if kind is bool:
        return TextSerializer(bool, (bool,), bool, str, "True".__eq__)
    if kind in (int, float):
        return TextSerializer(kind, (int, float) if kind is float else (int,), lambda: 0, str, kind)
    if kind is str or (isinstance(kind, type) and issubclass(kind, pathlib.PurePath)):
        return TextSerializer(kind, (kind,), kind, str, kind)
    if kind is type(None):
        return TextSerializer(kind, (kind,), lambda: None, lambda value: "True", lambda text: None)
    if typing.get_origin(kind) is typing.Union:
        return UnionSerializer(tuple(serializer_for(split(member)[0]) for member in typing.get_args(kind)))
    raise TypeError(f"no serializer for {kind} (Slicer does not know `A | B` either: use typing.Union)")

"""HTML in small pieces: whatever is no :class:`Markup` is escaped, and every element is closed, as in XML."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

VOID = frozenset({"br", "circle", "col", "hr", "image", "img", "input", "line", "link", "meta", "path", "rect"})
"""Elements that are written without an end tag where they have no children."""

# Control characters are no characters of HTML or XML; the order of writing that some of them change could disguise a
# file name.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffe\uffff]")


class Markup(str):
    """Text that is markup already and is not escaped again."""

    __slots__ = ()


Child = str | int | float | None | Iterable["Child"]
"""What :func:`tag` takes between its tags: text, markup, numbers; None is left out, sequences are joined."""


def escape(text: object) -> Markup:
    """Return text as markup: special characters as entities, control and undecodable characters as U+FFFD."""
    if isinstance(text, Markup):
        return text
    readable = str(text).encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    return Markup(html.escape(_CONTROL.sub("\ufffd", readable)))


def join(children: Iterable[Child]) -> Markup:
    """Return children as one piece of markup."""
    return Markup("".join(_markup(child) for child in children))


def tag(name: str, /, *children: Child, **attributes: str | int | float | bool | None) -> Markup:
    """Return an element.

    Parameters
    ----------
    name : str
    children : str, Markup, number, None, or sequences of them
        Text is escaped.
    attributes : str, number, bool or None
        Underscores become hyphens, trailing ones are dropped (``class_``). None and False leave the attribute out;
        True writes it without a value.
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{"" if value is True else escape(value)}"'
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    inside = join(children)
    if not inside and name in VOID:
        return Markup(f"<{name}{written}/>")
    return Markup(f"<{name}{written}>{inside}</{name}>")


def _markup(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, (str, int, float)):
        return escape(child)
    return join(child)

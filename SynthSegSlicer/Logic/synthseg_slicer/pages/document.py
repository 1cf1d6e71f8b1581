"""The frame of a page: one file that opens without a network and runs no script but its own."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources

from .. import __version__
from .markup import Child, Markup, tag

SUFFIXES = (".html",)
"""Of pages."""
DISCLAIMER = "For research only. Not a medical device."


def document(title: str, *body: Child, scripts: tuple[str, ...] = (), style: str = "") -> str:
    """Return a whole page.

    The Content Security Policy in its head forbids every request, and every script and style but those of the page,
    which it knows by their SHA-256: markup that slipped in through a name could not run.

    Parameters
    ----------
    title : str
    body : text and markup
        Between the tags of ``main``.
    scripts : tuple of str
        File names in this package, one after the other at the end of the page.
    style : str
        Added to ``style.css``.
    """
    sheet = _resource("style.css") + style
    code = "".join(_resource(name) for name in scripts)
    policy = (
        f"default-src 'none'; img-src data:; style-src {_source(sheet)}; "
        f"script-src {_source(code) if code else _NONE}; base-uri 'none'; form-action 'none'"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="referrer", content="no-referrer"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="generator", content=f"synthseg-slicer {__version__}"),
        tag("title", title),
        tag("link", rel="icon", href="data:,"),
        Markup(f"<style>{sheet}</style>"),
    )
    script = Markup(f"<script>{code}</script>") if code else None
    footer = tag("footer", tag("p", f"Written by synthseg-slicer {__version__}. {DISCLAIMER}"))
    page = tag("html", head, tag("body", tag("main", *body), footer, script), lang="en")
    return f"<!DOCTYPE html>\n{page}\n"


def section(title: str, *children: Child) -> Markup:
    """Return a section of a page under a heading that names it."""
    name = title.lower().replace(" ", "-")
    return tag("section", tag("h2", title, id=name), *children, aria_labelledby=name)


_NONE = "'none'"


def _resource(name: str) -> str:
    text = resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
    if "</" in text:
        raise ValueError(f"{name}: '</' would end the element that holds the file. Write it differently.")
    return text


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

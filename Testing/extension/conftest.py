"""What the tests of the extension's packaging share: where the project lies and what its CMakeLists.txt says of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def description(root: Path) -> dict[str, str]:
    """The ``EXTENSION_*`` variables of the project, read as text, line by line, as the extensions index does."""
    return dict(
        re.findall(
            r'^set\(EXTENSION_(\w+) "([^"\n]+)"\)$', (root / "CMakeLists.txt").read_text(encoding="utf-8"), re.MULTILINE
        )
    )

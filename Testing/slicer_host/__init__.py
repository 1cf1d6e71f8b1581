"""A stand-in for the 3D Slicer application, for tests: see README.md.

Importing it costs nothing (it sets two environment variables of PySide6); `start()` imports slicer-core and PySide6 and
makes the application of this process.
"""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
import sys
from importlib.metadata import version

# Both are read when PySide6 is imported, which test files may do before the host starts.
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ["PYSIDE6_OPTION_PYTHON_ENUM"] = "0x7"  # enums are ints, as in PythonQt

SYSTEM_PACKAGES = "libegl1 libgl1 libegl-mesa0 libgl1-mesa-dri libglib2.0-0 libxkbcommon0 libdbus-1-3 libfontconfig1"
"""What Qt and off-screen pictures need of Debian beyond Python packages."""


def missing_packages() -> list[str]:
    """The packages that the host needs and this Python lacks."""
    packages = {"slicer": "slicer-core", "PySide6": "PySide6-Essentials"}
    return [package for name, package in packages.items() if importlib.util.find_spec(name) is None]


def can_render() -> bool:
    """Whether this machine has the libraries for drawing off-screen; without them drawing ends the process."""
    return all(ctypes.util.find_library(name) for name in ("EGL", "GL"))


def start(**keywords):
    """Start the host (see `host.start`).

    Raises
    ------
    RuntimeError
        PySide6 6.12 or later on Python 3.11, which crashes after some thousand calls ("deallocating None").
    """
    pyside = version("PySide6-Essentials")
    if sys.version_info[:2] == (3, 11) and tuple(int(part) for part in pyside.split(".")[:2]) >= (6, 12):
        raise RuntimeError(f"PySide6 {pyside} crashes on Python 3.11: install 'PySide6-Essentials<6.12'")
    from .host import start as start_host

    return start_host(**keywords)

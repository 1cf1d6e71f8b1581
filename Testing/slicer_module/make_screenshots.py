"""Make the pictures of README, tutorial and extensions catalogue: drive the module on a real scan and photograph it.

    python Testing/slicer_module/make_screenshots.py SCAN [-o Screenshots]

SCAN is any head scan that Slicer reads; the pictures in the repository show the MNI152 template, which
``synthseg-slicer demo`` writes to ``synthseg-demo/mni152.nii.gz``.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk

ROOT = Path(__file__).resolve().parents[2]
PANE = (480, 480)
"""Width and height of one of the four views."""
WAIT_S = 600


def start_host():
    """Start the Slicer host, which lies beside the tests and not on Python's path."""
    folder = ROOT / "Testing" / "slicer_host"
    spec = importlib.util.spec_from_file_location(
        "slicer_host", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    sys.modules["slicer_host"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["slicer_host"])
    return sys.modules["slicer_host"].start()


def grab(widget) -> np.ndarray:
    """Return a widget's picture, uint8 [height, width, 3]."""
    from PySide6.QtGui import QImage

    image = widget.grab().toImage().convertToFormat(QImage.Format_RGB888)
    rows = np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), image.bytesPerLine())
    return rows[:, : 3 * image.width()].reshape(image.height(), image.width(), 3).copy()


def save(path: Path, picture: np.ndarray) -> None:
    """Write a picture, uint8 [height, width, 3], as PNG."""
    sitk.WriteImage(
        sitk.GetImageFromArray(np.ascontiguousarray(picture), isVector=True), str(path), useCompression=True
    )
    print(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scan", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "Screenshots")
    options = parser.parse_args()

    host = start_host()
    import slicer
    from PySide6.QtCore import Qt
    from PySide6.QtTest import QTest

    panel = host.load_module(ROOT / "SynthSegSlicer" / "SynthSegSlicer.py").widget
    volume = slicer.util.loadVolume(str(options.scan))
    panel.parent.resize(440, 520)
    panel.parent.show()
    host.wait_until(lambda: "cores" in panel.ui.deviceComboBox.itemText(1), WAIT_S)
    save(options.output / "panel.png", grab(panel.parent))
    panel.ui.taskComboBox.currentIndex = 1
    save(options.output / "panel-stroke.png", grab(panel.parent))
    panel.parent.resize(440, 520)
    panel.ui.taskComboBox.currentIndex = 0
    QTest.mouseClick(panel.ui.applyButton, Qt.LeftButton)
    host.wait_until(lambda: panel.ui.progressBar.value > 50 or panel.run is None, WAIT_S)
    save(options.output / "running.png", grab(panel.parent))
    host.wait_until(lambda: panel.run is None, WAIT_S)
    if host.messages:
        raise SystemExit(host.messages[0].text)

    segmentation = panel.ui.segmentationSelector.currentNode()
    bounds = np.zeros(6)
    segmentation.GetSegmentation().GetBounds(bounds)
    center = (bounds[::2] + bounds[1::2]) / 2 + (12, 0, 0)  # beside the midline, where structures are
    axial, coronal, sagittal = (
        host.slice_view(volume, name=name, orientation=orientation, center=tuple(center), size=PANE)
        for name, orientation in (("Red", "Axial"), ("Green", "Coronal"), ("Yellow", "Sagittal"))
    )
    surfaces = host.view_3d(look_from="left", size=PANE)
    views = np.vstack([np.hstack([axial, surfaces]), np.hstack([coronal, sagittal])])
    views[PANE[1] - 1 : PANE[1] + 1] = views[:, PANE[0] - 1 : PANE[0] + 1] = 90
    save(options.output / "four-up.png", views)
    panel.parent.resize(440, 2 * PANE[1])
    host.app.processEvents()
    save(options.output / "module.png", np.hstack([grab(panel.parent), views]))


if __name__ == "__main__":
    main()

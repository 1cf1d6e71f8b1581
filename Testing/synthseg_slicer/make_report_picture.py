"""Make Screenshots/report.png: the report on a scan, in a browser.

python Testing/synthseg_slicer/make_report_picture.py synthseg-demo/mni152.nii.gz [-o Screenshots/report.png]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "Testing" / "support"))

from browser import chromium  # noqa: E402

from synthseg_slicer import segment  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "Screenshots" / "report.png")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        report = Path(folder) / "report.html"
        segment(options.scan, report=report)
        page = browser.new_page(viewport={"width": 1100, "height": 1010})
        page.goto(report.as_uri())
        page.get_by_role("checkbox", name="Lines where").check()
        page.screenshot(path=options.output)


if __name__ == "__main__":
    main()

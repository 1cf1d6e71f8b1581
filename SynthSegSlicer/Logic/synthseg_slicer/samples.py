"""Public head scans to try the module with: three contrasts from 3D Slicer's own sample data.

The persons in the images gave them to the Slicer project for use without restrictions, as Slicer's Sample Data module
says; file names and checksums are those that it has, so that both modules share downloads.
"""

from __future__ import annotations

from dataclasses import dataclass

SERVER = "https://github.com/Slicer/SlicerTestingData/releases/download"


@dataclass(frozen=True)
class Sample:
    """One scan; the attributes are called as the arguments of Slicer's Sample Data module are.

    Attributes
    ----------
    name : str
        Shown below its button; none of Slicer's own names.
    nodeName : str
        Of the volume after loading.
    fileName : str
        In Slicer's download folder.
    sha256 : str
        Of the file.
    """

    name: str
    nodeName: str
    fileName: str
    sha256: str

    @property
    def uri(self) -> str:
        """Where it is downloaded from; the server addresses files by their SHA-256."""
        return f"{SERVER}/SHA256/{self.sha256}"

    @property
    def checksum(self) -> str:
        """What the download is checked against."""
        return f"SHA256:{self.sha256}"


SAMPLES: tuple[Sample, ...] = (
    Sample("Head T1", "MRHead", "MR-head.nrrd", "cc211f0dfd9a05ca3841ce1141b292898b2dd2d3f08286affadf823a7e58df93"),
    Sample(
        "Head T2", "MRBrainT2", "MR-brain-T2.nrrd", "fa1fe5910a69182f2b03c0150d8151ac6c75df986449fb5a6c5ae67141e0f5e7"
    ),
    Sample("Head CT", "CTBrain", "CT-brain.nrrd", "6a5b6caccb76576a863beb095e3bfb910c50ca78f4c9bf043aa42f976cfa53d1"),
)

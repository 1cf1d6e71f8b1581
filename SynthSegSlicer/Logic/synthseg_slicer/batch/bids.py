"""Names and descriptions of the Brain Imaging Data Structure (BIDS 1.10), for raw scans and what is derived of them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from .. import __version__

VERSION = "1.10.0"
SUFFIXES = ("T1w", "T2w", "PDw", "FLAIR", "CT")
"""What is segmented unless asked otherwise. BIDS has no CT yet; files that end in ``_ct`` count too."""
FOLDERS = ("anat", "ct")
"""Where in a subject's or session's folder scans are looked for."""
SEGMENTATION = "synthseg"
"""Label of the entity ``seg``."""
LINK = "raw"
"""What the derived dataset calls the one that it came from."""
_SPATIAL = ("scale", "res", "den", "label", "desc")
"""Entities that stand after ``seg``."""
_NAME = re.compile(r"((?:[a-zA-Z]+-[a-zA-Z0-9+]+_)+)([a-zA-Z0-9]+)\.nii(?:\.gz)?")


@dataclass(frozen=True)
class Name:
    """A file name taken apart: entities in their order, and suffix (``CT`` for ``ct``)."""

    entities: dict[str, str]
    suffix: str

    @classmethod
    def parse(cls, name: str) -> Name | None:
        """Return the parts of an image's file name, or None if it is no BIDS name."""
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        pairs = [pair.split("-", 1) for pair in match[1].rstrip("_").split("_")]
        if len({entity for entity, _ in pairs}) < len(pairs) or pairs[0][0] != "sub":
            return None
        return cls(dict(pairs), "CT" if match[2] == "ct" else match[2])

    @property
    def folder(self) -> str:
        """The folder of what is derived, relative to the dataset, with slashes."""
        session = f"/ses-{self.entities['ses']}" if "ses" in self.entities else ""
        return f"sub-{self.entities['sub']}{session}/anat"

    def derived(self, suffix: str) -> str:
        """Return the file name of something derived, without extension.

        The kind of scan becomes the entity ``desc``, so that the results of a subject's T1w and FLAIR differ.
        """
        entities = dict(self.entities)
        description = entities.pop("desc", "") + self.suffix
        before = {entity: label for entity, label in entities.items() if entity not in _SPATIAL}
        after = {entity: label for entity, label in entities.items() if entity in _SPATIAL}
        entities = {**before, "seg": SEGMENTATION, **after, "desc": description}
        return "_".join([*(f"{entity}-{label}" for entity, label in entities.items()), suffix])


def dataset_description(root: Path, output: Path, config: dict) -> dict:
    """Return the description of the derived dataset.

    Parameters
    ----------
    root, output : Path
        The dataset that scans came from, and the derived one.
    config : dict
        Of the :class:`.plan.Plan`.
    """
    weights = ", ".join(f"{name} {sha256[:12]}" for name, sha256 in config["weights"].items())
    return {
        "Name": "SynthSeg segmentations",
        "BIDSVersion": VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [
            {
                "Name": "synthseg-slicer",
                "Version": __version__,
                "Description": f"Anatomical segmentation of head scans of any contrast. Weights (SHA-256): {weights}.",
            }
        ],
        "DatasetLinks": {LINK: quote(Path(os.path.relpath(root, output)).as_posix())},
    }


def sidecar(key: str, entities: dict[str, str]) -> dict:
    """Return what BIDS wants to know of a label file that lies in the space of the scan ``key`` with these entities."""
    source = f"bids:{LINK}:{key}"
    return {"Sources": [source], "SpatialReference": source if "space" in entities else "orig"}

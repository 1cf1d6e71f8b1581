"""How far the volumes of one head differ from scan to scan; a JSON file beside the weights.

Made by ``synthseg-train rescan``. It belongs to the very weights, and to the settings, that it was measured with.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from .errors import WeightsError

CONFIDENCE = 1.96
"""Standard deviations that hold 95 % of a normal distribution."""


@dataclass(frozen=True)
class RescanNoise:
    """The noise of volumes.

    Attributes
    ----------
    weights : list of str
        SHA-256 of the network and its experts, sorted.
    ids : list of int or None
        Labels, background aside; None is the sum of all. The order of the lists below.
    deviations : list of float
        Standard error of measurement of each volume, in percent of it: the standard deviation over scans of one head.
    families : list of str
        Families of contrasts (:mod:`synthseg_slicer.contrast`) that it was measured on; none of CT.
    coarsest : float
        Largest voxel edge in mm of the scans that it was measured on.
    facts : dict
        How it was made, and what it rests on.
    """

    weights: list[str]
    ids: list[int | None]
    deviations: list[float]
    families: list[str]
    coarsest: float
    facts: dict

    def thresholds(self) -> dict[int | None, float]:
        """Return the smallest detectable change of each label in percent, 1.96 sqrt(2) SEM (Jacobson & Truax 1991).

        The difference of two scans of an unchanged head stays below it in 95 % of cases.
        """
        return {label: CONFIDENCE * float(np.sqrt(2)) * value for label, value in zip(self.ids, self.deviations)}

    def save(self, path: str | Path) -> None:
        """Write as JSON."""
        Path(path).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> RescanNoise:
        """Read from JSON.

        Raises
        ------
        WeightsError
            The file is damaged.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            noise = cls(**{field.name: content[field.name] for field in fields(cls)})
            if len(noise.deviations) != len(noise.ids):
                raise ValueError("its parts do not fit each other")
            numbers = np.array([*noise.deviations, noise.coarsest], dtype=float)
            if not np.isfinite(numbers).all() or numbers.min() < 0:
                raise ValueError("a number is negative or missing")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise WeightsError(f"The rescan noise {path} is damaged ({error}). Reinstall the package.") from error
        return noise

"""What the quality of a model's results is judged against; a JSON file beside its weights."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from .errors import WeightsError

FEATURES = (
    "expected Dice", "confidence", "size", "place", "mean expected Dice", "mean size", "mean place", "brain size",
    "cut", "missing",
)  # fmt: skip
"""What quality is judged by, see :func:`synthseg_slicer.quality.features`."""
WIDEST = 2.0
"""Half-widths of intervals are kept below this, a factor of 7."""


@dataclass(frozen=True)
class Calibration:
    """What quality is judged against.

    Attributes
    ----------
    weights : list of str
        SHA-256 of the network and its experts, sorted.
    ids : list of int
        Labels, background aside; the order of the lists below.
    share, share_sd : list of float
        Mean and standard deviation of the logarithm of each structure's share of the brain.
    place, place_sd : list of [float, float, float]
        Mean and standard deviation of each structure's centroid, relative to the brain's, in its standard deviations.
    brain, brain_sd : float
        Of the logarithm of the brain's volume in mm³.
    coefficients : list of float
        Of :data:`FEATURES`, the same for all structures.
    intercepts : list of float
        One a structure.
    usual : list of float
        Dice of each structure on unspoiled scans.
    spread : list of float
        One a structure, the last of the whole: 90 % of volumes were within exp(+/- spread * (1.05 - quality)) of the
        truth.
    facts : dict
        How it was made.
    """

    weights: list[str]
    ids: list[int]
    share: list[float]
    share_sd: list[float]
    place: list[list[float]]
    place_sd: list[list[float]]
    brain: float
    brain_sd: float
    coefficients: list[float]
    intercepts: list[float]
    usual: list[float]
    spread: list[float]
    facts: dict

    def save(self, path: str | Path) -> None:
        """Write as JSON."""
        Path(path).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read from JSON.

        Raises
        ------
        WeightsError
            The file is damaged.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            calibration = cls(**{field.name: content[field.name] for field in fields(cls)})
            for name in ("share", "share_sd", "place", "place_sd", "coefficients", "intercepts", "usual", "spread"):
                np.array(getattr(calibration, name), dtype=np.float64)
            sizes = {len(getattr(calibration, name)) for name in ("share", "place", "intercepts", "usual")}
            if sizes != {len(calibration.ids)} or len(calibration.coefficients) != len(FEATURES):
                raise ValueError("its parts do not fit each other")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise WeightsError(
                f"The quality calibration {path} is damaged ({error}). Reinstall the package."
            ) from error
        return calibration

    def quality(self, values: np.ndarray) -> np.ndarray:
        """Return the expected Dice, 0 to 1, of each structure from its features ``[structures, features]``."""
        return np.clip(values @ np.array(self.coefficients) + self.intercepts, 0, 1)

    def intervals(self, quality: np.ndarray) -> np.ndarray:
        """Return for each structure, and last for the whole, the factor around 1 that holds 90 % of true volumes."""
        quality = np.append(quality, quality.mean())
        return np.exp(np.minimum(np.array(self.spread) * (1.05 - quality), WIDEST))

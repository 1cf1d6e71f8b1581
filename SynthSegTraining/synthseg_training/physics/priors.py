"""Tissue priors at 3 T: how PD, R1, R2, R2* and MT of a tissue vary between and within subjects.

Sources, by class and map:

- ``gm``, ``gm_wm``, ``wm``, ``fat``, ``muscle``, ``soft``, ``marrow``, ``bone_air``: means and within-class standard
  deviations of PD, R1, R2* and MT are statistics of maps of healthy subjects (SPM Multibrain classes), left in a
  comment of the paper's authors' public code. The authors' full priors are not public.
- R2 was never measured there; the code sets it equal to R2*, so that CSF is not bright on T2-weighted images. Here it
  is the reciprocal of T2 at 3 T: grey 99, white 69, muscle 50 ms (Stanisz 2005), fat 133 ms (Gold 2004); ``gm_wm`` is
  halfway between. Skin and the other mixed classes: assumed.
- ``csf``: pure fluid, R1 1 / 4.3 s (Rooney 2007), PD 100, R2 0.5, R2* 1 to 4, MT 0. The measured class (PD 74.8, R1
  0.514, R2* 18.3, MT 0.328) is contaminated by its neighbours. ``vitreous``: as fluid, R2 assumed.
- ``thalamus``, ``striatum``, ``pallidum``: R1 between grey and white matter, R2* raised by iron, most in the
  pallidum; orders of magnitude after Weiskopf 2013 and Peters 2007, values assumed.
- ``blood``: T1 1.65 s (Lu 2004), R2 and R2* between arterial and venous, assumed; flow is not modelled.
  ``plexus``: assumed.
- ``cavity``, ``gliosis``: the ranges suggested in the project's notes taken as mean +- 2 spreads (cavity: PD 85-98, R1
  0.28-0.45, R2 2-6, R2* 4-12, MT 0-0.3; gliosis: R1 0.5-0.7, R2 5-9, R2* 10-16, MT 0.4-0.8).
- :data:`CHANGES`: a cavity replaces tissue, but gliosis and an acute infarct are tissue that changed, and a class with
  one mean cannot describe them: R1 of an infarct in white matter is that of healthy cortex. They are factors of the
  tissue in place. Acute: T2 gains 1.9 ms an hour in the first nine hours (Damion 2019: 1.2 times after nine) and more
  in the days after, 1.7 times here; T1 1.33 times, near the 1.4 that the notes suggest, so that cortex still brightens
  on FLAIR, where a long T1 counteracts a long T2; PD as the water of grey and white matter goes with their R1; the rest
  assumed. Gliosis: factors that take grey and white matter to about the ranges above, alike bright on FLAIR.

How much the means differ between subjects is not published for these classes. Assumed relative to the mean: 3 % for PD,
5 % for R1 and R2, 8 % for R2* and MT within the brain; 10 % for all outside. The within-class standard deviation is
assumed to vary by 20 % between subjects. Values quoted from the literature are quoted from memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from synthseg_slicer.errors import OptionError

from ..generation.anatomy import BRAIN_PAIRS
from .maps import QuantitativeMaps

MAP_NAMES = ("pd", "r1", "r2", "r2s", "mt")
TEXTURE = 0.1
"""Share of the within-class standard deviation that is drawn as texture, as in the authors' code; the rest of what was
measured is noise and mixture."""


@dataclass(frozen=True)
class Prior:
    """One map of one tissue, in the map's unit.

    Attributes
    ----------
    mean, mean_spread : float
        Mean and standard deviation of the subjects' means.
    std, std_spread : float
        Mean and standard deviation of the subjects' within-class standard deviations.
    """

    mean: float
    mean_spread: float
    std: float
    std_spread: float


@dataclass(frozen=True)
class Tissue:
    """Priors of all maps of one tissue, or of the factors by which a tissue changes (``factors``)."""

    pd: Prior
    r1: Prior
    r2: Prior
    r2s: Prior
    mt: Prior
    factors: bool = False

    @property
    def priors(self) -> tuple[Prior, ...]:
        """The priors in the order PD, R1, R2, R2*, MT."""
        return self.pd, self.r1, self.r2, self.r2s, self.mt

    def draw(self, rng: torch.Generator, texture: float = TEXTURE, common: float = 0.0) -> tuple[Tensor, Tensor]:
        """Draw one subject's tissue.

        Parameters
        ----------
        rng : torch.Generator
            On the CPU.
        texture : float
            Factor of the within-class standard deviation.
        common : float
            Share of the variance of the means that one cause has, water: the more of it, the more PD and the less of
            everything else.

        Returns
        -------
        means, stds : Tensor
            ``[5]`` in the order PD, R1, R2, R2*, MT; >= 0. The mean R2* of a tissue is at least its mean
            R2; factors of the two are free of each other.
        """
        table = torch.tensor([[p.mean, p.mean_spread, p.std, p.std_spread] for p in self.priors])
        noise = torch.randn(2, len(MAP_NAMES), generator=rng)
        if common:
            water = torch.randn((), generator=rng) * torch.tensor([1.0, -1.0, -1.0, -1.0, -1.0])
            noise[0].mul_((1 - common) ** 0.5).add_(water, alpha=common**0.5)
        means = (table[:, 0] + table[:, 1] * noise[0]).clamp_(min=0)
        stds = (table[:, 2] + table[:, 3] * noise[1]).clamp_(min=0).mul_(texture)
        if not self.factors:
            r2, r2s = MAP_NAMES.index("r2"), MAP_NAMES.index("r2s")
            means[r2s] = torch.maximum(means[r2s], means[r2])
        return means, stds


_BRAIN_SPREAD = (0.03, 0.05, 0.05, 0.08, 0.08)
_OTHER_SPREAD = (0.10,) * 5
_STD_SPREAD = 0.2


def _tissue(means: tuple[float, ...], stds: tuple[float, ...], spread: tuple[float, ...] = _BRAIN_SPREAD) -> Tissue:
    """Return a tissue whose means vary by these shares of themselves."""
    return _table(means, tuple(mean * share for mean, share in zip(means, spread)), stds)


def _table(
    means: tuple[float, ...], spreads: tuple[float, ...], stds: tuple[float, ...], *, factors: bool = False
) -> Tissue:
    priors = (Prior(m, spread, s, s * _STD_SPREAD) for m, spread, s in zip(means, spreads, stds))
    return Tissue(*priors, factors=factors)


TISSUES: dict[str, Tissue] = {
    # PD %, R1, R2, R2* in 1/s, MT p.u.: means, then within-class standard deviations
    "gm": _tissue((76.84, 0.652, 10.1, 19.84, 0.779), (8.44, 0.114, 1.5, 10.55, 0.274)),
    "gm_wm": _tissue((75.37, 0.788, 12.3, 23.90, 1.040), (7.93, 0.126, 1.5, 14.47, 0.324)),
    "wm": _tissue((69.79, 0.968, 14.5, 22.23, 1.500), (5.41, 0.088, 1.5, 7.58, 0.280)),
    "thalamus": _tissue((75.0, 0.80, 12.5, 22.0, 1.10), (6.0, 0.10, 1.5, 5.0, 0.25)),
    "striatum": _tissue((79.0, 0.72, 12.5, 24.0, 0.85), (6.0, 0.08, 1.5, 5.0, 0.20)),
    "pallidum": _tissue((72.0, 0.93, 17.0, 38.0, 1.20), (6.0, 0.10, 2.0, 8.0, 0.25)),
    "plexus": _tissue((88.0, 0.45, 5.0, 12.0, 0.35), (6.0, 0.10, 1.5, 4.0, 0.20)),
    "csf": _table((100.0, 0.233, 0.5, 2.5, 0.0), (2.0, 0.012, 0.1, 0.75, 0.05), (3.0, 0.02, 0.1, 1.0, 0.10)),
    "vitreous": _table((98.0, 0.24, 1.0, 4.0, 0.0), (2.0, 0.015, 0.2, 1.0, 0.05), (3.0, 0.02, 0.2, 1.0, 0.10)),
    "blood": _tissue((82.0, 0.606, 8.0, 25.0, 0.40), (8.0, 0.08, 3.0, 8.0, 0.20), _OTHER_SPREAD),
    "fat": _tissue((63.70, 1.340, 7.5, 67.26, 0.683), (15.00, 0.304, 1.5, 18.32, 0.775), _OTHER_SPREAD),
    "muscle": _tissue((68.11, 0.921, 20.0, 48.71, 0.727), (12.65, 0.213, 3.0, 16.37, 0.550), _OTHER_SPREAD),
    "soft": _tissue((57.92, 1.035, 16.0, 60.57, 0.569), (18.19, 0.236, 4.0, 19.40, 0.744), _OTHER_SPREAD),
    "marrow": _tissue((49.98, 0.864, 18.0, 55.69, 0.339), (21.84, 0.242, 4.0, 29.86, 0.464), _OTHER_SPREAD),
    "bone_air": _tissue((26.90, 0.842, 25.0, 40.47, 0.169), (16.07, 0.204, 5.0, 28.01, 0.558), _OTHER_SPREAD),
    "air": _tissue((0.0,) * 5, (0.0,) * 5),
    # Lesions differ far more between subjects than tissues do.
    "cavity": _table((91.5, 0.365, 4.0, 8.0, 0.15), (3.25, 0.0425, 1.0, 2.0, 0.075), (5.0, 0.05, 1.0, 2.0, 0.10)),
    "gliosis": _table((82.0, 0.60, 7.0, 13.0, 0.60), (2.5, 0.05, 1.0, 1.5, 0.10), (5.0, 0.08, 1.0, 3.0, 0.20)),
}
"""Class to its priors."""

CHANGES: dict[str, Tissue] = {
    "gliosis": _table(
        (1.10, 0.75, 0.58, 0.60, 0.50), (0.03, 0.05, 0.06, 0.06, 0.08), (0.06, 0.13, 0.14, 0.20, 0.30), factors=True
    ),
    "acute": _table(
        (1.065, 0.75, 0.60, 0.68, 0.80), (0.02, 0.05, 0.05, 0.05, 0.06), (0.06, 0.13, 0.12, 0.20, 0.25), factors=True
    ),
}
"""Class of changed tissue to the priors of the factors by which it differs from what it was."""
WATER = 0.8
"""``common`` of the draws of changed tissue: one cause, oedema or loss of cells, changes all maps."""
LEAST_CHANGE = 0.15
"""Relaxation of changed tissue is slower by this share at least. What relaxes as before, in the first hours, shows in
diffusion alone: no sequence simulated here could find it, and such samples would teach to see what cannot be seen."""

_LABEL_TISSUES: dict[int, str] = {
    0: "air", 2: "wm", 3: "gm", 4: "csf", 5: "csf", 7: "wm", 8: "gm", 10: "thalamus", 11: "striatum", 12: "striatum",
    13: "pallidum", 14: "csf", 15: "csf", 16: "gm_wm", 17: "gm", 18: "gm", 24: "csf", 25: "gliosis", 26: "striatum",
    28: "gm_wm", 30: "blood", 72: "csf", 85: "wm", 136: "plexus", 137: "plexus", 502: "blood", 506: "vitreous",
    507: "soft", 508: "muscle", 509: "soft", 511: "fat", 512: "gm_wm", 514: "blood", 515: "bone_air", 516: "marrow",
    530: "wm",
}  # fmt: skip

LABEL_TISSUES: dict[int, str] = _LABEL_TISSUES | {right: _LABEL_TISSUES[left] for left, right in BRAIN_PAIRS.items()}
"""Each of the 54 labels of the whole-head maps (:mod:`synthseg_training.generation.anatomy`) to its class. Labels 25
and 57 are a white matter hyperintensity; brain stem, ventral diencephalon and spinal cord mix grey and white matter."""


def typical_maps(labels: Tensor, tissues: dict[int, str] | None = None) -> QuantitativeMaps:
    """Return maps that hold each tissue's mean, without variation or texture.

    Parameters
    ----------
    labels : Tensor
        Integer ``[x, y, z]``, labels of the whole-head maps.
    tissues : dict, optional
        Label to class; by default :data:`LABEL_TISSUES`.

    Raises
    ------
    OptionError
        A label without a class, or a class that does not exist.
    """
    tissues = LABEL_TISSUES if tissues is None else tissues
    found, index = labels.unique(return_inverse=True)
    found = found.tolist()
    lacking = [label for label in found if tissues.get(label) not in TISSUES]
    if lacking:
        raise OptionError(f"No tissue class is known for the labels {lacking}. Give 'tissues' with these labels.")
    means = torch.tensor([[prior.mean for prior in TISSUES[tissues[label]].priors] for label in found])
    return QuantitativeMaps.unstack(means.T.to(labels.device)[:, index], check=False)

"""Field strength: how the relaxation rates of the reference, 3 T, change with B0.

Approximations for 0.3 to 7 T, monotone in B0 and voxel-wise, so that mixed voxels need no labels:

- R1 = Rw + (R1 - Rw) (B0 / 3)^-0.47, with Rw = 1 / 4.3 s of fluid, which does not depend on B0; rates below Rw are
  left. A fit to T1 = 0.00071 (gamma B0)^0.382 s in white and 0.00116 (gamma B0)^0.376 s in grey matter, gamma B0 in
  Hz (Rooney 2007), within 6 %.
- R2 = R2 (0.8695 + 0.0145 B0^2), since dephasing by diffusion grows with the square of B0. Against T2 of 87, 76 and
  47 ms in frontal grey, 80, 68 and 46 in occipital grey, 80, 71 and 47 in white matter at 1.5, 3 and 7 T (Cox and
  Gowland 2010): within 7 %.
- R2* = R2 + R2', with R2' (static dephasing by susceptibility) proportional to B0. From the 3 T values of Peters 2007
  (grey 66, white 53 ms) that gives their 1.5 and 7 T values (84 and 33, 66 and 27 ms) within 12 %.

PD and MT are left alone; so is the signal-to-noise ratio, which is a matter of :mod:`.noise`. Rooney's and Peters'
numbers are quoted from memory.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from synthseg_slicer.errors import OptionError

from ..generation.draws import uniform
from .maps import QuantitativeMaps

REFERENCE_TESLA = 3.0
LOWEST_TESLA, HIGHEST_TESLA = 0.3, 7.0
FLUID_R1 = 1 / 4.3
"""Of cerebrospinal fluid in s^-1 at any field strength (Rooney 2007)."""
R1_EXPONENT = 0.47
R2_QUADRATIC = 0.0145
"""Share by which R2 of 3 T grows with B0^2, in T^-2."""


def at_field(maps: QuantitativeMaps, b0: float, measured: float = REFERENCE_TESLA) -> QuantitativeMaps:
    """Return maps as they would be at another field strength.

    Parameters
    ----------
    maps : QuantitativeMaps
        Maps at the field strength ``measured``.
    b0, measured : float
        Field strengths in T, 0.3 to 7.

    Raises
    ------
    OptionError
        Field strength outside these bounds.
    """
    for tesla in (b0, measured):
        if not LOWEST_TESLA <= tesla <= HIGHEST_TESLA:
            raise OptionError(
                f"The field strength is {tesla} T; the model holds from {LOWEST_TESLA} to {HIGHEST_TESLA} T."
            )
    ratio = b0 / measured
    r1 = maps.r1 + (maps.r1 - FLUID_R1).clamp_(min=0).mul_(ratio**-R1_EXPONENT - 1)
    spin = _r2_factor(b0) / _r2_factor(measured)
    # R2* below R2 happens in noisy maps only; there R2' is 0.
    static = (maps.r2s - maps.r2).clamp_(min=0)
    r2s = torch.minimum(maps.r2s, maps.r2).mul_(spin).add_(static, alpha=ratio)
    return QuantitativeMaps(maps.pd, r1, maps.r2 * spin, r2s, maps.mt, check=False)


def _r2_factor(b0: float) -> float:
    """Return R2 over that of 3 T."""
    return 1 + R2_QUADRATIC * (b0**2 - REFERENCE_TESLA**2)


@dataclass(frozen=True)
class FieldStrength:
    """Random field strength in T, uniform between ``low`` and ``high``; equal bounds fix it."""

    low: float = REFERENCE_TESLA
    high: float = REFERENCE_TESLA

    def __post_init__(self) -> None:
        if not LOWEST_TESLA <= self.low <= self.high <= HIGHEST_TESLA:
            raise OptionError(
                f"The field strength is to lie in {self.low} to {self.high} T; the bounds must ascend within "
                f"{LOWEST_TESLA} to {HIGHEST_TESLA} T."
            )

    def draw(self, rng: torch.Generator) -> float:
        """Draw a field strength in T."""
        return uniform(rng, self.low, self.high)

    def apply(self, maps: QuantitativeMaps, b0: float) -> QuantitativeMaps:
        """Return the maps at that field strength."""
        return maps if b0 == REFERENCE_TESLA else at_field(maps, b0)

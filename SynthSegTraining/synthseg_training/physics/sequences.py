"""Signal equations of MR sequences, and their parameters.

The functions take tensors of equal shape (any) and plain numbers: times in s, rates in s^-1, flip angles in radians.
They compute in place on fresh tensors, for speed, and so do not carry gradients. ``gain`` is the receive field: a
number, or a tensor of the shape of the maps. Voxels with all maps 0 give 0 except where stated.

The dataclasses hold the parameters of one acquisition, flip angles in degrees, and apply the equation to
:class:`~.maps.QuantitativeMaps`. Spin echoes (FSE, FLAIR) decay with R2, gradient echoes with R2*.
"""

from __future__ import annotations

import math
from collections.abc import Sequence as SequenceOf
from dataclasses import asdict, dataclass
from itertools import pairwise

import torch
from torch import Tensor

from synthseg_slicer.errors import OptionError

from .maps import QuantitativeMaps

Gain = float | Tensor


def fse(pd: Tensor, r1: Tensor, r2: Tensor, tr: float, te: float, gain: Gain = 1.0) -> Tensor:
    """Return the (fast) spin echo, S = B PD (1 - exp(-R1 TR)) exp(-R2 TE); eq. 3 of the paper."""
    return _recovered(r1, tr).mul_(pd).mul_((r2 * -te).exp_()).mul_(gain)


def gre(pd: Tensor, r1: Tensor, r2s: Tensor, tr: float, te: float, flip: float, gain: Gain = 1.0) -> Tensor:
    """Return the spoiled gradient echo in its steady state (Ernst), eq. 4 of the paper.

    S = B PD sin(a) (1 - E1) / (1 - cos(a) E1) exp(-R2* TE) with E1 = exp(-R1 TR).
    """
    return _driven(r1, tr, math.cos(flip)).mul_(pd).mul_((r2s * -te).exp_()).mul_(math.sin(flip)).mul_(gain)


def flair(pd: Tensor, r1: Tensor, r2: Tensor, tr: float, te: float, ti: float, gain: Gain = 1.0) -> Tensor:
    """Return the inversion-recovery spin echo, magnitude, eq. 5 of the paper.

    S = B PD |1 - 2 exp(-R1 TI) + exp(-R1 TR)| exp(-R2 TE), for TE much shorter than TR.
    """
    recovery = (r1 * -tr).exp_().add_(1).sub_((r1 * -ti).exp_(), alpha=2).abs_()
    return recovery.mul_(pd).mul_((r2 * -te).exp_()).mul_(gain)


def mprage(
    pd: Tensor,
    r1: Tensor,
    r2s: Tensor,
    tr: float,
    ti: float,
    tx: float,
    te: float,
    flip: float,
    n: int,
    efficiency: float = 0.96,
    gain: Gain = 1.0,
) -> Tensor:
    """Return the MPRAGE signal at the centre of its train of gradient echoes (Marques 2010, one block).

    This replaces the shortened steady state of eq. 6 of the paper. With TP = TI - n TX / 2, TD = TR - TI - n TX / 2,
    EX, EP, ED, E1 = exp(-R1 {TX, TP, TD, TR}), q = cos(a) EX and m = n // 2::

        mss = {[(1 - EP) q^n + (1 - EX) (1 - q^n) / (1 - q)] ED + (1 - ED)} / (1 + eff cos(a)^n E1)
        s = [-eff mss EP + (1 - EP)] q^(m-1) + (1 - EX) (1 - q^(m-1)) / (1 - q)
        S = B PD |s sin(a)| exp(-R2* TE)

    Parameters
    ----------
    pd, r1, r2s : Tensor
        Maps.
    tr, ti, tx, te : float
        From inversion to inversion, inversion to the centre of the train, excitation to excitation, and echo time.
    flip : float
        Flip angle in radians.
    n : int
        Excitations in a train.
    efficiency : float
        Of the inversion: 1 turns all of the magnetisation round.
    gain : float or Tensor
        Receive field.

    Raises
    ------
    OptionError
        The train does not fit between the inversions.
    """
    (magnetisation,) = inversion_trains(r1, tr, (ti,), tx, (flip,), n, efficiency)
    return magnetisation.abs_().mul_(pd).mul_((r2s * -te).exp_()).mul_(math.sin(flip)).mul_(gain)


def mp2rage(
    pd: Tensor,
    r1: Tensor,
    r2s: Tensor,
    tr: float,
    ti: tuple[float, float],
    tx: float,
    te: float,
    flip: tuple[float, float],
    n: int,
    efficiency: float = 0.96,
    beta: float = 1e-3,
    gain: Gain = 1.0,
) -> Tensor:
    """Return the combined image of the two trains of MP2RAGE (Marques 2010), between -0.5 and 0.5.

    UNI = (S1 S2 - beta) / (S1^2 + S2^2 + 2 beta), with signed signals. Receive field, PD and R2* cancel but for
    ``beta`` (O'Brien 2014), in units of the squared signal, which turns the background from noise to -0.5.

    Parameters
    ----------
    ti, flip : tuple of float
        Of the first and the second train. All other parameters as for :func:`mprage`.
    """
    decay = (r2s * -te).exp_().mul_(pd).mul_(gain)
    trains = inversion_trains(r1, tr, ti, tx, flip, n, efficiency)
    first, second = (train.mul_(math.sin(angle)).mul_(decay) for train, angle in zip(trains, flip))
    return (first * second).sub_(beta).div_(first.square_().add_(second.square_()).add_(2 * beta))


def spgr_mt(
    pd: Tensor, r1: Tensor, r2s: Tensor, mt: Tensor, tr: float, te: float, flip: float, gain: Gain = 1.0
) -> Tensor:
    """Return the spoiled gradient echo with a saturation pulse before each excitation.

    As in Helms 2008 the pulse removes the fraction d = MT / 100 of the longitudinal magnetisation, as a second
    excitation would::

        S = B PD sin(a) (1 - d) (1 - E1) / (1 - (1 - d) cos(a) E1) exp(-R2* TE)

    Approximations: the exchange of the two pools is instantaneous, and d is that of the pulse with which the map was
    measured. For small angles and rates it is Helms' eq. 6, B PD a R1 TR / (a^2 / 2 + d + R1 TR), but for the factor
    1 - d, which Helms neglects.

    Parameters
    ----------
    mt : Tensor
        MTsat in percent. All other parameters as for :func:`gre`.
    """
    kept = 1 - mt / 100
    recovered = _recovered(r1, tr)
    cosine = kept * math.cos(flip)
    # 1 - c E1 as (1 - c) + c (1 - E1): no cancellation for short TR.
    signal = recovered * kept / (1 - cosine).add_(cosine.mul_(recovered))
    return signal.mul_(pd).mul_((r2s * -te).exp_()).mul_(math.sin(flip)).mul_(gain)


def inversion_trains(
    r1: Tensor, tr: float, ti: SequenceOf[float], tx: float, flip: SequenceOf[float], n: int, efficiency: float
) -> list[Tensor]:
    """Return the longitudinal magnetisation at the centre of each train after an inversion, signed, 1 at equilibrium.

    The magnetisation M follows M -> E M + (1 - E) M0 in every interval: M0 = 1 in the pauses; in a train of k
    excitations E = (cos(a) EX)^k and M0 its driven equilibrium (1 - EX) / (1 - cos(a) EX). One period is thus
    M -> B - efficiency A M, with the steady state B / (1 + efficiency A).

    Raises
    ------
    OptionError
        The trains do not fit between the inversions, or overlap.
    """
    pauses = _pauses(tr, ti, tx, n)
    if min(pauses) < 0:
        raise OptionError(
            f"{n} excitations, {tx * 1e3:g} ms apart and centred {', '.join(f'{t:g}' for t in ti)} s after inversion, "
            f"do not fit into a repetition time of {tr:g} s. Make the train shorter."
        )
    cosines = [math.cos(angle) for angle in flip]
    recoveries = [(r1 * -pause).exp_() for pause in pauses]
    driven = [_driven(r1, tx, cosine) for cosine in cosines]
    whole = (r1 * (-n * tx)).exp_()
    magnetisation, memory = torch.zeros_like(r1), torch.ones_like(r1)
    for recovery, equilibrium, cosine in zip(recoveries, driven, cosines):
        _relax(magnetisation, recovery)
        magnetisation.sub_(equilibrium).mul_(whole).mul_(cosine**n).add_(equilibrium)
        memory.mul_(recovery).mul_(whole).mul_(cosine**n)
    _relax(magnetisation, recoveries[-1])
    memory.mul_(recoveries[-1])
    magnetisation.div_(memory.mul_(efficiency).add_(1)).mul_(-efficiency)  # the steady state, inverted
    before = n // 2 - 1  # excitations before the one at the centre
    half = (r1 * (-before * tx)).exp_()
    centres = []
    for recovery, equilibrium, cosine in zip(recoveries, driven, cosines):
        _relax(magnetisation, recovery)
        centres.append((magnetisation - equilibrium).mul_(half).mul_(cosine**before).add_(equilibrium))
        if len(centres) < len(cosines):
            magnetisation.sub_(equilibrium).mul_(whole).mul_(cosine**n).add_(equilibrium)
    return centres


def _recovered(r1: Tensor, time: float) -> Tensor:
    """Return 1 - exp(-R1 t), exact for short times too."""
    return (r1 * -time).expm1_().neg_()


def _driven(r1: Tensor, tr: float, cosine: float) -> Tensor:
    """Return (1 - E1) / (1 - cos(a) E1)."""
    recovered = _recovered(r1, tr)
    return recovered.div_(recovered * cosine + (1 - cosine))


def _relax(magnetisation: Tensor, decay: Tensor) -> None:
    """Let the magnetisation relax towards 1, in place."""
    magnetisation.sub_(1).mul_(decay).add_(1)


def _pauses(tr: float, ti: SequenceOf[float], tx: float, n: int) -> list[float]:
    """Return the pauses before, between and after the trains of one period in s."""
    train = n * tx
    between = [later - earlier - train for earlier, later in pairwise(ti)]
    return [ti[0] - train / 2, *between, tr - ti[-1] - train / 2]


@dataclass(frozen=True)
class _Timing:
    """Checks that the sequences share: positive times, flip angles below 180 degrees, sensible trains."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name.startswith("flip"):
                good, bounds = 0 < value < 180, "between 0 and 180 degrees"
            elif name == "n":
                good, bounds = value >= 2 and value == int(value), "a whole number of 2 or more"
            elif name == "efficiency":
                good, bounds = 0 <= value <= 1, "between 0 and 1"
            elif name in ("te", "beta"):
                good, bounds = 0 <= value < math.inf, "0 or more"
            else:
                good, bounds = 0 < value < math.inf, "positive, in s"
            if not good:
                raise OptionError(f"{type(self).__name__}: {name} is {value}; it must be {bounds}.")


@dataclass(frozen=True)
class FSE(_Timing):
    """Fast spin echo; ``tr`` and effective ``te`` in s."""

    tr: float
    te: float

    @property
    def feasible(self) -> bool:
        """Whether a scanner could do it: the echo comes before the next excitation."""
        return self.te <= self.tr

    def signal(self, maps: QuantitativeMaps, gain: Gain = 1.0) -> Tensor:
        """Return the signal ``[x, y, z]``."""
        return fse(maps.pd, maps.r1, maps.r2, self.tr, self.te, gain)


@dataclass(frozen=True)
class GRE(_Timing):
    """Spoiled gradient echo; ``tr`` and ``te`` in s, ``flip_deg`` in degrees."""

    tr: float
    te: float
    flip_deg: float

    @property
    def feasible(self) -> bool:
        """Whether a scanner could do it: the echo comes before the next excitation."""
        return self.te <= self.tr

    def signal(self, maps: QuantitativeMaps, gain: Gain = 1.0) -> Tensor:
        """Return the signal ``[x, y, z]``."""
        return gre(maps.pd, maps.r1, maps.r2s, self.tr, self.te, math.radians(self.flip_deg), gain)


@dataclass(frozen=True)
class FLAIR(_Timing):
    """Inversion-recovery spin echo; ``tr``, ``te`` and inversion time ``ti`` in s."""

    tr: float
    te: float
    ti: float

    @property
    def feasible(self) -> bool:
        """Whether a scanner could do it: inversion, excitation and echo come before the next inversion."""
        return self.ti + self.te <= self.tr

    def signal(self, maps: QuantitativeMaps, gain: Gain = 1.0) -> Tensor:
        """Return the signal ``[x, y, z]``."""
        return flair(maps.pd, maps.r1, maps.r2, self.tr, self.te, self.ti, gain)


@dataclass(frozen=True)
class MPRAGE(_Timing):
    """Magnetisation-prepared gradient echoes; times in s, see :func:`mprage`; ``flip_deg`` in degrees."""

    tr: float = 2.3
    ti: float = 0.9
    tx: float = 0.006
    te: float = 0.003
    flip_deg: float = 9.0
    n: int = 160
    efficiency: float = 0.96

    @property
    def feasible(self) -> bool:
        """Whether a scanner could do it: the train fits between the inversions."""
        return min(_pauses(self.tr, (self.ti,), self.tx, self.n)) >= 0

    def signal(self, maps: QuantitativeMaps, gain: Gain = 1.0) -> Tensor:
        """Return the signal ``[x, y, z]``."""
        flip = math.radians(self.flip_deg)
        return mprage(
            maps.pd, maps.r1, maps.r2s, self.tr, self.ti, self.tx, self.te, flip, self.n, self.efficiency, gain
        )


@dataclass(frozen=True)
class MP2RAGE(_Timing):
    """Two trains of gradient echoes after each inversion, combined to one image; defaults after Marques 2010 at 3 T."""

    tr: float = 6.25
    ti1: float = 0.8
    ti2: float = 2.2
    tx: float = 0.0058
    te: float = 0.003
    flip1_deg: float = 7.0
    flip2_deg: float = 5.0
    n: int = 160
    efficiency: float = 0.96
    beta: float = 1e-3

    @property
    def feasible(self) -> bool:
        """Whether a scanner could do it: the trains fit between the inversions."""
        return min(_pauses(self.tr, (self.ti1, self.ti2), self.tx, self.n)) >= 0

    def signal(self, maps: QuantitativeMaps, gain: Gain = 1.0) -> Tensor:
        """Return the combined image ``[x, y, z]`` in [-0.5, 0.5]; background -0.5."""
        times, flips = (self.ti1, self.ti2), (math.radians(self.flip1_deg), math.radians(self.flip2_deg))
        return mp2rage(
            maps.pd,
            maps.r1,
            maps.r2s,
            self.tr,
            times,
            self.tx,
            self.te,
            flips,
            self.n,
            self.efficiency,
            self.beta,
            gain,
        )


@dataclass(frozen=True)
class SPGRMT(_Timing):
    """Spoiled gradient echo with magnetisation transfer pulses; ``tr`` and ``te`` in s, ``flip_deg`` in degrees."""

    tr: float
    te: float
    flip_deg: float

    @property
    def feasible(self) -> bool:
        """Whether a scanner could do it: the echo comes before the next excitation."""
        return self.te <= self.tr

    def signal(self, maps: QuantitativeMaps, gain: Gain = 1.0) -> Tensor:
        """Return the signal ``[x, y, z]``."""
        return spgr_mt(maps.pd, maps.r1, maps.r2s, maps.mt, self.tr, self.te, math.radians(self.flip_deg), gain)


Sequence = FSE | GRE | FLAIR | MPRAGE | MP2RAGE | SPGRMT

"""Random acquisitions as in the paper (section 2.3), and typical clinical ones."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from synthseg_slicer.errors import OptionError

from ..generation.draws import uniform
from .sequences import FLAIR, FSE, GRE, MPRAGE, Sequence

SEQUENCES: dict[str, type] = {"fse": FSE, "gre": GRE, "flair": FLAIR, "mprage": MPRAGE}
KINDS = ("uniform", "log_uniform", "normal", "log10_normal")
TRIES = 10_000
"""Rejected draws of one acquisition after which its distributions count as contradictory."""


@dataclass(frozen=True)
class Distribution:
    """Where one parameter of a sequence comes from; draws are taken absolute.

    Attributes
    ----------
    kind : str
        ``uniform`` and ``log_uniform`` between ``a`` and ``b``; ``normal`` with mean ``a`` and standard deviation
        ``b``; ``log10_normal`` is a 10^N(0, b^2).
    a, b : float
        In the parameter's unit.
    """

    kind: str
    a: float
    b: float

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise OptionError(f"{self.kind!r} is no distribution. Use one of {', '.join(KINDS)}.")
        if self.kind == "log_uniform" and min(self.a, self.b) <= 0:
            raise OptionError(f"A log-uniform distribution from {self.a} to {self.b}; both bounds must be positive.")

    def draw(self, rng: torch.Generator) -> float:
        """Draw one value."""
        if self.kind == "uniform":
            value = uniform(rng, self.a, self.b)
        elif self.kind == "log_uniform":
            value = math.exp(uniform(rng, math.log(self.a), math.log(self.b)))
        elif self.kind == "normal":
            value = self.a + self.b * torch.randn((), generator=rng).item()
        else:
            value = self.a * 10 ** (self.b * torch.randn((), generator=rng).item())
        return abs(value)


def paper_distributions() -> dict[str, dict[str, Distribution]]:
    """Return the paper's distributions: sequence to parameter to distribution.

    Where the paper's text cannot be meant as printed, this is how it is read: MPRAGE's TR is 2.3 s +- 10 %, not 23 s,
    and FLAIR's TE 20 ms 10^N(0, 0.1^2). The text leaves out MPRAGE's number of excitations: 160 +- 10 %.
    """
    return {
        "fse": {"te": Distribution("log_uniform", 1e-3, 3), "tr": Distribution("log_uniform", 1e-3, 3)},
        "gre": {
            "te": Distribution("log_uniform", 2e-3, 80e-3),
            "tr": Distribution("log_uniform", 5e-3, 5),
            "flip_deg": Distribution("uniform", 5, 50),
        },
        "flair": {
            "te": Distribution("log10_normal", 20e-3, 0.1),
            "tr": Distribution("log_uniform", 1e-3, 5),
            "ti": Distribution("log_uniform", 1e-3, 3),
        },
        "mprage": {
            "tr": Distribution("normal", 2.3, 0.23),
            "ti": Distribution("uniform", 0.6, 0.9),
            "tx": Distribution("uniform", 4e-3, 8e-3),
            "te": Distribution("uniform", 2e-3, 4e-3),
            "flip_deg": Distribution("uniform", 5, 12),
            "n": Distribution("normal", 160, 16),
        },
    }


def qatlas_distributions() -> dict[str, dict[str, Distribution]]:
    """Return the distributions of the MPRAGE scans on which the estimator of maps (qATLAS) is trained."""
    mprage = {"tr": Distribution("uniform", 1.9, 2.5), "ti": Distribution("uniform", 0.6, 1.2)}
    return {"mprage": paper_distributions()["mprage"] | mprage}


@dataclass(frozen=True)
class SequenceDraw:
    """Draws an acquisition: one of the sequences, then its parameters independently.

    Protocols of the same sequence that no independent draws would give are told apart by a suffix: ``fse-t1``. An
    MPRAGE whose train does not fit between its inversions is drawn again as a whole, since its equation has no
    meaning then.

    Attributes
    ----------
    weights : dict
        Sequence (``fse``, ``gre``, ``flair``, ``mprage``, each with any suffix) to its share,
        relative to the sum; absent ones are not drawn.
    distributions : dict
        Sequence to parameter to :class:`Distribution`.
    feasible : bool
        Draw again what no scanner can do, such as an echo after the next excitation. The paper draws those too: its
        equations stay defined, and strange contrasts are what makes a network indifferent to contrast.
    """

    weights: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SEQUENCES, 1.0))
    distributions: dict[str, dict[str, Distribution]] = field(default_factory=paper_distributions)
    feasible: bool = False

    def __post_init__(self) -> None:
        unknown = sorted(name for name in self.weights if _base(name) not in SEQUENCES)
        if unknown:
            raise OptionError(f"Unknown sequences: {', '.join(unknown)}. Known are {', '.join(SEQUENCES)}.")
        if not sum(self.weights.values()) > 0 or min(self.weights.values()) < 0:
            raise OptionError(
                f"The weights of the sequences are {self.weights}; one or more must be above 0, none below."
            )
        lacking = [name for name, weight in self.weights.items() if weight and name not in self.distributions]
        if lacking:
            raise OptionError(f"No distributions are given for the parameters of {', '.join(lacking)}.")

    def draw(self, rng: torch.Generator) -> Sequence:
        """Draw one acquisition.

        Raises
        ------
        OptionError
            The distributions (almost) never give an acquisition that is possible.
        """
        names = [name for name, weight in self.weights.items() if weight]
        chosen = torch.multinomial(torch.tensor([float(self.weights[name]) for name in names]), 1, generator=rng)
        name = names[chosen.item()]
        for _ in range(TRIES):
            values = {key: distribution.draw(rng) for key, distribution in self.distributions[name].items()}
            if "n" in values:
                values["n"] = max(2, round(values["n"]))
            sequence = SEQUENCES[_base(name)](**values)
            if sequence.feasible or not (self.feasible or _base(name) == "mprage"):
                return sequence
        raise OptionError(f"The distributions of {name} give no possible acquisition in {TRIES} draws. Widen them.")


def _base(name: str) -> str:
    """Return the sequence of a protocol: ``fse`` of ``fse-t1``."""
    return name.partition("-")[0]


CLINICAL: dict[str, Sequence] = {
    "T1 MPRAGE": MPRAGE(tr=2.3, ti=0.9, tx=0.007, te=0.003, flip_deg=9, n=160),
    "T1 FSE": FSE(tr=0.55, te=0.012),
    "T2 FSE": FSE(tr=4.5, te=0.1),
    "PD FSE": FSE(tr=3.0, te=0.02),
    "FLAIR": FLAIR(tr=9.0, te=0.12, ti=2.5),
    "T2* GRE": GRE(tr=0.7, te=0.02, flip_deg=20),
    "DWI b0": FSE(tr=5.0, te=0.08),
}
"""Typical acquisitions at 1.5 to 3 T. The b = 0 image of diffusion weighting is a single spin echo read out by EPI:
FSE's equation holds, distortions and the decay along the readout are left out."""

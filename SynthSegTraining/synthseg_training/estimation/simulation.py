"""Simulated MPRAGE scans with the maps they were made of: what the estimator is trained on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from synthseg_slicer.errors import OptionError

from ..generation.draws import happens, uniforms
from ..generation.resolution import Resolution
from ..labelmaps import LabelMapSet
from ..physics import FieldStrength, QuantitativeMaps, SequenceDraw, qatlas_distributions, rician
from ..stroke.from_maps import MapsGenerator, MapsParameters
from ..stroke.model import StrokeConfig, StrokeGenerator, StrokeParameters, conformed
from .network import MAPS


@dataclass(frozen=True)
class GibbsRinging:
    """Truncation of k-space, which rings at edges.

    Attributes
    ----------
    probability : float
        Probability of a truncation.
    kept : tuple of float
        Bounds of the share of k-space that is kept along each axis, uniform and independent; 1 keeps all.
    """

    probability: float = 0.5
    kept: tuple[float, float] = (0.6, 1.0)

    def __post_init__(self) -> None:
        low, high = self.kept
        if not 0 < low <= high <= 1:
            raise OptionError(f"Gibbs ringing: the share of k-space kept is {self.kept}; it must ascend within (0, 1].")

    def draw(self, rng: torch.Generator) -> tuple[float, ...]:
        """Return the share kept along each axis."""
        return tuple(uniforms(rng, 3, *self.kept)) if happens(rng, self.probability) else (1.0, 1.0, 1.0)

    def apply(self, signal: Tensor, kept: tuple[float, ...]) -> Tensor:
        """Return the signal ``[x, y, z]``, signed where it rings below 0; its mean stays.

        Each axis is continued by its mirror image first. Opposite faces of a crop, which Fourier transforms take for
        neighbours, differ, and would ring as no scan does.
        """
        for axis, share in enumerate(kept):
            if share < 1:
                n = signal.shape[axis]
                spectrum = torch.fft.rfft(torch.cat([signal, signal.flip(axis)], axis), dim=axis)
                spectrum.narrow(axis, first := 1 + int(share * n), n + 1 - first).zero_()
                signal = torch.fft.irfft(spectrum, 2 * n, dim=axis).narrow(axis, 0, n)
        return signal


@dataclass(frozen=True)
class MprageConfig(StrokeConfig):
    """Settings of the simulator: those of the stroke task's generative model with qATLAS's defaults, and ringing.

    MPRAGE is drawn from :func:`~synthseg_training.physics.qatlas_distributions`, the field strength from U(0.3, 7) T.
    The paper simulates no low resolution; ``resolution`` switches it on.

    Attributes
    ----------
    gibbs : GibbsRinging
        Applied to the signal before noise.
    """

    healthy_classes: bool = False
    stroke_probability: float = 0.5
    sequences: SequenceDraw = field(
        default_factory=lambda: SequenceDraw(weights={"mprage": 1.0}, distributions=qatlas_distributions())
    )
    field_strength: FieldStrength = field(default_factory=lambda: FieldStrength(0.3, 7.0))
    resolution: Resolution = field(default_factory=lambda: Resolution(probability=0))
    gibbs: GibbsRinging = field(default_factory=GibbsRinging)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.appearance != "physics":
            raise OptionError("Maps are estimated from simulated scans only: leave the appearance at 'physics'.")


@dataclass(frozen=True)
class SimulationParameters:
    """Everything random about one scan: head, acquisition and noise; the share of k-space kept along each axis."""

    head: StrokeParameters | MapsParameters
    gibbs: tuple[float, ...]


class MprageSimulator:
    """Draws MPRAGE scans and the maps they show.

    The target holds the maps *at the scan's own field strength*, as the paper's estimator, which is not told the field
    strength, has to guess it from contrast: R1 falls and R2* rises with B0. At inference the maps are hence those of
    the scanner at hand, within what one image tells; PD and MT do not depend on it.

    Parameters
    ----------
    source : LabelMapSet or path
        Label maps, of which qSynth draws maps with and without lesions; or a folder of measured map sets, taken as
        of 3 T (:class:`~synthseg_training.stroke.from_maps.MapsGenerator`).
    config : MprageConfig, optional
        Settings.
    device : torch.device or str
        Where samples of measured maps are made; others are made on the device of the label maps.
    """

    def __init__(
        self, source: LabelMapSet | str | Path, config: MprageConfig | None = None, device: torch.device | str = "cpu"
    ):
        self.config = config or MprageConfig()
        self.generator: StrokeGenerator
        if isinstance(source, LabelMapSet):
            self.generator = StrokeGenerator(source, self.config)
        else:
            self.generator = MapsGenerator(source, self.config, device)

    def draw(self, rng: torch.Generator) -> SimulationParameters:
        """Draw the parameters of one sample from a generator on the CPU."""
        return SimulationParameters(self.generator.draw(rng), self.config.gibbs.draw(rng))

    @torch.no_grad()
    def apply(self, parameters: SimulationParameters) -> tuple[Tensor, Tensor]:
        """Make the sample that the parameters describe.

        Returns
        -------
        image : Tensor
            float32 ``[1, N, N, N]``, standardised.
        target : Tensor
            float32 ``[4, N, N, N]``, see :data:`~.network.MAPS`.
        """
        head = parameters.head
        maps = self.config.field_strength.apply(self.generator.quantitative(head), head.field_strength)
        return self.scan(maps, parameters)[None], torch.stack([getattr(maps, name) for name in MAPS])

    def sample(self, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw and make one sample."""
        return self.apply(self.draw(rng))

    def scan(self, maps: QuantitativeMaps, parameters: SimulationParameters) -> Tensor:
        """Return the standardised scan ``[N, N, N]`` of maps at the field strength of the scan."""
        config, head = self.config, parameters.head
        signal = head.sequence.signal(maps, config.gain.gain(head.gain, config.crop, maps.device))
        sigma = head.noise * signal.sum() / signal.count_nonzero().clamp_(min=1)
        # k-space is truncated and noisy before the magnitude is taken
        signal = config.gibbs.apply(signal, parameters.gibbs)
        signal = rician(signal, sigma, torch.Generator(maps.device).manual_seed(head.seed + 101))
        return conformed(config.resolution.apply(signal, head.resolution, config.voxel_size))

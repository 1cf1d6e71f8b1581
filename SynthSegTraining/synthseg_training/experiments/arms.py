"""The ablations of SynthSeg (Billot et al. 2023, section 5.2) as changes of a recipe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from synthseg_slicer.errors import OptionError
from synthseg_training.training.recipe import Recipe, merged

from .domains import Domain

FULL = "full"
VARIANTS: dict[str, dict] = {
    FULL: {},
    "tight": {"gmm": {"mean": [10.0, 240.0], "std": [1.0, 25.0]}},
    "tighter": {"gmm": {"mean": [50.0, 200.0], "std": [1.0, 15.0]}},
    "no-lesions": {"lesions": {"probability": 0.0}},
    "no-bias": {"bias": {"probability": 0.0}},
    "no-deformation": {"spatial": {"probability": 0.0}},
}
"""Name to settings of the generative model. The two narrower priors of the GMM are the paper's (iii) and (iv)."""
RESOLUTION, BOTH = "R", "RC"
"""SynthSeg-R: random contrast at the test scans' resolution. SynthSeg-RC: their contrast and their resolution."""
ARMS = (FULL, RESOLUTION, BOTH, *(name for name in VARIANTS if name != FULL))
TITLES = {
    FULL: "SynthSeg",
    RESOLUTION: "SynthSeg-R",
    BOTH: "SynthSeg-RC",
    "tight": "tighter priors (10-240, 1-25)",
    "tighter": "tightest priors (50-200, 1-15)",
    "no-lesions": "no lesions",
    "no-bias": "no bias field",
    "no-deformation": "no deformation",
}


@dataclass(frozen=True)
class Arm:
    """A training.

    Attributes
    ----------
    kind : str
        One of :data:`ARMS`.
    target : str
        What a domain-specific arm is made for: a resolution, or a domain; empty for the others.
    changes : dict
        Settings of the generative model that differ from the recipe's.
    """

    kind: str
    target: str = ""
    changes: dict = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Unique name."""
        return f"{self.kind} {self.target}".strip()

    def serves(self, domain: Domain | None) -> bool:
        """Return whether the arm is tested on scans of a domain."""
        return not self.target or self.target == (domain.resolution if self.kind == RESOLUTION else str(domain))

    def recipe(self, base: Recipe, seed: int) -> Recipe:
        """Return the recipe with this arm's settings in every stage; the seed is added to the recipe's own."""
        stages = [replace(stage, generator=merged(stage.generator, self.changes)) for stage in base.stages]
        if self.kind == BOTH:  # its contrast is the arm's, not the curriculum's
            stages = [replace(stage, realistic_share=None) for stage in stages]
        return replace(base, stages=stages, seed=base.seed + seed)


def check_kinds(kinds: Sequence[str]) -> None:
    """Refuse arms that cannot be compared.

    Raises
    ------
    OptionError
        An unknown arm, or one named twice; or none to compare with (``full``).
    """
    if unknown := [kind for kind in kinds if kind not in ARMS]:
        raise OptionError(f"Unknown arm {', '.join(unknown)}; known are {', '.join(ARMS)}.")
    if FULL not in kinds or len(set(kinds)) < len(kinds):
        raise OptionError(
            f"The arms {' '.join(kinds)}: name each once, and '{FULL}', with which the others are compared."
        )


def arms_for(kinds: Sequence[str], domains: Iterable[Domain]) -> list[Arm]:
    """Return the trainings that the named arms take: one a resolution for R, one a domain for RC.

    Parameters
    ----------
    kinds : sequence of str
        Among :data:`ARMS`, see :func:`check_kinds`.
    domains : iterable of Domain
        Of the test scans.
    """
    domains = sorted(set(domains))
    arms = []
    for kind in kinds:
        if kind == RESOLUTION:
            settings = {domain.resolution: domain.resolution_settings for domain in domains}
            arms += [Arm(kind, target, {"resolution": own}) for target, own in settings.items()]
        elif kind == BOTH:
            for domain in domains:
                gmm = {"realistic_share": 1.0, "contrasts": [domain.contrast]}
                arms.append(Arm(kind, str(domain), {"gmm": gmm, "resolution": domain.resolution_settings}))
        else:
            arms.append(Arm(kind, changes=VARIANTS[kind]))
    return arms


def with_steps(recipe: Recipe, steps: int | None) -> Recipe:
    """Return the recipe with so many steps in all, each stage and its warm-up shortened or lengthened alike.

    Raises
    ------
    OptionError
        Fewer steps than stages.
    """
    if steps is None or steps == recipe.steps:
        return recipe
    if steps < len(recipe.stages):
        raise OptionError(f"{steps} steps are too few for the {len(recipe.stages)} stages of the recipe {recipe.name}.")
    factor, stages, left = steps / recipe.steps, [], steps
    for index, stage in enumerate(recipe.stages):
        later = len(recipe.stages) - index - 1
        own = min(max(1, round(stage.steps * factor)), left - later) if later else left
        left -= own
        ramp = stage.difficulty_steps and max(1, round(stage.difficulty_steps * factor))
        stages.append(replace(stage, steps=own, warmup=round(stage.warmup * factor), difficulty_steps=ramp))
    return replace(recipe, stages=stages)

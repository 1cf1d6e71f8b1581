"""Test scans drawn from held-out label maps, for whoever has no scans with references at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from synthseg_slicer.errors import OptionError
from synthseg_slicer.files import atomic
from synthseg_slicer.scan import write_volume
from synthseg_training.evaluation.scans import IMAGE_SUFFIX, REFERENCE_SUFFIX
from synthseg_training.generation import Generator
from synthseg_training.generation.priors import CONTRASTS
from synthseg_training.labelmaps import LabelMapSet
from synthseg_training.training.loop import stage_config
from synthseg_training.training.recipe import Recipe

TABLE = "scans.csv"


def write_scans(
    folder: Path, recipe: Recipe, maps: LabelMapSet, *, contrasts: Sequence[str], number: int, crop: int, seed: int = 0
) -> Path:
    """Write synthetic scans of tissue-ordered contrasts at 1 mm with their label maps, and a table of them.

    Anatomy, noise, bias field and lesions come from the generative model of the recipe's last stage; only the contrast
    (:mod:`synthseg_training.generation.priors`) and the full resolution are set.

    Parameters
    ----------
    folder : Path
        Made if need be. If it holds the table already, nothing is written.
    recipe : Recipe
        Whose held-out maps the scans are drawn from.
    maps : LabelMapSet
        All maps.
    contrasts : sequence of str
        Among :data:`synthseg_training.generation.priors.CONTRASTS`.
    number : int
        Scans of each contrast.
    crop : int
        Edge of the scans in voxels.
    seed : int
        Of the draws.

    Returns
    -------
    Path
        The table.

    Raises
    ------
    OptionError
        An unknown contrast, or no held-out map.
    """
    if unknown := [contrast for contrast in contrasts if contrast not in CONTRASTS]:
        raise OptionError(f"Unknown contrast {', '.join(unknown)}; known are {', '.join(CONTRASTS)}.")
    held_out = [name for name in recipe.held_out if name in maps.names]
    if not held_out:
        raise OptionError(
            "Synthetic test scans need label maps that no network is trained on. Name some in the recipe's 'held_out', "
            "or give real scans by --scans."
        )
    table = folder / TABLE
    if table.exists():
        return table
    folder.mkdir(parents=True, exist_ok=True)
    stage = recipe.stages[-1]
    config = replace(stage_config(recipe, stage, stage.steps), crop=crop)
    config = replace(config, resolution=replace(config.resolution, probability=0.0))
    rng = torch.Generator().manual_seed(seed)
    ids, affine = np.array(config.output_ids, np.int16), np.diag([config.voxel_size] * 3 + [1.0])
    rows = []
    for contrast in contrasts:
        gmm = replace(config.gmm, realistic_share=1.0, contrasts=(contrast,))
        generator = Generator(maps.subset(held_out), replace(config, gmm=gmm))
        for index in range(number):
            image, target = generator.sample(rng)
            name = f"synthetic{index:03d}-{contrast}"
            files = {"image": name + IMAGE_SUFFIX, "reference": name + REFERENCE_SUFFIX}
            write_volume(folder / files["image"], image[0].numpy(), affine)
            write_volume(folder / files["reference"], ids[target.numpy()], affine)
            rows.append({"name": name, **files, "dataset": "synthetic", "contrast": contrast})
    with atomic(table) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)
    return table

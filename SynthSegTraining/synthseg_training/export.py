"""From a checkpoint to weights that the extension can bundle."""

from __future__ import annotations

import colorsys
import datetime
from pathlib import Path
from typing import Any

import torch

from synthseg_slicer.labels import BRAIN, STROKE, Label
from synthseg_slicer.network import build, fold_batch_norm, parameter_count
from synthseg_slicer.weights import Model, save_model
from synthseg_training.labelmaps import LabelMapSet
from synthseg_training.training import checkpoint
from synthseg_training.training.averaging import estimate_norm_statistics
from synthseg_training.training.loop import real_data, stage_config, training_names, training_samples
from synthseg_training.training.recipe import Recipe, Stage


def card_labels(recipe: Recipe) -> tuple[Label, ...]:
    """Return what the channels mean, in channel order.

    FreeSurfer's entries where the label is one of the brain's; else the recipe's names and made-up colours.
    Every foreground label of another anatomy is a topology class of its own: one connected component.
    """
    config = stage_config(recipe, recipe.stages[-1])
    if recipe.task == "stroke":
        return tuple(label for label in STROKE if label.id in config.output_ids)
    anatomy = config.anatomy
    known = {label.id: label for label in BRAIN} if not recipe.names else {}
    left = set(anatomy.pairs)
    partners = anatomy.output_partners
    kinds = sorted({min(pair) for pair in partners.items()})
    labels = []
    for channel, (label, partner) in enumerate(partners.items()):
        if label in known:
            labels.append(known[label])
            continue
        side = "none" if partner == label else "left" if label in left else "right"
        hue = (0.618 * kinds.index(min(label, partner))) % 1  # golden ratio: far hues; both sides the same
        color = (0, 0, 0) if label == 0 else tuple(round(255 * value) for value in colorsys.hsv_to_rgb(hue, 0.6, 0.95))
        name = recipe.names.get(label, "Background" if label == 0 else f"Label-{label}")
        labels.append(Label(label, name, color, side, partner, 0 if label == 0 else channel))
    return tuple(labels)


def inference_settings(recipe: Recipe) -> dict[str, Any]:
    """Return what the card says of inference: the last stage's voxel size, whether mirrored scans are known, extras.

    For the stroke task also how many mirrored passes the weights know: 8 along all axes, 2 from left to right.
    """
    last = recipe.stages[-1]
    flip = stage_config(recipe, last).flip
    settings = {"voxel_size": last.voxel_size, "mirrored": flip.probability > 0}
    if recipe.task == "stroke":
        along_all = flip.probability and flip.anterior_posterior and flip.inferior_superior
        settings["flips"] = 8 if along_all else 2 if flip.probability else 1
    return {**settings, **recipe.card}


def export(
    recipe: Recipe,
    checkpoint_path: str | Path,
    path: str | Path,
    *,
    maps: LabelMapSet | None = None,
    norm_samples: int = 0,
    facts: dict[str, Any] | None = None,
) -> Path:
    """Write the (averaged) weights of a checkpoint with their card.

    Parameters
    ----------
    recipe : Recipe
        The recipe that the checkpoint was trained by.
    checkpoint_path : path
        ``last.pt`` or ``weights.pt`` of :func:`synthseg_training.training.loop.fit`.
    path : path
        ``NAME.pt`` to write; the card becomes ``NAME.json`` beside it.
    maps : LabelMapSet, optional
        The label maps of the training; their source and licence go into the card.
    norm_samples : int
        Re-estimate batch normalisation's statistics over so many samples of the last stage (averaged weights never had
        statistics of their own); 0 keeps those of the checkpoint, right after a stage with ``frozen_norm``.
    facts : dict, optional
        More entries for the card.

    Returns
    -------
    Path
        The weights file.

    Raises
    ------
    ValueError
        If ``norm_samples`` is asked for without label maps.
    """
    content = checkpoint.load(checkpoint_path)
    network = build(**recipe.network)
    network.load_state_dict(checkpoint.weights(content))
    if norm_samples:
        if maps is None:
            raise ValueError("norm_samples needs the label maps of the training")
        training = maps.subset(training_names(recipe, maps))
        last = recipe.stages[-1]
        config = stage_config(recipe, last, last.steps)
        generator = training_samples(recipe, training, config, real_data(recipe))
        rng = torch.Generator().manual_seed(recipe.seed)
        images = (generator.sample(rng)[0][None] for _ in range(norm_samples))
        estimate_norm_statistics(network, network, images)
    options = {key: value for key, value in recipe.network.items() if key != "architecture"}
    card = {
        "name": recipe.name,
        "architecture": recipe.network["architecture"],
        "options": options,
        "parameters": parameter_count(network),
        "date": datetime.date.today().isoformat(),
        "steps": content.get("step"),
        "held_out_maps": recipe.held_out,
        "labels": card_labels(recipe),
        **inference_settings(recipe),
    }
    if maps is not None:
        used = training_names(recipe, maps)
        card |= {"label_maps": {"source": maps.source, "licence": maps.licence, "names": used}}
    return save_model(path, network, card | (facts or {}))


def load_snapshot(path: str | Path, recipe: Recipe | None = None) -> tuple[Model, int]:
    """Return the (averaged) weights of a checkpoint or snapshot as a model, and their step.

    Parameters
    ----------
    path : path
        ``weights.pt``, ``weights-STEP.pt`` or ``last.pt`` of :func:`synthseg_training.training.loop.fit`.
    recipe : Recipe, optional
        Of the training; by default the bundled network's architecture and the brain labels.

    Raises
    ------
    ValueError
        If the file is no checkpoint, does not tell its step, or fits another network.
    """
    recipe = recipe or Recipe("brain", [Stage(steps=1)])
    content = checkpoint.load(path)
    if not content.get("step"):
        raise ValueError(f"{path} does not tell after how many steps it was saved")
    network = build(**recipe.network)
    try:
        network.load_state_dict(checkpoint.weights(content))
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit the network of the recipe {recipe.name!r}") from error
    card = {"name": recipe.name, **inference_settings(recipe)}
    model = Model(fold_batch_norm(network), card_labels(recipe), str(path), card)
    return model, content["step"]

"""Calibrate quality scores: segment synthetic scans, whole and spoiled, and learn what a good result looks like."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch

from synthseg_slicer import quality as judging
from synthseg_slicer.calibration import FEATURES, WIDEST, Calibration
from synthseg_slicer.pipeline import Segmentation, segment
from synthseg_slicer.predict import TopPosteriors
from synthseg_slicer.scan import Scan
from synthseg_slicer.weights import Model
from synthseg_training.evaluation.metrics import dice
from synthseg_training.generation import Generator, GeneratorConfig
from synthseg_training.labelmaps import LabelMapSet
from synthseg_training.training.loop import stage_config
from synthseg_training.training.recipe import Recipe

SPOILED = ("cropped", "noise", "upside down", "turned", "wrong organ")
"""Ways to spoil a scan: part of the head missing, noise over everything, wrong headers, blobs that are no head."""
SHARE_SPOILED = 0.3
COVERAGE = 0.9
RIDGE = 1.0
FOLDS = 5


def calibrate(
    model: Model,
    recipe: Recipe,
    maps: LabelMapSet,
    *,
    samples: int = 150,
    crop: int = 160,
    seed: int = 0,
    report: Callable[[str], None] = print,
) -> tuple[Calibration, pd.DataFrame]:
    """Make the calibration of a model.

    Parameters
    ----------
    model : Model
        With its experts.
    recipe : Recipe
        Whose last stage's generative model draws the scans.
    maps : LabelMapSet
        Label maps; every second scan is drawn from one that the recipe holds out, if there are any.
    samples, crop : int
        Number of scans and their edge in voxels.
    seed : int
        Of everything random.
    report : callable
        Receives a line now and then.

    Returns
    -------
    Calibration
    DataFrame
        One row a scan and structure: ``sample, map, kind, label, dice, expected, inside`` and the volumes;
        ``expected``, and whether the true volume lies inside the interval, by a calibration that saw no scan of that
        label map (five folds).
    """
    config = dataclasses.replace(stage_config(recipe, recipe.stages[-1]), crop=crop)
    held_out = [name for name in recipe.held_out if name in maps.names]
    trained = [name for name in maps.names if name not in held_out]
    generators = {name: Generator(maps.subset([name]), config) for name in maps.names}
    ids = [label for label in model.ids if label not in (0, 24)]
    frame, values = [], []
    blank = _blank(model, ids, _anatomy(maps, config, ids), maps.voxel_size**3)
    draw, chance = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    for sample in range(samples):
        turn, unseen = divmod(sample, 2) if held_out and trained else (sample, bool(held_out))
        names = held_out if unseen else trained
        name = names[turn % len(names)]
        image, target = generators[name].sample(draw)
        kind = str(chance.choice(SPOILED)) if chance.random() < SHARE_SPOILED else "whole"
        data, truth = spoil(image[0].numpy(), np.array(model.ids)[target.numpy()], kind, chance)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = segment(Scan(data, np.eye(4)), model=model, fast=True)
        frame += [{"sample": sample, "map": name, "kind": kind, **row} for row in _rows(result, truth, ids)]
        values.append(judging.features(result.top, 1.0, blank)[0])
        if (sample + 1) % 25 == 0 or sample + 1 == samples:
            report(f"{sample + 1} of {samples} scans")
    table, values = pd.DataFrame(frame), np.concatenate(values)
    table["expected"], table["inside"] = np.nan, False
    several = table["map"].nunique() > 1
    folds = (table["map"].map(maps.names.index) if several else table["sample"]).to_numpy() % FOLDS
    for fold in np.unique(folds):
        test = folds == fold
        part = _fit(blank, table[~test], values[~test])
        table.loc[test, "expected"] = _expected(part, table[test], values[test])
        table.loc[test, "inside"] = _inside(part, table[test])
    calibration = _fit(blank, table, values)
    whole = table[(table["kind"] == "whole") & (table["volume"] > 0) & (table["true"] > 0)]
    facts = {
        "samples": samples,
        "spoiled": int((table.groupby("sample")["kind"].first() != "whole").sum()),
        "recipe": recipe.name,
        "mean_absolute_error": float((table["dice"] - table["expected"]).abs().mean()),
        "rank_correlation": float(table["dice"].corr(table["expected"], method="spearman")),
        "coverage": float(whole["inside"].mean()),
    }
    return dataclasses.replace(calibration, facts=facts), table


def spoil(image: np.ndarray, labels: np.ndarray, kind: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a spoiled copy of an image ``[x, y, z]`` in [0, 1] and of its label map.

    Parameters
    ----------
    kind : str
        ``whole`` for none of :data:`SPOILED`.
    """
    axis = int(rng.integers(3))
    if kind == "cropped":
        keep = int(image.shape[axis] * rng.uniform(0.35, 0.65))
        part = slice(0, keep) if rng.random() < 0.5 else slice(-keep, None)
        cut = tuple(part if a == axis else slice(None) for a in range(3))
        image, labels = image[cut], labels[cut]
    elif kind == "noise":
        image = np.abs(image + rng.normal(0, rng.uniform(0.2, 1.0), image.shape))
    elif kind == "upside down":
        image, labels = np.flip(image, 2), np.flip(labels, 2)
    elif kind == "turned":
        order = [(0, 2, 1), (1, 0, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1)][rng.integers(5)]
        image, labels = image.transpose(order), labels.transpose(order)
    elif kind == "wrong organ":
        image, labels = blobs(image.shape, rng), np.zeros_like(labels)
    return np.ascontiguousarray(image, np.float32), np.ascontiguousarray(labels)


def blobs(shape: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    """Return an image of bright ellipsoids within a large one: a body part, but not a head."""
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"), -1).astype(np.float32)
    image = rng.normal(0.02, 0.01, shape).astype(np.float32)
    for number in range(int(rng.integers(4, 14))):
        centre = rng.uniform(-0.5, 0.5, 3) * (number > 0)
        radius = rng.uniform(0.6, 0.95, 3) if number == 0 else rng.uniform(0.08, 0.4, 3)
        inside = (((grid - centre) / radius) ** 2).sum(-1) < 1
        image[inside] = rng.uniform(0.1, 1) + rng.normal(0, 0.03, int(inside.sum()))
    return np.clip(image, 0, None)


def _rows(result: Segmentation, truth: np.ndarray, ids: list[int]) -> list[dict]:
    rows = []
    for label in ids:
        found, true = result.labels == label, truth == label
        overlap = dice(found, true) if found.any() or true.any() else 0.0
        rows.append({"label": label, "dice": overlap, "volume": result.volumes[label], "true": int(true.sum())})
    return rows


def _anatomy(maps: LabelMapSet, config: GeneratorConfig, ids: list[int]) -> list[judging.Shape]:
    """Return size and place of the structures in the label maps themselves."""
    output, shapes = config.output_ids, []
    table = config.anatomy.target_table(maps.labels)
    for label_map in maps.maps:
        channels = table[label_map.long()].numpy()
        one = np.ones((1, *channels.shape), np.float16)
        top = TopPosteriors(channels[None], one, tuple(slice(0, n) for n in channels.shape), channels.shape, output)
        shapes.append(judging.describe(top, ids))
    return shapes


def _blank(model: Model, ids: list[int], shapes: list[judging.Shape], voxel_volume: float) -> Calibration:
    """Return a calibration that knows anatomy but no quality. Deformations widen what the maps show by a tenth."""
    share = np.log([np.maximum(shape.share, 1e-6) for shape in shapes])
    place = np.array([shape.place for shape in shapes])
    brain = np.log([shape.brain * voxel_volume for shape in shapes])
    weights = model.all_sha256
    none = [0.0] * len(ids)
    return Calibration(
        weights,
        ids,
        share.mean(0).tolist(),
        np.hypot(share.std(0), 0.1).tolist(),
        place.mean(0).tolist(),
        np.hypot(place.std(0), 0.1).tolist(),
        float(brain.mean()),
        float(np.hypot(brain.std(), 0.2)),
        [0.0] * len(FEATURES),
        none,
        none,
        [0.0] * (len(ids) + 1),
        {},
    )


def _fit(blank: Calibration, table: pd.DataFrame, values: np.ndarray) -> Calibration:
    """Return the calibration with a ridge regression of Dice, an intercept a structure, and the spread of volumes."""
    own = (table["label"].to_numpy()[:, None] == np.array(blank.ids)).astype(float)
    design = np.hstack([values, own])
    penalty = RIDGE * np.eye(design.shape[1])
    solution = np.linalg.solve(design.T @ design + penalty, design.T @ table["dice"].to_numpy())
    count = len(FEATURES)
    fitted = dataclasses.replace(blank, coefficients=solution[:count].tolist(), intercepts=solution[count:].tolist())
    table = table.assign(expected=_expected(fitted, table, values))
    whole = table[table["kind"] == "whole"]
    total = whole.groupby("sample").agg({"volume": "sum", "true": "sum", "expected": "mean"})
    groups = [whole[whole["label"] == label] for label in blank.ids]
    return dataclasses.replace(
        fitted,
        usual=[float(group["dice"].mean()) for group in groups],
        spread=[_spread(group) for group in (*groups, total)],
    )


def _order(calibration: Calibration, table: pd.DataFrame) -> np.ndarray:
    return table["label"].map({label: i for i, label in enumerate(calibration.ids)}).to_numpy()


def _inside(calibration: Calibration, table: pd.DataFrame) -> np.ndarray:
    """Return which true volumes lie inside the interval of their row."""
    width = np.array(calibration.spread)[_order(calibration, table)] * (1.05 - table["expected"])
    with np.errstate(divide="ignore", invalid="ignore"):
        return (np.abs(np.log(table["volume"] / table["true"])) <= np.minimum(width, WIDEST)).to_numpy()


def _expected(calibration: Calibration, table: pd.DataFrame, values: np.ndarray) -> np.ndarray:
    raw = values @ np.array(calibration.coefficients) + np.array(calibration.intercepts)[_order(calibration, table)]
    return np.where((table["volume"] > 0).to_numpy(), np.clip(raw, 0, 1), 0)


def _spread(group: pd.DataFrame) -> float:
    """Return the quantile of volume errors in logarithms over 1.05 - expected Dice that covers nine cases of ten."""
    some = group[(group["volume"] > 0) & (group["true"] > 0)]
    if not len(some):
        return 0.0
    return float(np.quantile(np.abs(np.log(some["volume"] / some["true"])) / (1.05 - some["expected"]), COVERAGE))

"""``synthseg-train experiment``: from options to the page of an experiment."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from synthseg_slicer.errors import OptionError
from synthseg_slicer.weights import Model, load_model

from .dataset import Case, load_dataset
from .ledger import Ledger, file_digest
from .methods import MapFolder, Network, parse_folders, parse_networks
from .report import Page
from .scoring import structures_of


def run(options: argparse.Namespace) -> Path:
    """Run an experiment, or go on with it, and return its page.

    Raises
    ------
    ScanError, WeightsError, OptionError, OutputError, DeviceError, Cancelled, ValueError
        In one line, with the file and the cure.
    """
    if options.threads:
        torch.set_num_threads(options.threads)
    return RUNNERS[options.experiment](options).save(options.command)


def say(line: str) -> None:
    """Print a line at once, also into a file."""
    print(line, flush=True)


def _cases(options: argparse.Namespace, kind: str = "anatomy") -> list[Case]:
    return load_dataset(options.scans, kind=kind, names=options.names, desc=options.desc, convention=options.convention)


def _networks(options: argparse.Namespace) -> list[Network]:
    settings = {"fast": options.fast, "refined": options.refine, "contrast": options.contrast, "device": options.device}
    return [Network(name, model, **settings) for name, model in parse_networks(options.model).items()]


def _resolution(options: argparse.Namespace) -> Page:
    from . import resolution

    networks = _networks(options)
    if len(networks) > 1:
        raise OptionError("The experiment takes one --model; run it again with another folder for the next.")
    return resolution.run(
        options.output,
        _cases(options),
        networks[0],
        spacings=options.spacings,
        pair=options.pairs,
        report=say,
    )


def _contrast(options: argparse.Namespace) -> Page:
    from . import contrast

    cases, folders = _cases(options), parse_folders(options.method)
    networks = [] if options.only_methods else _networks(options)
    if twice := {one.name for one in networks} & {one.name for one in folders}:
        raise OptionError(f"Two methods are called {', '.join(sorted(twice))}. Name them apart.")
    if not networks and not folders:
        raise OptionError("Nothing to compare: give --method NAME=FOLDER, or leave out --only-methods.")
    methods = [*networks, *folders]
    return contrast.run(
        options.output,
        cases,
        methods,
        common_structures(methods),
        pair=options.pairs,
        report=say,
    )


def common_structures(methods: Sequence[Network | MapFolder]) -> dict[int, str]:
    """Return the structures (id to name) that all methods segment.

    Raises
    ------
    OptionError
        There is none.
    """
    first, *others = (structures_of(method.names) for method in methods)
    common = {label: name for label, name in first.items() if all(label in own for own in others)}
    if not common:
        raise OptionError("The methods have no structure in common. Are they of one anatomy?")
    return common


def _anatomy_recipe(options: argparse.Namespace):
    """Return the recipe with its options, shortened to the budget."""
    from synthseg_training.training.recipe import load_recipe

    from .arms import with_steps

    recipe = with_steps(load_recipe(options.recipe, options.set), options.steps)
    if recipe.task != "anatomy":
        raise OptionError(f"{options.recipe}: is of the task {recipe.task}; this experiment is about anatomy.")
    return recipe


def _bench(options: argparse.Namespace, kind: str):
    """Return recipe, label maps, test scans and what trains and scores, with the settings written down."""
    from synthseg_training.labelmaps import LabelMapSet

    from .synthetic import write_scans
    from .trainings import Bench

    recipe = _anatomy_recipe(options)
    maps = LabelMapSet.load(options.maps)
    test = {
        "number": options.synthetic_scans,
        "contrasts": options.synthetic_contrasts,
        "crop": options.synthetic_crop,
    }
    settings = {"experiment": kind, "recipe": asdict(recipe), "maps": file_digest(options.maps)}
    settings |= {"max_minutes": str(options.max_minutes), "fast": options.fast, "sd95": not options.no_sd95}
    ledger = Ledger(options.output, settings | ({} if options.scans else {"synthetic": test}))
    bench = Bench(
        ledger,
        max_minutes=options.max_minutes,
        device=options.device,
        fast=options.fast,
        distances=not options.no_sd95,
        report=say,
    )
    if not options.scans:
        table = write_scans(options.output / "scans", recipe, maps, **test)
        options = argparse.Namespace(**{**vars(options), "scans": table})
    return recipe, maps, _cases(options), bench


def _sources(options: argparse.Namespace) -> dict[str, str]:
    """Return what the networks were trained by and on."""
    return {"recipe": str(options.recipe), "label maps": f"{options.maps}, SHA-256 {file_digest(options.maps)}"}


def _ablation(options: argparse.Namespace) -> Page:
    from . import ablation
    from .arms import check_kinds

    check_kinds(options.arms)  # before anything is written
    recipe, maps, cases, bench = _bench(options, "ablation")
    page = ablation.run(bench, recipe, maps, cases, kinds=options.arms, seeds=options.seeds, contrast=options.contrast)
    page.facts |= _sources(options)
    return page


def _maps(options: argparse.Namespace) -> Page:
    from . import maps as number_of_maps

    recipe, maps, cases, bench = _bench(options, "maps")
    page = number_of_maps.run(bench, recipe, maps, cases, numbers=options.numbers, seeds=options.seeds)
    page.facts |= _sources(options)
    return page


def _heart(options: argparse.Namespace) -> Page:
    if bool(options.recipe) == bool(options.model):
        raise OptionError("Give either a recipe to train by, or --model FILE.pt, weights that are trained already.")
    if options.phantoms and (options.train or options.scans):
        raise OptionError("Give either --phantoms, or --scans and what to train on by --train.")
    if not options.phantoms and (not options.scans or bool(options.train) == bool(options.model)):
        raise OptionError(
            "Give test scans by --scans and, unless there is a --model, training scans by --train; or --phantoms N M."
        )
    if options.phantoms and (options.phantoms[0] == 0) != bool(options.model):
        raise OptionError("--phantoms N M: N thoraxes are to train on, at least 1; with --model 0.")
    return _given_heart(options) if options.model else _trained_heart(options)


def _given_heart(options: argparse.Namespace) -> Page:
    """Test weights that are trained already."""
    from . import heart

    model = load_model(path=options.model)
    phantoms = _thoraxes(options, model.voxel_size)
    cases = [] if phantoms else _cases(options)
    settings = {"weights": model.sha256, "phantoms": phantoms and asdict(phantoms)}
    ledger = Ledger(options.output, {"experiment": "heart", "sd95": not options.no_sd95, **settings})
    if phantoms:
        cases = load_dataset(phantoms.write(ledger)[1], names=options.names)
    page = _tested_heart(options, ledger, model, cases)
    heart.describe(page, model, options.model)
    return page


def _trained_heart(options: argparse.Namespace) -> Page:
    """Subdivide, train, and test."""
    from synthseg_training.heart.subdivide import Subdivision

    from . import heart, heart_data
    from .trainings import Bench, Training

    recipe = _anatomy_recipe(options)
    size = options.voxel_size or recipe.stages[-1].voxel_size
    split = Subdivision(options.regions, tuple(options.background), options.versions, size, options.seed)
    phantoms = _thoraxes(options, size)
    settings = {"experiment": "heart", "recipe": asdict(recipe), "subdivision": asdict(split)}
    settings |= {"max_minutes": str(options.max_minutes), "sd95": not options.no_sd95}
    if phantoms:
        origin = {"source": options.source or heart_data.SOURCE, "licence": options.licence}
        ledger = Ledger(options.output, settings | {"phantoms": asdict(phantoms)} | origin)
        data, table = phantoms.write(ledger)
        training, cases = load_dataset(data), load_dataset(table, names=options.names)
    else:
        data, origin = options.train, {"source": options.source, "licence": options.licence}
        training, cases = load_dataset(data), _cases(options)
        heart_data.check_apart(recipe, training, cases, split.versions)
        scans = {case.name: [file_digest(case.image), file_digest(case.reference)] for case in training}
        ledger = Ledger(options.output, settings | {"training": scans} | origin)
    maps = heart_data.make_maps(ledger, data, split, report=say, **origin)
    heart_data.check_structures(recipe, maps, options.recipe)
    bench = Bench(ledger, max_minutes=options.max_minutes, device=options.device, report=say)
    trained = bench.train(Training(recipe.name, 0, recipe, maps))
    weights = options.output / trained["weights"]
    model = load_model(path=weights)
    page = _tested_heart(options, ledger, model, cases)
    heart.describe(page, model, weights)
    heart.show_training(page, recipe, maps, training, model, trained)
    page.facts |= {"recipe": str(options.recipe), "training scans": str(data)}
    return page


def _thoraxes(options: argparse.Namespace, voxel_size: float):
    """Return the phantoms that are asked for, or None."""
    from .heart_data import Phantoms

    if not options.phantoms:
        return None
    size = options.voxel_size or voxel_size
    return Phantoms(*options.phantoms, tuple(options.phantom_contrasts), size, options.seed)


def _tested_heart(options: argparse.Namespace, ledger: Ledger, model: Model, cases: Sequence[Case]) -> Page:
    from . import heart

    settings = {"fast": options.fast, "refined": options.refine, "device": options.device}
    return heart.run(ledger, model, cases, distances=not options.no_sd95, report=say, **settings)


def _stroke(options: argparse.Namespace) -> Page:
    from . import stroke

    if bool(options.scans) == bool(options.recipe and options.maps):
        raise OptionError("Give either --scans with lesion masks, or --recipe and --maps for synthetic patients.")
    models = parse_networks(options.model, task="stroke", default="qSynth")
    if options.scans:
        cases = _cases(options, "lesion")
        settings = {"flips": options.flips, "cleaned": options.cleaned, "device": options.device}
        methods = [stroke.LesionNetwork(name, model, **settings) for name, model in models.items()]
        methods += [stroke.LesionFolder(folder) for folder in parse_folders(options.method)]
        ledger = Ledger(options.output, {"experiment": "stroke", "patients": "scans"})
        table = stroke.on_scans(ledger, cases, methods, ensemble=options.ensemble, report=say)
        what = f"{len(cases)} scans with lesion masks."
    else:
        table = _on_patients(options, models)
        what = f"{options.patients} synthetic patients of held-out label maps, each scanned with several sequences."
    page = stroke.page(options.output, table, what)
    page.facts["weights"] = {name: model.sha256 for name, model in models.items()}
    return page


def _on_patients(options: argparse.Namespace, models: dict):
    from synthseg_training.labelmaps import LabelMapSet
    from synthseg_training.training.loop import stage_config
    from synthseg_training.training.recipe import load_recipe

    from . import stroke

    recipe, maps = load_recipe(options.recipe, options.set), LabelMapSet.load(options.maps)
    held_out = [name for name in recipe.held_out if name in maps.names]
    if recipe.task != "stroke" or not held_out:
        raise OptionError(f"{options.recipe}: patients need a recipe of the task stroke, and its held-out label maps.")
    stage = recipe.stages[-1]
    config = replace(stage_config(recipe, stage, stage.steps), crop=options.crop)
    drawn = {
        "seed": options.seed,
        "flips": options.flips or 2,
        "smallest_ml": options.smallest,
        "cleaned": options.cleaned,
    }
    settings = {
        "experiment": "stroke",
        "patients": "synthetic",
        "recipe": asdict(recipe),
        "crop": options.crop,
        **drawn,
    }
    ledger = Ledger(options.output, settings | {"maps": file_digest(options.maps)})
    return stroke.on_patients(
        ledger,
        models,
        maps.subset(held_out),
        config,
        patients=options.patients,
        device="cpu" if options.device == "auto" else options.device,
        report=say,
        **drawn,
    )


def _group(options: argparse.Namespace) -> Page:
    from . import group

    volumes: dict[str, Path] = {}
    for text in options.volumes:
        name, separator, path = text.partition("=")
        name, path = (name, Path(path)) if separator else (Path(text).stem, Path(text))
        if name in volumes:
            raise OptionError(f"Two tables are called {name}. Name them apart: NAME=VOLUMES.csv.")
        volumes[name] = path
    page = group.run(
        options.output,
        volumes,
        options.participants,
        groups=tuple(options.groups),
        covariates=options.covariates,
        intracranial=options.intracranial or None,
        structures=options.structures,
        sum_sides=options.sum_sides,
    )
    page.facts["tables"] = {str(path): file_digest(path) for path in (*volumes.values(), options.participants)}
    return page


RUNNERS = {
    "resolution": _resolution,
    "contrast": _contrast,
    "ablation": _ablation,
    "maps": _maps,
    "heart": _heart,
    "stroke": _stroke,
    "group": _group,
}

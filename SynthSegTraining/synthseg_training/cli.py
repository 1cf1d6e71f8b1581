"""Command line of the training package, ``synthseg-train``: label maps, training, evaluation, export."""

from __future__ import annotations

import argparse
import json
import math
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from synthseg_slicer.allocation import keep_freed_memory
from synthseg_slicer.errors import SynthSegError
from synthseg_training.experiments.options import add_experiments


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns
    -------
    int
        0, or 2 after an error that was reported in one line.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    options = _parser().parse_args(arguments)
    options.command = shlex.join(["synthseg-train", *map(str, arguments)])
    keep_freed_memory()
    try:
        options.run(options)
    except (SynthSegError, ValueError, OSError, FloatingPointError) as error:
        print(f"synthseg-train: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="synthseg-train", description="Train SynthSeg networks on synthetic scans.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    prepare = commands.add_parser("prepare", help="pack a folder of label maps into one file to train from")
    prepare.add_argument("folder", type=Path, help="label maps (NIfTI or MGZ), isotropic")
    prepare.add_argument("-o", "--output", type=Path, required=True, help="the .npz to write")
    prepare.add_argument("--source", default="", help="where the maps come from, for the model card")
    prepare.add_argument("--licence", default="", help="their licence, for the model card")
    prepare.set_defaults(run=_prepare)

    subdivide = commands.add_parser(
        "subdivide", help="like prepare, for scans with a few structures drawn: split all else by its intensities"
    )
    subdivide.add_argument(
        "data", type=Path, help="folder (NAME_image.nii.gz, NAME_dseg.nii.gz), BIDS dataset or table of scans"
    )
    subdivide.add_argument("-o", "--output", type=Path, required=True, help="the .npz to write")
    subdivide.add_argument("--voxel-size", type=float, default=1.0, help="mm, to which scans and labels are resampled")
    subdivide.add_argument("--versions", type=int, default=4, help="maps a scan, with different backgrounds")
    subdivide.add_argument("--regions", type=int, default=2, help="of each structure")
    subdivide.add_argument(
        "--background", type=int, nargs=2, default=(3, 10), metavar=("LEAST", "MOST"), help="regions of the background"
    )
    subdivide.add_argument("--seed", type=int, default=0)
    subdivide.add_argument("--source", default="", help="where the scans come from, for the model card")
    subdivide.add_argument("--licence", default="", help="their licence, for the model card")
    subdivide.set_defaults(run=_subdivide)

    phantom = commands.add_parser(
        "phantom", help="write procedural phantoms: heads as label maps, thoraxes with images; train without any data"
    )
    phantom.add_argument("folder", type=Path)
    phantom.add_argument("--kind", choices=("head", "thorax"), default="head")
    phantom.add_argument(
        "--contrasts",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="thorax: images to draw, of mr (default), ct, darkblood",
    )
    phantom.add_argument("-n", "--number", type=int, default=5)
    phantom.add_argument("--seed", type=int, default=0)
    phantom.add_argument("--voxel-size", type=float, default=1.0, help="mm")
    phantom.set_defaults(run=_phantom)

    generate = commands.add_parser("generate", help="draw samples: a PNG sheet with contours, and NIfTI files if asked")
    _recipe_arguments(generate)
    generate.add_argument("-o", "--output", type=Path, required=True, help="folder for sheet.png and the samples")
    generate.add_argument("-n", "--number", type=int, default=12, help="samples on the sheet")
    generate.add_argument(
        "--volumes", type=int, default=0, help="samples to write as NIfTI images with their label maps"
    )
    generate.add_argument("--seed", type=int, default=0)
    generate.add_argument(
        "--stage", type=int, default=-1, help="stage of the recipe whose settings to use; last by default"
    )
    generate.set_defaults(run=_generate)

    fit = commands.add_parser("fit", help="train; the same command goes on where it was stopped")
    _recipe_arguments(fit, required=False)
    fit.add_argument("-o", "--output", type=Path, required=True, help="folder for checkpoints and learning curves")
    fit.add_argument(
        "--resume", type=Path, help="checkpoint or weights file to begin from (such as the bundled brain.pt)"
    )
    fit.add_argument("--start-step", type=int, help="step of the recipe at which to begin")
    fit.add_argument("--max-minutes", type=float, default=math.inf, help="stop and save after this time")
    fit.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    fit.add_argument("--compile", action="store_true", help="compile the network")
    fit.add_argument("--threads", type=int, help="CPU threads")
    fit.add_argument("--keep-every", type=int, help="keep the weights of every so many steps, for a learning curve")
    fit.set_defaults(run=_fit)

    evaluate = commands.add_parser("evaluate", help="Dice and SD95 on real scans (NAME_image.nii.gz, NAME_dseg.nii.gz)")
    evaluate.add_argument("folder", type=Path)
    evaluate.add_argument("-o", "--output", type=Path, required=True, help="folder for tables")
    evaluate.add_argument("--model", type=Path, help="weights file; the bundled ones by default")
    evaluate.add_argument("--names", nargs="+", action="extend", default=[], help="only these scans")
    evaluate.add_argument("--fast", action="store_true", help="one pass instead of the mean of both flips")
    evaluate.add_argument("--device", default="auto")
    evaluate.add_argument("--no-sd95", action="store_true", help="leave out surface distances")
    evaluate.add_argument("--keep", type=Path, help="folder for the segmentations")
    evaluate.add_argument(
        "--slices",
        nargs="+",
        action="extend",
        type=float,
        default=[],
        metavar="MM",
        help="simulate slices so thick, in every direction",
    )
    evaluate.add_argument("--slices-names", nargs="+", action="extend", default=[], help="only from these scans")
    evaluate.add_argument(
        "--rescan", nargs=2, action="append", default=[], metavar="NAME", help="two scans of one subject"
    )
    evaluate.add_argument("--bars", type=Path, help="YAML file of what the weights ought to reach")
    evaluate.set_defaults(run=_evaluate)

    sequences = commands.add_parser("sequences", help="a synthetic patient in four sequences over their times, as PNG")
    _recipe_arguments(sequences)
    sequences.add_argument("-o", "--output", type=Path, required=True, help="PNG to write")
    sequences.add_argument("--seed", type=int, default=0)
    sequences.set_defaults(run=_sequences)

    trial = commands.add_parser("trial", help="lesion scores on synthetic patients of the held-out label maps")
    _recipe_arguments(trial)
    trial.add_argument("models", type=Path, nargs="+", help="weights of the stroke task, compared on the same patients")
    trial.add_argument("-o", "--output", type=Path, required=True, help="folder for tables")
    trial.add_argument("-n", "--number", type=int, default=20, help="patients")
    trial.add_argument("--crop", type=int, default=160, help="edge of the scans in voxels")
    trial.add_argument("--smallest", type=float, default=5.0, metavar="ML", help="least lesion volume of a patient")
    trial.add_argument("--flips", type=int, default=2, choices=(1, 2, 8), help="passes a scan")
    trial.add_argument(
        "--cleaned", action="store_true", help="drop what the extension drops: uncertain lesions, specks"
    )
    trial.add_argument(
        "--base", action="store_true", help="patients of the recipe's own settings, without what its last stage adds"
    )
    trial.add_argument("--seed", type=int, default=1)
    trial.add_argument("--device", default="cpu")
    trial.set_defaults(run=_trial)

    curve = commands.add_parser("curve", help="learning curve: Dice on real scans of several snapshots of one training")
    curve.add_argument("folder", type=Path, help="scans, as for evaluate")
    curve.add_argument(
        "snapshots", type=Path, nargs="+", help="weights-STEP.pt of fit --keep-every, weights.pt, last.pt"
    )
    curve.add_argument("-o", "--output", type=Path, required=True, help="folder for curve.csv and curve.png")
    curve.add_argument("--recipe", type=Path, help="of the training, if not the bundled network and brain labels")
    curve.add_argument("--names", nargs="+", action="extend", default=[], help="only these scans")
    curve.add_argument("--fast", action="store_true", help="one pass instead of the mean of both flips")
    curve.add_argument("--device", default="auto")
    curve.set_defaults(run=_curve)

    calibrate = commands.add_parser("calibrate", help="calibrate the quality scores of weights on synthetic scans")
    _recipe_arguments(calibrate)
    calibrate.add_argument("model", type=Path, help="NAME.pt, its experts beside it")
    calibrate.add_argument("-o", "--output", type=Path, help="NAME-quality.json beside the weights by default")
    calibrate.add_argument("-n", "--number", type=int, default=150, help="synthetic scans")
    calibrate.add_argument("--crop", type=int, default=160, help="their edge in voxels")
    calibrate.add_argument("--table", type=Path, help="CSV of every scan and structure to write")
    calibrate.set_defaults(run=_calibrate)

    rescan = commands.add_parser("rescan", help="measure how far volumes of one head differ from scan to scan")
    rescan.add_argument("folder", type=Path, help="scans, named NAME_image.nii.gz")
    rescan.add_argument(
        "--names", nargs="+", action="extend", default=[], metavar="NAME", help="scans to simulate two visits of, each"
    )
    rescan.add_argument(
        "--rescan", nargs=2, action="append", default=[], metavar="NAME", help="two scans of one subject"
    )
    rescan.add_argument("--model", type=Path, help="NAME.pt, its experts beside it; default: the bundled weights")
    rescan.add_argument("-o", "--output", type=Path, help="NAME-rescan.json beside the weights by default")
    rescan.add_argument("--table", type=Path, help="CSV of every pair and structure to write")
    rescan.add_argument("--seed", type=int, default=0, help="of the simulated visits")
    rescan.set_defaults(run=_rescan)

    estimator = commands.add_parser("fit-estimator", help="train the estimator of quantitative maps (qATLAS)")
    _recipe_arguments(estimator, maps="label maps packed by 'prepare', or a folder of quantitative map sets")
    estimator.add_argument("-o", "--output", type=Path, required=True, help="folder for estimator.pt and curves.csv")
    estimator.add_argument("--resume", type=Path, help="last.pt or estimator.pt to begin from")
    estimator.add_argument("--max-minutes", type=float, default=math.inf, help="stop and save after this time")
    estimator.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    estimator.add_argument("--threads", type=int, help="CPU threads")
    estimator.set_defaults(run=_fit_estimator)

    estimate = commands.add_parser("estimate-maps", help="quantitative maps of MPRAGE scans, as files named after BIDS")
    estimate.add_argument("scans", type=Path, nargs="+", help="scan files")
    estimate.add_argument("--model", type=Path, required=True, help="estimator.pt of fit-estimator")
    estimate.add_argument("-o", "--output", type=Path, required=True, help="folder for NAME_PDmap.nii.gz and so on")
    estimate.add_argument("--window", type=int, help="edge of the windows in voxels; that of training, at least 128")
    estimate.add_argument("--overlap", type=float, default=0.5, help="share that neighbouring windows have in common")
    estimate.add_argument("--device", default="auto")
    estimate.set_defaults(run=_estimate_maps)

    export = commands.add_parser("export", help="write a checkpoint's averaged weights with their card")
    _recipe_arguments(export, required=False)
    export.add_argument("checkpoint", type=Path)
    export.add_argument("-o", "--output", type=Path, required=True, help="NAME.pt to write")
    export.add_argument("--norm-samples", type=int, default=0, help="samples to re-estimate batch normalisation over")
    export.add_argument("--facts", type=Path, help="JSON file with more entries for the card")
    export.set_defaults(run=_export)

    experiment = commands.add_parser("experiment", help="the papers' experiments, each ending in a report page")
    add_experiments(experiment, _recipe_arguments)
    experiment.set_defaults(run=_experiment)
    return parser


def _recipe_arguments(
    parser: argparse.ArgumentParser, maps: str = "label maps packed by 'prepare'", required: bool = True
) -> None:
    parser.add_argument("recipe", type=Path, help="recipe file (YAML or JSON), see SynthSegTraining/recipes")
    if not required:
        maps += "; not needed for a recipe whose samples all come from its folder of data (data.share 1)"
    parser.add_argument("--maps", type=Path, required=required, help=maps)
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="change settings, for example stages.0.steps=100",
    )


# Imports are local: 'fit' must run on a bare machine without nibabel, pandas or matplotlib, and --help at once.


def _prepare(options: argparse.Namespace) -> None:
    from synthseg_training.labelmaps import prepare

    maps = prepare(options.folder, options.output, source=options.source, licence=options.licence)
    size = options.output.stat().st_size / 1e6
    print(
        f"{len(maps)} maps with {len(maps.labels)} labels at {maps.voxel_size:g} mm: {options.output} ({size:.1f} MB)"
    )


def _subdivide(options: argparse.Namespace) -> None:
    from synthseg_training.heart.subdivide import Subdivision, output_of, subdivide

    settings = Subdivision(
        options.regions, tuple(options.background), options.versions, options.voxel_size, options.seed
    )
    maps = subdivide(
        options.data,
        options.output,
        settings,
        source=options.source,
        licence=options.licence,
        report=lambda line: print(line, flush=True),
    )
    print(f"{len(maps)} maps with {len(maps.labels)} labels at {maps.voxel_size:g} mm: {options.output}")
    regions = ", ".join(f"{label}: {structure}" for label, structure in output_of(maps.labels).items())
    print(f"In the recipe: generator.anatomy.output: {{{regions}}}")


def _phantom(options: argparse.Namespace) -> None:
    settings = {"seed": options.seed, "voxel_size": options.voxel_size}
    if options.kind == "thorax":
        from synthseg_training.heart.phantom import write_thoraxes

        paths = write_thoraxes(options.folder, options.number, contrasts=options.contrasts or ("mr",), **settings)
    elif options.contrasts:
        raise ValueError("--contrasts: heads are label maps only. Add --kind thorax, or leave it out.")
    else:
        from synthseg_training.phantom import write_phantoms

        paths = write_phantoms(options.folder, options.number, **settings)
    for path in paths:
        print(path)


def _generate(options: argparse.Namespace) -> None:
    import numpy as np
    import torch

    from synthseg_slicer.scan import write_volume
    from synthseg_training.sheet import write_sheet
    from synthseg_training.training.loop import make_generator, stage_config

    recipe, maps = _load(options)
    stage = recipe.stages[options.stage]
    generator = make_generator(maps, stage_config(recipe, stage, stage.steps))
    options.output.mkdir(parents=True, exist_ok=True)
    sheet = options.output / "sheet.png"
    write_sheet(sheet, generator, count=options.number, seed=options.seed)
    print(sheet)
    rng = torch.Generator().manual_seed(options.seed)
    affine = np.diag([stage.voxel_size] * 3 + [1.0])
    ids = np.array(generator.config.output_ids, np.int16)
    for index in range(options.volumes):
        image, target = generator.sample(rng)
        write_volume(options.output / f"sample-{index:03d}_image.nii.gz", image[0].numpy(), affine)
        write_volume(options.output / f"sample-{index:03d}_dseg.nii.gz", ids[target.numpy()], affine)
        print(options.output / f"sample-{index:03d}_image.nii.gz")


def _fit(options: argparse.Namespace) -> None:
    import torch

    from synthseg_training.training.loop import fit

    if options.threads:
        torch.set_num_threads(options.threads)
    _save_when_stopped()
    recipe, maps = _load(options)
    checkpoint = fit(
        recipe,
        maps,
        options.output,
        resume=options.resume,
        start_step=options.start_step,
        max_minutes=options.max_minutes,
        device=options.device,
        compile=options.compile,
        keep_every=options.keep_every,
    )
    print(checkpoint)


def _save_when_stopped() -> None:
    """Let SIGTERM, by which schedulers and 'kill' end a job, save first as Ctrl+C does (also where that is ignored)."""
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop, signal.default_int_handler)


def _fit_estimator(options: argparse.Namespace) -> None:
    import torch

    from synthseg_training.estimation import fit_estimator, load_estimator_recipe
    from synthseg_training.labelmaps import LabelMapSet

    if options.threads:
        torch.set_num_threads(options.threads)
    _save_when_stopped()
    path = fit_estimator(
        load_estimator_recipe(options.recipe, options.set),
        options.maps if options.maps.is_dir() else LabelMapSet.load(options.maps),
        options.output,
        max_minutes=options.max_minutes,
        device=options.device,
        resume=options.resume,
    )
    print(path)


def _estimate_maps(options: argparse.Namespace) -> None:
    from synthseg_training.estimation.predict import estimate_file, load_estimator, map_name
    from synthseg_training.training.distributed import local_device

    estimator = load_estimator(options.model, local_device(options.device))
    names = [map_name(path) for path in options.scans]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"several scans would be written as {', '.join(twice)}; rename them or run them apart")
    options.output.mkdir(parents=True, exist_ok=True)
    for path in options.scans:
        estimate_file(path, estimator, options.output, window=options.window, overlap=options.overlap)
        print(options.output / map_name(path), flush=True)


def _evaluate(options: argparse.Namespace) -> None:
    from synthseg_slicer.weights import load_model
    from synthseg_training.evaluation.bars import load_bars, table
    from synthseg_training.evaluation.scans import evaluate

    bars = load_bars(options.bars) if options.bars else []
    result = evaluate(
        options.folder,
        load_model(path=options.model),
        names=options.names,
        fast=options.fast,
        device=options.device,
        sd95=not options.no_sd95,
        keep=options.keep,
        slices=options.slices,
        slices_names=options.slices_names,
        rescans=[tuple(pair) for pair in options.rescan],
        report=lambda line: print(line, flush=True),
    )
    result.save(options.output)
    print(f"\n{result.summary()}")
    if bars:
        verdict = table(bars, result.measures())
        (options.output / "bars.md").write_text(verdict, encoding="utf-8")
        print(verdict)


def _curve(options: argparse.Namespace) -> None:
    from synthseg_training.evaluation.curve import draw, learning_curve
    from synthseg_training.training.recipe import load_recipe

    curve = learning_curve(
        options.folder,
        options.snapshots,
        recipe=load_recipe(options.recipe) if options.recipe else None,
        names=options.names,
        fast=options.fast,
        device=options.device,
        report=lambda line: print(line, flush=True),
    )
    options.output.mkdir(parents=True, exist_ok=True)
    curve.to_csv(options.output / "curve.csv", index=False)
    print(draw(curve, options.output / "curve.png"))


def _calibrate(options: argparse.Namespace) -> None:
    from synthseg_slicer.files import atomic
    from synthseg_slicer.weights import load_model
    from synthseg_training.calibration import calibrate

    recipe, maps = _load(options)
    model = load_model(path=options.model)
    calibration, table = calibrate(
        model, recipe, maps, samples=options.number, crop=options.crop, report=lambda line: print(line, flush=True)
    )
    path = options.output or options.model.with_name(f"{options.model.stem}-quality.json")
    with atomic(path) as temporary:
        calibration.save(temporary)
    if options.table:
        table.to_csv(options.table, index=False)
    error, rank = (calibration.facts[name] for name in ("mean_absolute_error", "rank_correlation"))
    print(f"{path}: expected Dice off by {error:.3f} on average on unseen synthetic scans, rank correlation {rank:.2f}")


def _rescan(options: argparse.Namespace) -> None:
    from synthseg_slicer.cards import weight_file
    from synthseg_slicer.files import atomic
    from synthseg_slicer.weights import load_model
    from synthseg_training.evaluation.scans import IMAGE_SUFFIX
    from synthseg_training.rescan import fit, measure, named_scans

    path = weight_file("brain", options.model)
    model = load_model(path=path)
    paired = [name for pair in options.rescan for name in pair]
    found = [file.name.removesuffix(IMAGE_SUFFIX) for file in sorted(options.folder.glob(f"*{IMAGE_SUFFIX}"))]
    scans = named_scans(options.folder, options.names or [name for name in found if name not in paired])
    real = named_scans(options.folder, paired)
    pairs = list(zip(real[::2], real[1::2]))
    table = measure(model, scans, pairs, seed=options.seed, report=lambda line: print(line, flush=True))
    if options.table:
        table.to_csv(options.table, index=False)
    coarsest = max(max(scan.voxel_size) for scan in scans)
    command = options.command.replace(str(options.folder), "SCANS")
    facts = {"command": command, "scans": [s.name for s in scans], "real": [[a.name, b.name] for a, b in pairs]}
    noise = fit(table, model, coarsest, facts)
    target = options.output or path.with_name(f"{path.stem}-rescan.json")
    with atomic(target) as temporary:
        noise.save(temporary)
    told = " and ".join(f"{count} {kind}" for kind, count in noise.facts["pairs"].items())
    print(f"{target}: from {told} pairs; real visits add {noise.facts['added_by_real_visits_percent']:.2f} %")


def _sequences(options: argparse.Namespace) -> None:
    import dataclasses

    import torch

    from synthseg_slicer.labels import LESION_ID
    from synthseg_training.physics.sheet import contrast_sheet
    from synthseg_training.training.loop import make_generator, stage_config

    recipe, maps = _load(options)
    if recipe.task != "stroke":
        raise ValueError(f"{options.recipe}: only recipes of the task stroke simulate sequences")
    stage = recipe.stages[-1]
    crop = round(12 / stage.voxel_size) * 16  # 192 mm
    config = dataclasses.replace(stage_config(recipe, stage, stage.steps), crop=crop, stroke_probability=1.0)
    config = dataclasses.replace(config, skull_stripping=dataclasses.replace(config.skull_stripping, probability=0.0))
    generator = make_generator(maps, config)
    parameters = generator.draw(torch.Generator().manual_seed(options.seed))
    quantities, target = generator.quantitative(parameters), generator.tissue(parameters)[1]
    slices = (target == config.output_ids.index(LESION_ID)).sum((0, 1))
    contrast_sheet(quantities, options.output, index=int(slices.argmax()) if slices.any() else None)
    print(options.output)


def _trial(options: argparse.Namespace) -> None:
    import dataclasses

    import pandas as pd

    from synthseg_slicer.weights import load_model
    from synthseg_training.evaluation.lesions import summary, trial
    from synthseg_training.sheet import write_trial_sheet
    from synthseg_training.training.loop import stage_config

    recipe, maps = _load(options)
    held_out = [name for name in recipe.held_out if name in maps.names]
    if recipe.task != "stroke" or not held_out:
        raise ValueError(f"{options.recipe}: a trial needs a recipe of the task stroke, and its held-out label maps")
    stage = recipe.stages[-1]
    if options.base:
        stage = dataclasses.replace(stage, generator={})
    config = dataclasses.replace(stage_config(recipe, stage, stage.steps), crop=options.crop)
    names = [path.stem for path in options.models]
    if len(set(names)) < len(names):
        names = [str(path) for path in options.models]
    options.output.mkdir(parents=True, exist_ok=True)
    tables = []
    for number, (path, name) in enumerate(zip(options.models, names), 1):
        slices = []
        table = trial(
            load_model(path=path),
            maps.subset(held_out),
            config,
            patients=options.number,
            seed=options.seed,
            flips=options.flips,
            smallest_ml=options.smallest,
            cleaned=options.cleaned,
            device=options.device,
            report=lambda line, name=name: print(f"{name}: {line}", flush=True),
            show=slices.append,
        )
        tables.append(table.assign(model=name))
        write_trial_sheet(options.output / f"patients-{number}-{path.stem}.png", slices)
    table = pd.concat(tables)
    table.to_csv(options.output / "trial.csv", index=False)
    short = summary(table, ["sequence", "model"])
    short.to_csv(options.output / "summary.csv", index=False)
    print(short.to_string(index=False))


def _export(options: argparse.Namespace) -> None:
    from synthseg_training.export import export

    recipe, maps = _load(options)
    facts = json.loads(options.facts.read_text(encoding="utf-8")) if options.facts else None
    path = export(
        recipe, options.checkpoint, options.output, maps=maps or None, norm_samples=options.norm_samples, facts=facts
    )
    print(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")


def _experiment(options: argparse.Namespace) -> None:
    from synthseg_slicer.errors import Cancelled
    from synthseg_training.experiments.command import run

    _save_when_stopped()
    try:
        print(run(options))
    except KeyboardInterrupt as error:
        raise Cancelled("interrupted; the same command goes on where it was") from error


def _load(options: argparse.Namespace):
    from synthseg_training.labelmaps import LabelMapSet
    from synthseg_training.training.recipe import load_recipe

    recipe = load_recipe(options.recipe, options.set)
    if options.maps is not None:
        return recipe, LabelMapSet.load(options.maps)
    if recipe.draws_from_label_maps:
        raise ValueError(f"{options.recipe}: its samples are drawn from label maps. Give them with --maps.")
    return recipe, LabelMapSet([], (0,), [])


if __name__ == "__main__":
    sys.exit(main())

"""MR physics: signal equations against check values and single pulses, draws, noise, field strength, priors, maps."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import nibabel as nib
import numpy as np
import pytest
import torch
from matplotlib.image import imread
from torch import Tensor

from synthseg_slicer.errors import OptionError, OutputError, ScanError
from synthseg_training.generation.anatomy import brain_label_names
from synthseg_training.physics import (
    CHANGES,
    CLINICAL,
    FLAIR,
    FSE,
    GRE,
    LABEL_TISSUES,
    MP2RAGE,
    MPRAGE,
    SPGRMT,
    TISSUES,
    Distribution,
    FieldStrength,
    QuantitativeMaps,
    ReceiveField,
    RicianNoise,
    SequenceDraw,
    at_field,
    load_maps,
    paper_distributions,
    qatlas_distributions,
    rician,
    save_maps,
    typical_maps,
)
from synthseg_training.physics.sequences import mp2rage
from synthseg_training.physics.sheet import contrast_sheet

# GM, GM/WM partial volume, WM, contaminated CSF, CSF; R2 taken as R2*
CHECK_PD = (76.84, 75.37, 69.79, 74.79, 100.0)
CHECK_R1 = (0.652, 0.788, 0.968, 0.514, 0.25)
CHECK_R2S = (19.84, 23.90, 22.23, 18.34, 4.0)


def voxels(*values: float) -> Tensor:
    return torch.tensor(values).reshape(-1, 1, 1)


def check_maps() -> QuantitativeMaps:
    r2s = voxels(*CHECK_R2S)
    return QuantitativeMaps(voxels(*CHECK_PD), voxels(*CHECK_R1), r2s, r2s, torch.zeros(5, 1, 1))


def random_maps(shape: tuple[int, int, int] = (4, 5, 6), seed: int = 0) -> QuantitativeMaps:
    rng = torch.Generator().manual_seed(seed)
    pd, r1, r2, extra, mt = torch.rand(5, *shape, generator=rng)
    return QuantitativeMaps(50 + 50 * pd, 0.2 + r1, 0.5 + 15 * r2, 1 + 15 * r2 + 20 * extra, 2 * mt)


def tissue_signal(sequence, b0: float = 3.0) -> dict[str, float]:
    """Return the signal of every class at its mean."""
    names = dict(enumerate(TISSUES))
    maps = at_field(typical_maps(torch.arange(len(names)).reshape(-1, 1, 1), names), b0)
    return dict(zip(TISSUES, sequence.signal(maps).flatten().tolist()))


def simulated_trains(r1: float, sequence, inversions: list[float], flips: list[float]) -> list[float]:
    """Play out pulses one by one until the steady state; return the magnetisation before each train's central pulse."""
    mz, centres = 1.0, []
    for _ in range(30):
        mz, time, centres = -sequence.efficiency * mz, 0.0, []
        for inversion, flip in zip(inversions, flips):
            for pulse in range(sequence.n):
                at = inversion + (pulse - sequence.n / 2) * sequence.tx
                mz, time = 1 - (1 - mz) * math.exp(-r1 * (at - time)), at
                if pulse == sequence.n // 2 - 1:
                    centres.append(mz)
                mz *= math.cos(flip)
        mz = 1 - (1 - mz) * math.exp(-r1 * (sequence.tr - time))
    return centres


# ---- signal equations


@pytest.mark.parametrize(
    "sequence, expected",
    [
        (MPRAGE(2.3, 0.9, 6e-3, 3e-3, 9, 160, 0.96), (1.436, 1.815, 2.208, 0.984, 0.425)),
        (GRE(25e-3, 5e-3, 20), (5.096, None, 6.169, None, 3.157)),
        (FSE(3, 80e-3), (13.491, None, 11.142, None, 38.314)),
        (FLAIR(9, 120e-3, 2.5), (4.341, None, 3.984, None, 2.158)),
    ],
)
def test_signals_equal_the_check_values_to_three_digits(sequence, expected):
    signal = sequence.signal(check_maps()).flatten().tolist()
    for value, wanted in zip(signal, expected):
        assert wanted is None or abs(value - wanted) < 6e-4


@pytest.mark.parametrize("r1", [0.25, 0.65, 1.0, 3.0])
@pytest.mark.parametrize("n", [9, 160])
def test_mprage_is_the_steady_state_of_its_pulses(r1, n):
    sequence = MPRAGE(n=n)
    (mz,) = simulated_trains(r1, sequence, [sequence.ti], [math.radians(sequence.flip_deg)])
    maps = QuantitativeMaps(voxels(100.0), voxels(r1), voxels(0.0), voxels(0.0), voxels(0.0))
    expected = 100 * abs(mz) * math.sin(math.radians(9))
    assert sequence.signal(maps).item() == pytest.approx(expected, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("r1", [0.25, 0.65, 1.0, 3.0])
def test_mp2rage_is_the_combination_of_the_steady_state_of_its_pulses(r1):
    sequence = MP2RAGE(beta=0.0)
    flips = [math.radians(sequence.flip1_deg), math.radians(sequence.flip2_deg)]
    trains = simulated_trains(r1, sequence, [sequence.ti1, sequence.ti2], flips)
    first, second = (mz * math.sin(flip) for mz, flip in zip(trains, flips))
    maps = QuantitativeMaps(voxels(70.0), voxels(r1), voxels(9.0), voxels(20.0), voxels(0.0))
    expected = first * second / (first**2 + second**2)
    assert sequence.signal(maps).item() == pytest.approx(expected, abs=1e-4)


def test_mp2rage_cancels_receive_field_density_and_r2s_and_shows_background_as_lowest():
    r1 = voxels(0.65, 0.65, 1.0)
    flips = (math.radians(7), math.radians(5))
    signal = mp2rage(
        voxels(80, 50, 70), r1, voxels(10, 40, 20), 6.25, (0.8, 2.2), 5.8e-3, 3e-3, flips, 160, 0.96, 0, 1.7
    )
    assert signal[0].item() == pytest.approx(signal[1].item(), abs=1e-5)
    assert signal[2] > signal[0] + 0.2
    assert (MP2RAGE().signal(QuantitativeMaps.unstack(torch.zeros(5, 2, 2, 2))) == -0.5).all()


def test_saturation_pulses_darken_by_mt_and_do_nothing_without_it():
    maps = random_maps()
    plain, saturated = GRE(0.025, 0.005, 6).signal(maps), SPGRMT(0.025, 0.005, 6).signal(maps)
    assert ((saturated < plain) | (maps.mt == 0)).all()
    without = QuantitativeMaps(maps.pd, maps.r1, maps.r2, maps.r2s, torch.zeros_like(maps.mt))
    torch.testing.assert_close(SPGRMT(0.025, 0.005, 6).signal(without), plain)
    # Helms 2008, eq. 6, rational approximation for small angles and rates
    angle, rate, fraction = math.radians(6), maps.r1 * 0.025, maps.mt / 100
    helms = maps.pd * angle * rate / (angle**2 / 2 + fraction + rate) * torch.exp(-0.005 * maps.r2s)
    torch.testing.assert_close(saturated, helms, rtol=0.03, atol=0)


@pytest.mark.parametrize("sequence", [*CLINICAL.values(), SPGRMT(0.025, 0.005, 6)])
def test_the_gain_multiplies_background_is_zero_and_maps_stay_as_they_are(sequence):
    maps = random_maps()
    before, field = maps.stack(), torch.rand(maps.shape) + 0.5
    signal = sequence.signal(maps)
    torch.testing.assert_close(sequence.signal(maps, field), signal * field)
    torch.testing.assert_close(sequence.signal(maps, 2.0), signal * 2)
    assert torch.equal(maps.stack(), before)
    assert (signal > 0).any()
    assert (sequence.signal(QuantitativeMaps.unstack(torch.zeros(5, 2, 2, 2))) == 0).all()


@pytest.mark.parametrize(
    "sequence, decays, stays",
    [
        (FSE(3, 0.08), "r2", "r2s"),
        (FLAIR(9, 0.12, 2.5), "r2", "r2s"),
        (GRE(0.5, 0.02, 20), "r2s", "r2"),
        (MPRAGE(), "r2s", "r2"),
    ],
)
def test_spin_echoes_decay_with_r2_and_gradient_echoes_with_r2s(sequence, decays, stays):
    maps = random_maps()
    signal = sequence.signal(maps)

    def with_more(name: str) -> Tensor:
        return sequence.signal(QuantitativeMaps(**dict(maps.items()) | {name: getattr(maps, name) + 10}))

    torch.testing.assert_close(with_more(decays), signal * math.exp(-10 * sequence.te))
    assert torch.equal(with_more(stays), signal)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: FSE(0, 0.1), "tr is 0"),
        (lambda: FSE(float("nan"), 0.1), "tr is nan"),
        (lambda: GRE(0.1, -0.1, 20), "te is -0.1"),
        (lambda: GRE(0.1, 0.01, 0), "flip_deg is 0"),
        (lambda: MPRAGE(n=1), "n is 1"),
        (lambda: MPRAGE(efficiency=1.1), "efficiency is 1.1"),
        (lambda: MPRAGE(ti=0.4).signal(check_maps()), "do not fit"),
        (lambda: MPRAGE(tr=1.0).signal(check_maps()), "do not fit"),
        (lambda: MP2RAGE(ti2=1.0).signal(check_maps()), "do not fit"),
    ],
)
def test_impossible_parameters_are_refused(make, message):
    with pytest.raises(OptionError, match=message):
        make()


# ---- contrasts


@pytest.mark.parametrize("b0", [1.5, 3.0])
def test_clinical_contrasts_order_tissues_as_radiologists_know_them(b0):
    t1, t1_fse, t2, flair, pd = (
        tissue_signal(CLINICAL[name], b0) for name in ("T1 MPRAGE", "T1 FSE", "T2 FSE", "FLAIR", "PD FSE")
    )
    for image in (t1, t1_fse):
        assert image["csf"] < image["gm"] < image["gm_wm"] < image["wm"] < image["fat"]
        assert image["gm"] < image["thalamus"] < image["wm"]
        assert image["csf"] < image["cavity"] < image["gm"]
    assert t2["wm"] < t2["gm"] < t2["gliosis"] < t2["cavity"] < t2["csf"]
    assert t2["pallidum"] < t2["wm"]
    assert 3 * flair["csf"] < min(flair[name] for name in ("gm", "wm", "thalamus"))
    assert flair["gliosis"] > flair["gm"] > flair["wm"]
    assert pd["gm"] > pd["wm"]
    b0_image, t2s = tissue_signal(CLINICAL["DWI b0"], b0), tissue_signal(CLINICAL["T2* GRE"], b0)
    assert max(b0_image, key=b0_image.get) == "csf"
    assert t2s["pallidum"] < t2s["thalamus"] < t2s["csf"]


# ---- draws


def draws(settings: SequenceDraw, count: int) -> list:
    rng = torch.Generator().manual_seed(0)
    return [settings.draw(rng) for _ in range(count)]


def test_the_four_sequences_are_drawn_equally_often_within_the_papers_bounds():
    drawn = draws(SequenceDraw(), 4000)
    counts = Counter(type(sequence) for sequence in drawn)
    assert set(counts) == {FSE, GRE, FLAIR, MPRAGE}
    assert all(abs(count - 1000) < 120 for count in counts.values())
    bounds = {
        FSE: {"te": (1e-3, 3), "tr": (1e-3, 3)},
        GRE: {"te": (2e-3, 80e-3), "tr": (5e-3, 5), "flip_deg": (5, 50)},
        FLAIR: {"tr": (1e-3, 5), "ti": (1e-3, 3)},
        MPRAGE: {"ti": (0.6, 0.9), "tx": (4e-3, 8e-3), "te": (2e-3, 4e-3), "flip_deg": (5, 12)},
    }
    for kind, parameters in bounds.items():
        for name, (low, high) in parameters.items():
            values = np.array([getattr(sequence, name) for sequence in drawn if type(sequence) is kind])
            assert low <= values.min() and values.max() <= high
            if kind is not MPRAGE:  # whose redraws prefer some
                log = high / low > 20
                spread = np.log(values / low) / np.log(high / low) if log else (values - low) / (high - low)
                assert abs(spread.mean() - 0.5) < 0.04
    flair_te = np.log10([sequence.te / 20e-3 for sequence in drawn if type(sequence) is FLAIR])
    assert abs(flair_te.mean()) < 0.015 and abs(flair_te.std() - 0.1) < 0.01
    mprage_tr = np.array([sequence.tr for sequence in drawn if type(sequence) is MPRAGE])
    assert abs(mprage_tr.mean() - 2.3) < 0.05 and abs(mprage_tr.std() - 0.23) < 0.03
    assert all(sequence.feasible for sequence in drawn if type(sequence) is MPRAGE)
    assert not all(sequence.feasible for sequence in drawn)


def test_infeasible_acquisitions_can_be_left_out():
    for sequence in draws(SequenceDraw(feasible=True), 400):
        assert sequence.feasible
        assert sequence.te + getattr(sequence, "ti", 0) <= sequence.tr or isinstance(sequence, MPRAGE)


def test_sequences_can_be_weighted_and_left_out():
    counts = Counter(type(sequence) for sequence in draws(SequenceDraw({"fse": 3, "gre": 1, "flair": 0}), 1000))
    assert set(counts) == {FSE, GRE}
    assert abs(counts[FSE] - 750) < 50
    qatlas = draws(SequenceDraw({"mprage": 1}, qatlas_distributions()), 200)
    assert all(1.9 <= sequence.tr <= 2.5 and 0.6 <= sequence.ti <= 1.2 for sequence in qatlas)
    assert max(sequence.ti for sequence in qatlas) > 0.95


def test_protocols_of_one_sequence_have_shares_and_distributions_of_their_own():
    short = {"te": Distribution("uniform", 0.01, 0.02), "tr": Distribution("uniform", 0.4, 0.8)}
    settings = SequenceDraw({"fse": 1, "fse-t1": 3}, paper_distributions() | {"fse-t1": short})
    drawn = draws(settings, 1000)
    assert {type(sequence) for sequence in drawn} == {FSE}
    assert sum(0.4 <= one.tr <= 0.8 and 0.01 <= one.te <= 0.02 for one in drawn) == pytest.approx(750 + 5, abs=45)
    with pytest.raises(OptionError, match=r"given for .* fse-t2"):
        SequenceDraw({"fse-t2": 1})
    with pytest.raises(OptionError, match="Unknown sequences: t1-fse"):
        SequenceDraw({"t1-fse": 1})


def test_draws_are_absolute_and_replay_from_their_seed():
    distribution = Distribution("normal", 0.0, 1.0)
    rng = torch.Generator().manual_seed(0)
    values = np.array([distribution.draw(rng) for _ in range(2000)])
    assert values.min() >= 0
    assert abs(values.mean() - math.sqrt(2 / math.pi)) < 0.05
    assert draws(SequenceDraw(), 20) == draws(SequenceDraw(), 20)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: SequenceDraw({"epi": 1}), "Unknown sequences: epi"),
        (lambda: SequenceDraw({}), "weights"),
        (lambda: SequenceDraw({"fse": 0.0}), "weights"),
        (lambda: SequenceDraw({"fse": 2, "gre": -1}), "weights"),
        (lambda: SequenceDraw({"fse": 1}, qatlas_distributions()), "No distributions are given for .* fse"),
        (lambda: Distribution("cauchy", 0, 1), "no distribution"),
        (lambda: Distribution("log_uniform", 0, 1), "positive"),
        (
            lambda: SequenceDraw(
                {"mprage": 1}, {"mprage": paper_distributions()["mprage"] | {"tr": Distribution("uniform", 0.5, 0.6)}}
            ).draw(torch.Generator().manual_seed(0)),
            "no possible acquisition",
        ),
    ],
)
def test_contradictory_draws_are_refused(make, message):
    with pytest.raises(OptionError, match=message):
        make()


# ---- noise and receive field


def test_rician_noise_has_its_known_moments():
    rng = torch.Generator().manual_seed(0)
    sigma, count = 2.0, 400_000
    empty = rician(torch.zeros(count), sigma, rng)
    assert empty.mean().item() == pytest.approx(sigma * math.sqrt(math.pi / 2), rel=0.005)  # Rayleigh
    assert empty.var().item() == pytest.approx((2 - math.pi / 2) * sigma**2, rel=0.01)
    for amplitude in (1.0, 3.0, 10.0):
        noisy = rician(torch.full((count,), amplitude), sigma, rng)
        assert noisy.square().mean().item() == pytest.approx(amplitude**2 + 2 * sigma**2, rel=0.01)
    strong = rician(torch.full((count,), 100.0), sigma, rng)  # Gaussian with mean sqrt(A^2 + sigma^2)
    assert strong.mean().item() == pytest.approx(math.hypot(100, sigma), abs=0.02)
    assert strong.std().item() == pytest.approx(sigma, rel=0.01)


def test_noise_is_relative_to_the_signal_replays_and_can_be_absent():
    image = torch.zeros(30, 30, 30)
    image[10:20] = 50
    noisy = RicianNoise().apply(image, 0.1, seed=3)
    assert noisy[image == 0].square().mean().sqrt().item() == pytest.approx(5 * math.sqrt(2), rel=0.02)
    assert torch.equal(noisy, RicianNoise().apply(image, 0.1, seed=3))
    assert not torch.equal(noisy, RicianNoise().apply(image, 0.1, seed=4))
    assert RicianNoise().apply(image, 0.0, seed=3) is image
    rng = torch.Generator().manual_seed(0)
    sigmas = np.array([RicianNoise(0.8, (0.02, 0.1)).draw(rng) for _ in range(1000)])
    assert abs((sigmas == 0).mean() - 0.2) < 0.04
    assert 0.02 <= sigmas[sigmas > 0].min() and sigmas.max() <= 0.1
    assert RicianNoise().scaled(0).sigma == (0, 0)


def test_the_receive_field_is_positive_and_smooth():
    field = ReceiveField(probability=1)
    nodes = field.draw(torch.Generator().manual_seed(1), 160.0)
    gain = field.gain(nodes, 40)
    assert gain.shape == (40, 40, 40)
    assert gain.min() > 0 and gain.max() / gain.min() > 1.1
    log = gain.log()
    # Over a voxel the field changes by at most its share of the distance of two nodes.
    steps = max(log.diff(dim=axis).abs().max().item() for axis in range(3))
    assert steps <= 3 / 40 * (nodes.max() - nodes.min()).item() + 1e-5
    assert ReceiveField(probability=0).draw(torch.Generator().manual_seed(1), 160.0) is None
    assert field.gain(None, 40) == 1.0


# ---- field strength


def test_three_tesla_changes_nothing():
    maps = random_maps()
    torch.testing.assert_close(at_field(maps, 3.0).stack(), maps.stack())
    noisy = QuantitativeMaps(maps.pd, maps.r1, maps.r2s, maps.r2, maps.mt)  # R2* below R2
    torch.testing.assert_close(at_field(noisy, 3.0).stack(), noisy.stack())
    assert FieldStrength().apply(maps, FieldStrength().draw(torch.Generator().manual_seed(0))) is maps


def test_maps_measured_at_another_field_come_back():
    maps = random_maps()
    for b0, measured in ((3.0, 1.5), (7.0, 0.5)):
        there = at_field(maps, measured)
        torch.testing.assert_close(at_field(there, b0, measured).stack(), at_field(maps, b0).stack())


def test_r1_falls_and_r2_and_r2s_rise_with_the_field():
    maps = random_maps()
    fields = [at_field(maps, b0) for b0 in (0.3, 0.5, 1.5, 3.0, 7.0)]
    for lower, higher in pairwise(fields):
        assert (higher.r1 <= lower.r1).all() and (higher.r1 < lower.r1)[maps.r1 > 0.24].all()
        assert (higher.r2 > lower.r2).all() and (higher.r2s > lower.r2s).all()
    for changed in fields:
        assert torch.equal(changed.pd, maps.pd) and torch.equal(changed.mt, maps.mt)
        assert (changed.r2s >= changed.r2).all()
    # R2' is proportional to B0.
    reversible = [changed.r2s - changed.r2 for changed in fields]
    torch.testing.assert_close(reversible[4], reversible[2] * 7 / 1.5, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("scale, exponent", [(0.00071, 0.382), (0.00116, 0.376)])
def test_r1_follows_the_published_power_law_of_t1(scale, exponent):
    def rate(b0: float) -> float:
        return 1 / (scale * (42.577e6 * b0) ** exponent)

    zero = voxels(0.0)
    maps = QuantitativeMaps(zero, voxels(rate(3)), zero, zero, zero)
    for b0 in (0.3, 0.5, 1.5, 4, 7):
        assert at_field(maps, b0).r1.item() == pytest.approx(rate(b0), rel=0.062)
    assert at_field(QuantitativeMaps(zero, voxels(0.2), zero, zero, zero), 7).r1.item() == pytest.approx(0.2)


def test_r2_and_r2s_follow_published_values():
    # T2 in ms at 1.5, 3 and 7 T (Cox and Gowland 2010)
    for t2 in ((87, 76, 47), (80, 68, 46), (80, 71, 47)):
        maps = QuantitativeMaps(*(voxels(rate) for rate in (80.0, 0.7, 1e3 / t2[1], 1e3 / t2[1], 1.0)))
        for b0, expected in ((1.5, t2[0]), (7, t2[2])):
            assert at_field(maps, b0).r2.item() == pytest.approx(1e3 / expected, rel=0.07)
    # T2 at 3 T, then T2* in ms at 1.5, 3 and 7 T (Peters 2007): grey, white
    for t2, t2s in ((99, (84, 66, 33.2)), (69, (66.2, 53.2, 26.8))):
        maps = QuantitativeMaps(*(voxels(rate) for rate in (80.0, 0.7, 1e3 / t2, 1e3 / t2s[1], 1.0)))
        for b0, expected in ((1.5, t2s[0]), (7, t2s[2])):
            assert at_field(maps, b0).r2s.item() == pytest.approx(1e3 / expected, rel=0.12)


def test_field_strengths_out_of_range_are_refused():
    for b0 in (0.1, 9.4, float("nan")):
        with pytest.raises(OptionError, match="field strength"):
            at_field(random_maps(), b0)
    with pytest.raises(OptionError, match="ascend"):
        FieldStrength(3.0, 1.5)
    rng = torch.Generator().manual_seed(0)
    drawn = [FieldStrength(0.3, 7).draw(rng) for _ in range(200)]
    assert 0.3 <= min(drawn) < 1 and 6 < max(drawn) <= 7


# ---- priors


def test_every_label_of_the_whole_head_maps_has_a_tissue():
    assert set(LABEL_TISSUES) == set(brain_label_names())
    assert set(LABEL_TISSUES.values()) | {"cavity"} == set(TISSUES)
    assert LABEL_TISSUES[2] == LABEL_TISSUES[41] == "wm"
    assert LABEL_TISSUES[13] == LABEL_TISSUES[52] == "pallidum"


def test_means_are_plausible_and_true_r2_is_below_r2s():
    for name, tissue in TISSUES.items():
        assert all(prior.mean >= 0 and prior.mean_spread >= 0 and prior.std >= 0 for prior in tissue.priors)
        assert tissue.pd.mean <= 100
        assert tissue.r2.mean < tissue.r2s.mean or name == "air"
        assert tissue.r1.mean < tissue.r2.mean or name == "air"
    assert TISSUES["gm"].r1.mean < TISSUES["thalamus"].r1.mean < TISSUES["wm"].r1.mean
    assert TISSUES["pallidum"].r2s.mean > 1.5 * TISSUES["gm"].r2s.mean


def changed_signal(sequence, tissue: str, change: str) -> float:
    """Return the signal of typical changed tissue relative to what it was."""
    maps = torch.tensor([prior.mean for prior in TISSUES[tissue].priors])
    factors = torch.tensor([prior.mean for prior in CHANGES[change].priors])
    both = QuantitativeMaps.unstack(torch.stack([maps, maps * factors], 1).view(5, 2, 1, 1))
    before, after = sequence.signal(both).flatten().tolist()
    return after / before


@pytest.mark.parametrize("tissue", ["gm", "wm", "gm_wm", "striatum", "thalamus"])
@pytest.mark.parametrize("change", sorted(CHANGES))
def test_changed_tissue_is_dark_on_t1_and_bright_on_t2_wherever_it_lies(tissue, change):
    for name in ("T1 MPRAGE", "T1 FSE"):
        assert changed_signal(CLINICAL[name], tissue, change) < 0.95
    for name in ("T2 FSE", "FLAIR", "DWI b0"):
        assert changed_signal(CLINICAL[name], tissue, change) > 1.15


def test_gliosis_takes_grey_and_white_matter_near_the_measured_class():
    measured = TISSUES["gliosis"]
    for tissue in ("gm", "wm"):
        for factor, prior, target in zip(CHANGES["gliosis"].priors, TISSUES[tissue].priors, measured.priors):
            assert factor.mean * prior.mean == pytest.approx(target.mean, rel=0.4)


def test_tissues_are_drawn_with_their_means_and_spreads():
    rng = torch.Generator().manual_seed(0)
    for name in ("gm", "csf", "cavity"):
        tissue = TISSUES[name]
        means, stds = (torch.stack(values) for values in zip(*(tissue.draw(rng) for _ in range(1500))))
        assert (means >= 0).all() and (stds >= 0).all()
        assert (means[:, 3] >= means[:, 2]).all()
        for index in (0, 1, 2):  # R2* is lifted to R2 at times, MT cut at 0
            prior = tissue.priors[index]
            assert means[:, index].mean().item() == pytest.approx(prior.mean, abs=0.1 * prior.mean_spread)
            assert means[:, index].std().item() == pytest.approx(prior.mean_spread, rel=0.08)
            assert stds[:, index].mean().item() == pytest.approx(0.1 * prior.std, rel=0.03)
            assert stds[:, index].std().item() == pytest.approx(0.1 * prior.std_spread, rel=0.08)
    means, stds = TISSUES["air"].draw(rng)
    assert not means.any() and not stds.any()


@pytest.mark.parametrize("change", sorted(CHANGES))
def test_one_cause_moves_all_quantities_of_changed_tissue(change):
    rng = torch.Generator().manual_seed(0)
    means = torch.stack([CHANGES[change].draw(rng, common=0.8)[0] for _ in range(4000)])
    for index, prior in enumerate(CHANGES[change].priors):
        assert means[:, index].mean().item() == pytest.approx(prior.mean, abs=0.06 * prior.mean_spread)
        assert means[:, index].std().item() == pytest.approx(prior.mean_spread, rel=0.04)
    assert (means[:, 3] < means[:, 2]).any()  # factors of R2* and of R2 are free of each other
    related = torch.corrcoef(means.T)
    assert related[0, 1:].tolist() == pytest.approx([-0.8] * 4, abs=0.1)
    assert related[1, [2, 4]].tolist() == pytest.approx([0.8] * 2, abs=0.1)


def test_typical_maps_hold_the_mean_of_each_labels_tissue():
    labels = torch.tensor([0, 2, 42, 4, 52], dtype=torch.int32).reshape(5, 1, 1)
    maps = typical_maps(labels)
    assert maps.shape == (5, 1, 1)
    for index, name in enumerate(("air", "wm", "gm", "csf", "pallidum")):
        expected = [prior.mean for prior in TISSUES[name].priors]
        assert maps.stack()[:, index, 0, 0].tolist() == pytest.approx(expected)
    with pytest.raises(OptionError, match=r"labels \[999\]"):
        typical_maps(torch.full((2, 2, 2), 999))


# ---- maps and files


def test_maps_stack_and_unstack():
    maps = random_maps()
    stacked = maps.stack()
    assert stacked.shape == (5, 4, 5, 6)
    assert torch.equal(stacked[3], maps.r2s)
    again = QuantitativeMaps.unstack(stacked).to("cpu")
    assert torch.equal(again.stack(), stacked)
    assert again.shape == (4, 5, 6) and again.device.type == "cpu"


@pytest.mark.parametrize(
    "stacked, message",
    [
        (torch.zeros(4, 2, 2, 2), "stack of 4 maps"),
        (torch.zeros(5, 2, 2), "must be floating point"),
        (torch.zeros(5, 2, 2, 2, dtype=torch.int32), "must be floating point"),
        (torch.full((5, 2, 2, 2), -1.0), "map pd holds negative"),
        (torch.full((5, 2, 2, 2), float("nan")), "map pd holds negative"),
        (torch.full((5, 2, 2, 2), float("inf")), "map pd holds negative"),
    ],
)
def test_maps_that_cannot_be_are_refused(stacked, message):
    with pytest.raises(OptionError, match=message):
        QuantitativeMaps.unstack(stacked)


def test_maps_of_different_shapes_are_refused():
    small, large = torch.zeros(2, 2, 2), torch.zeros(2, 2, 3)
    with pytest.raises(OptionError, match=r"r2s .* and the map pd .* differ"):
        QuantitativeMaps(small, small, small, large, small)


AFFINE = np.array([[-1.0, 0, 0, 10], [0, 0, 2, -5], [0, 1.5, 0, 3], [0, 0, 0, 1]])


def test_saved_maps_come_back_in_ras_order(tmp_path):
    maps = random_maps()
    paths = save_maps(maps, tmp_path, "sub-01", AFFINE)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(path.name for path in paths)
    assert {"sub-01_PDmap.nii.gz", "sub-01_R2starmap.nii.gz", "sub-01_MTsat.nii.gz"} <= {path.name for path in paths}
    loaded, affine = load_maps(tmp_path)
    assert torch.equal(loaded.stack(), maps.stack().flip(1).permute(0, 1, 3, 2))
    np.testing.assert_allclose(affine.numpy(), [[1, 0, 0, 7], [0, 2, 0, -5], [0, 0, 1.5, 3], [0, 0, 0, 1]], atol=1e-5)


def test_a_missing_r2_comes_from_r2s_and_other_missing_maps_are_all_named(tmp_path):
    maps = random_maps()
    save_maps(maps, tmp_path, "a", np.eye(4))
    (tmp_path / "a_R2map.nii.gz").unlink()
    loaded, _ = load_maps(tmp_path, "a")
    torch.testing.assert_close(loaded.r2, (maps.r2s * 2 / 3).clamp(max=25))
    (tmp_path / "a_R1map.nii.gz").unlink()
    (tmp_path / "a_MTsat.nii.gz").unlink()
    with pytest.raises(ScanError, match=r"a_R1map\.nii\.gz, a_MTsat\.nii\.gz"):
        load_maps(tmp_path)


def test_sets_that_are_ambiguous_absent_damaged_or_of_two_grids_are_refused(tmp_path):
    with pytest.raises(OptionError, match="no file"):
        load_maps(tmp_path)
    for name in "ab":
        save_maps(random_maps(), tmp_path, name, np.eye(4))
    with pytest.raises(OptionError, match="several sets of maps"):
        load_maps(tmp_path)
    nib.Nifti1Image(np.ones((4, 5, 6), np.float32), np.diag([2.0, 1, 1, 1])).to_filename(tmp_path / "a_R1map.nii.gz")
    with pytest.raises(ScanError, match="grid"):
        load_maps(tmp_path, "a")
    nib.Nifti1Image(np.ones((4, 5, 6, 2), np.float32), np.eye(4)).to_filename(tmp_path / "a_R1map.nii.gz")
    with pytest.raises(ScanError, match="4 dimensions"):
        load_maps(tmp_path, "a")
    (tmp_path / "a_R1map.nii.gz").write_bytes(b"nothing")
    with pytest.raises(ScanError, match="cannot be read"):
        load_maps(tmp_path, "a")


def test_what_fits_leave_behind_is_set_to_zero_with_a_warning(tmp_path):
    maps = random_maps()
    save_maps(maps, tmp_path, "a", np.eye(4))
    bad = maps.r1.numpy().copy()
    bad[0, 0, :3] = (np.nan, -1, np.inf)
    nib.Nifti1Image(bad, np.eye(4)).to_filename(tmp_path / "a_R1map.nii.gz")
    with pytest.warns(UserWarning, match="3 negative or non-finite"):
        loaded, _ = load_maps(tmp_path)
    assert not loaded.r1[0, 0, :3].any()
    assert torch.equal(loaded.r1[1:], maps.r1[1:])


def test_none_of_the_maps_appears_if_one_cannot_be_written(tmp_path, monkeypatch):
    write, written = nib.Nifti1Image.to_filename, []

    def fails_at_the_third(image, path):
        written.append(path)
        if len(written) == 3:
            raise OSError("disk full")
        write(image, path)

    monkeypatch.setattr(nib.Nifti1Image, "to_filename", fails_at_the_third)
    with pytest.raises(OutputError):
        save_maps(random_maps(), tmp_path, "a", np.eye(4))
    assert not list(tmp_path.iterdir())


# ---- sheet


def test_the_contrast_sheet_shows_a_slice_in_all_sequences(tmp_path):
    labels = torch.zeros(24, 24, 6, dtype=torch.int32)
    labels[4:20, 4:20], labels[6:18, 6:18], labels[10:14, 10:14] = 3, 2, 4
    contrast_sheet(typical_maps(labels), tmp_path / "sheet.png")
    picture = imread(tmp_path / "sheet.png")[..., :3]
    assert picture.shape[:2] == (1350, 1600)
    for rows in (slice(0, 675), slice(675, None)):
        for columns in (slice(0, 800), slice(800, None)):
            assert np.unique(picture[rows, columns].round(2)).size > 20
    with pytest.raises(OptionError, match="no slice"):
        contrast_sheet(typical_maps(labels), tmp_path / "other.png", index=6)
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]

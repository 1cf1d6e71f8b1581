"""Statistics against published examples, and a simulated cohort."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from synthseg_training.evaluation.statistics import (
    best_methods,
    bonferroni,
    cohens_d,
    compare_methods,
    corrected,
    mann_whitney,
    median_interval,
    stars,
    wilcoxon,
)

# R's mtcars (Henderson and Velleman 1981, Biometrics 37:391): miles per gallon, weight, quarter mile time.
MPG = """21 21 22.8 21.4 18.7 18.1 14.3 24.4 22.8 19.2 17.8 16.4 17.3 15.2 10.4 10.4 14.7 32.4 30.4 33.9 21.5 15.5 15.2
13.3 19.2 27.3 26 30.4 15.8 19.7 15 21.4"""
WEIGHT = """2.62 2.875 2.32 3.215 3.44 3.46 3.57 3.19 3.15 3.44 3.44 4.07 3.73 3.78 5.25 5.424 5.345 2.2 1.615 1.835
2.465 3.52 3.435 3.84 3.845 1.935 2.14 1.513 3.17 2.77 3.57 2.78"""
SECONDS = """16.46 17.02 18.61 19.44 17.02 20.22 15.84 20 22.9 18.3 18.9 17.4 17.6 18 17.98 17.82 17.42 19.47 18.52 19.9
20.01 16.87 17.3 15.41 17.05 18.9 16.7 16.9 14.5 15.5 14.6 18.6"""


@pytest.fixture
def cars():
    mpg, weight, seconds = (np.array(text.split(), float) for text in (MPG, WEIGHT, SECONDS))
    manual = np.repeat([True, False, True, False, True], [3, 14, 3, 5, 7])
    others = np.column_stack([weight, seconds])
    return (mpg[manual], mpg[~manual]), (others[manual], others[~manual])


def test_signed_rank_test_reproduces_published_examples():
    # Darwin's maize, in the documentation of scipy.stats.wilcoxon
    differences = [6, 8, 14, 16, 23, 24, 28, 29, 41, -48, 49, 56, 60, -67, 75]
    assert wilcoxon(differences, np.zeros(15)) == (24.0, 0.041259765625)
    # Hamilton depression scale, Hollander and Wolfe 1973 p. 29, in the documentation of R's wilcox.test: V = 40
    before = [1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30]
    after = [0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29]
    statistic, p = wilcoxon(before, after)
    assert 9 * 10 / 2 - statistic == 40  # the smaller of both rank sums here, the larger there
    assert p == pytest.approx(2 * 0.01953, abs=1e-5)


def test_signed_rank_test_leaves_out_missing_pairs_and_refuses_what_is_no_pair():
    a, b = np.array([1.0, 2, np.nan, 4, 7]), np.array([2.0, 1, 5, 2, 3])
    assert wilcoxon(a, b) == wilcoxon(a[[0, 1, 3, 4]], b[[0, 1, 3, 4]])
    assert wilcoxon([1, 2, 3], [1, 2, 3]) == (0.0, 1.0)
    with pytest.raises(ValueError, match="pairs"):
        wilcoxon([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="at least one pair"):
        wilcoxon([np.nan], [1.0])


def test_rank_sum_test_reproduces_a_published_example():
    # ages at the diagnosis of diabetes, in the documentation of scipy.stats.mannwhitneyu
    statistic, p = mann_whitney([19, 22, 16, 29, 24], [20, 11, 17, 12])
    assert statistic == 17 and p == pytest.approx(1 / 9)
    with pytest.raises(ValueError, match="two groups"):
        mann_whitney([1.0], [])


def test_bonferroni_counts_the_tests_that_were_made():
    np.testing.assert_allclose(bonferroni([0.01, np.nan, 0.02, 0.5]), [0.03, np.nan, 0.06, 1])
    assert [stars(p) for p in (0.05, 0.049, 0.0099, 0.0005, float("nan"))] == ["", "*", "**", "***", ""]


@pytest.fixture
def methods():
    """Two data sets of twelve scans: ours is better than both others in the first, and than one in the second."""
    rng = np.random.default_rng(3)
    rows = []
    for dataset, gains in (("T1", {"ours": 0.05, "a": 0, "b": -0.05}), ("CT", {"ours": 0.0, "a": 0.002, "b": -0.1})):
        for scan in range(12):
            base = 0.8 + rng.normal(0, 0.05)
            for method, gain in gains.items():
                dice = base + gain + rng.normal(0, 0.01)
                rows.append({"dataset": dataset, "scan": scan, "method": method, "dice": dice})
    return pd.DataFrame(rows)


def test_methods_are_compared_on_the_same_scans_and_corrected_for_all_tests(methods):
    options = {"value": "dice", "method": "method", "unit": "scan"}
    shuffled = methods.sample(frac=1, random_state=0)
    table = compare_methods(shuffled, **options, category="dataset").set_index(["dataset", "first", "second"])
    assert len(table) == 6 and (table["pairs"] == 12).all()
    wide = methods[methods["dataset"].eq("T1")].pivot(index="scan", columns="method", values="dice")
    row = next(row for key, row in table.iterrows() if key[0] == "T1" and {*key[1:]} == {"ours", "b"})
    expected = stats.wilcoxon(wide["ours"], wide["b"])
    assert row["p"] == expected.pvalue and row["p_corrected"] == pytest.approx(6 * expected.pvalue)
    assert row["stars"] == stars(row["p_corrected"]) == "**"
    with pytest.raises(ValueError, match="several scores of"):
        compare_methods(pd.concat([methods, methods]), **options, category="dataset")


def test_the_best_method_has_a_star_only_if_it_is_better_than_all_others(methods):
    options = {"value": "dice", "method": "method", "unit": "scan", "category": "dataset"}
    best = best_methods(methods, **options).set_index("dataset")
    assert best.loc["T1", "best"] == "ours" and best.loc["T1", "stars"] == "**"
    assert best.loc["CT", "best"] in ("ours", "a") and best.loc["CT", "stars"] == ""
    worst = best_methods(methods, **options, larger_is_better=False).set_index("dataset")
    assert (worst["best"] == "b").all() and (worst["stars"] != "").all()
    alone = best_methods(methods[methods["method"].eq("a")], **options)
    assert alone["p_corrected"].isna().all() and (alone["stars"] == "").all()
    # a method that shares no scan cannot be beaten
    apart = methods.assign(scan=methods["scan"] + 100 * methods["method"].eq("b"))
    assert (best_methods(apart, **options)["stars"] == "").all()


def test_medians_carry_students_interval_within_the_bounds_of_the_score():
    values = [1.0, 2.0, 3.0, 10.0]
    middle, low, high = median_interval(values)
    half = 3.182 * np.std(values, ddof=1) / 2  # tables of Student's t: 3.182 for three degrees of freedom
    assert middle == 2.5
    assert high - middle == pytest.approx(half, rel=1e-3) and middle - low == pytest.approx(half, rel=1e-3)
    assert median_interval(values, bounds=(0, 256))[1] == 0
    assert median_interval(values, bounds=(0, 5))[2] == 5
    assert np.isnan(median_interval([1.0])[1])
    narrow = median_interval(values, level=0.5)
    assert low < narrow[1] < middle < narrow[2] < high
    for bad in ([], [1.0, np.nan]):
        with pytest.raises(ValueError, match="without NaN"):
            median_interval(bad)


def test_cohens_d_and_its_interval_reproduce_a_published_example(cars):
    # README of R's package effectsize: cohens_d(mpg ~ am, data = mtcars) is -1.48, 95 % CI [-2.27, -0.67]
    (manual, automatic), _ = cars
    assert np.round(cohens_d(automatic, manual), 2).tolist() == [-1.48, -2.27, -0.67]
    pooled = (12 * manual.var(ddof=1) + 18 * automatic.var(ddof=1)) / 30
    assert cohens_d(manual, automatic).d == pytest.approx((manual.mean() - automatic.mean()) / np.sqrt(pooled))
    wide, narrow = (cohens_d(manual, automatic, level=level) for level in (0.99, 0.5))
    assert wide.low < narrow.low < narrow.d < narrow.high < wide.high


def test_corrected_effects_are_those_of_a_published_linear_model(cars):
    # R: summary(lm(mpg ~ am + wt + qsec, mtcars)): am 2.9358 (SE 1.4109, p 0.046716), residual SE 2.459 on 28 df
    (manual, automatic), covariates = cars
    a, b = corrected(manual, automatic, covariates)
    assert a.mean() - b.mean() == pytest.approx(2.9358, abs=5e-5)
    within = np.square(a - a.mean()).sum() + np.square(b - b.mean()).sum()
    assert np.sqrt(within / 28) == pytest.approx(2.459, abs=5e-4)
    assert np.concatenate([a, b]).mean() == pytest.approx(np.concatenate([manual, automatic]).mean())
    effect = cohens_d(manual, automatic, covariates=covariates)
    assert effect.d == pytest.approx(2.9358 / np.sqrt(2.459**2 * 28 / 30), rel=1e-3)
    # The interval of level 1 - p just reaches zero.
    edge = cohens_d(manual, automatic, covariates=covariates, level=1 - 0.046716)
    assert edge.low == pytest.approx(0, abs=1e-4) and effect.low > 0


def test_a_correction_without_the_groups_is_the_residual_of_one_line(cars):
    (manual, automatic), (x, y) = cars
    a, b = corrected(manual, automatic, (x[:, :1], y[:, :1]), with_group=False)
    # R: lm(mpg ~ wt, mtcars): 37.2851 - 5.3445 wt
    mean = np.concatenate([x, y])[:, 0].mean()
    np.testing.assert_allclose(a, manual + 5.3445 * (x[:, 0] - mean), atol=1e-3)
    np.testing.assert_allclose(b, automatic + 5.3445 * (y[:, 0] - mean), atol=1e-3)


def test_covariates_do_not_depend_on_their_unit_and_constants_do_nothing(cars):
    (manual, automatic), (x, y) = cars
    reference = cohens_d(manual, automatic, covariates=(x, y))
    scaled = [np.column_stack([part[:, 0] * 1e6 + 1e7, part[:, 1], np.ones(len(part))]) for part in (x, y)]
    np.testing.assert_allclose(cohens_d(manual, automatic, covariates=tuple(scaled)), reference, rtol=1e-6)


def test_what_cannot_be_told_is_no_number_or_an_error():
    assert np.isnan(cohens_d([0.3, 0.3, 0.3], [0.3, 0.3])).all()
    a, b = np.arange(5.0), np.arange(5.0) + 1
    with pytest.raises(ValueError, match="tell the groups apart"):
        cohens_d(a, b, covariates=(np.zeros((5, 1)), np.ones((5, 1))))
    with pytest.raises(ValueError, match="too few"):
        cohens_d(a[:2], b[:2], covariates=(np.array([[1.0, 2], [2, 1]]), np.array([[4.0, 1], [3, 7]])))
    with pytest.raises(ValueError, match="NaN"):
        cohens_d([1, np.nan], b)


def test_the_known_effect_of_simulated_cohorts_lies_in_the_interval_as_often_as_promised():
    """Patients are older: a correction that ignored the groups would take part of the effect for that of age."""
    rng, covered, estimates, false, trials, true = np.random.default_rng(0), 0, [], 0, 600, 1.2
    for _ in range(trials):
        age = np.concatenate([rng.normal(72, 7, 40), rng.normal(82, 7, 40)])
        sex, icv = rng.integers(0, 2, 80), rng.normal(1.5e6, 1.3e5, 80)
        volume = 3500 - 20 * (age - 72) + 80 * sex + 1.2e-3 * (icv - 1.5e6) + rng.normal(0, 300, 80)
        design = np.column_stack([age, sex, icv])
        halves = design[:40], design[40:]
        effect = cohens_d(volume[:40] + 300 * true, volume[40:], covariates=halves)
        covered += effect.low <= true <= effect.high
        estimates.append(effect.d)
        false += mann_whitney(*corrected(volume[:40], volume[40:], halves, with_group=False))[1] < 0.05
    # three standard errors of a binomial count
    assert abs(covered / trials - 0.95) < 3 * np.sqrt(0.95 * 0.05 / trials)
    assert false / trials < 0.05 + 3 * np.sqrt(0.95 * 0.05 / trials)
    assert np.mean(estimates) == pytest.approx(true, rel=0.05)

"""Expectation maximisation (Dempster et al. 1977) of a Gaussian mixture of intensities.

Intensities are first counted in a histogram, fine against the width of any tissue's distribution: a region of ten
million voxels is then as quick to cluster as one of a thousand, and the likelihood is the same up to the width of a
bin. That weighting is what scikit-learn's ``GaussianMixture``, against which the tests check it, cannot take.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 1024
"""Most bins of the histogram; fewer distinct values are kept as they are."""
OUTLIERS = (0.1, 99.9)
"""Percentiles between which the bins lie; what is beyond is counted in the outermost ones."""
TOLERANCE = 1e-8
"""Change of the mean log-likelihood of a voxel below which the mixture has converged."""
ITERATIONS = 1000
STARTS = 4
"""Random starts of the k-means clustering that the mixture begins with; the tightest is taken."""
AT_A_TIME = 1 << 18
"""Intensities assigned at a time; bounds the memory."""


@dataclass(frozen=True)
class Mixture:
    """A mixture of Gaussians, in ascending order of the means.

    Attributes
    ----------
    weights, means, variances : numpy.ndarray
        float64 ``[k]``; the weights add up to 1.
    log_likelihood : float
        Mean over the voxels, at the given parameters.
    """

    weights: np.ndarray
    means: np.ndarray
    variances: np.ndarray
    log_likelihood: float

    def assign(self, intensities: np.ndarray) -> np.ndarray:
        """Return the most probable component of each intensity: uint8 of the same shape, 0 is the darkest."""
        flat = np.asarray(intensities, np.float64).ravel()
        best = np.empty(len(flat), np.uint8)
        for start in range(0, len(flat), AT_A_TIME):
            part = slice(start, start + AT_A_TIME)
            best[part] = _log_joint(flat[part], self.weights, self.means, self.variances).argmax(0)
        return best.reshape(np.shape(intensities))


def histogram(intensities: np.ndarray, bins: int = BINS) -> tuple[np.ndarray, np.ndarray, float]:
    """Count intensities.

    Parameters
    ----------
    intensities : numpy.ndarray
        Any shape, not empty.
    bins : int
        Most values to return.

    Returns
    -------
    values : numpy.ndarray
        float64 ``[n]``, ascending: the distinct intensities where there are few, else the middles of bins.
    counts : numpy.ndarray
        float64 ``[n]``.
    width : float
        Width of a bin; of distinct intensities 0.
    """
    values, counts = np.unique(intensities, return_counts=True)
    values, counts = values.astype(np.float64), counts.astype(np.float64)
    if len(values) <= bins:
        return values, counts, 0.0
    low, high = np.percentile(intensities, OUTLIERS)
    if not low < high:  # nearly all voxels are alike
        low, high = values[[0, -1]]
    edges = np.linspace(low, high, bins + 1)
    counted, _ = np.histogram(np.clip(values, low, high), edges, weights=counts)
    middles = (edges[:-1] + edges[1:]) / 2
    return middles[counted > 0], counted[counted > 0], float(edges[1] - edges[0])


def fit_mixture(intensities: np.ndarray, components: int, rng: np.random.Generator) -> Mixture:
    """Fit a mixture to intensities by expectation maximisation, starting from k-means clusters.

    Parameters
    ----------
    intensities : numpy.ndarray
        Any shape.
    components : int
        Gaussians; as many as there are distinct intensities where those are fewer.
    rng : numpy.random.Generator
        For the starts of k-means.

    Raises
    ------
    ValueError
        There are no intensities, or some are not finite, or no component was asked for.
    """
    intensities = np.asarray(intensities)
    if components < 1:
        raise ValueError(f"a mixture needs at least one component, not {components}")
    if not intensities.size or not np.isfinite(intensities).all():
        raise ValueError("a mixture needs finite intensities, and at least one")
    values, counts, width = histogram(intensities)
    clusters = k_means(values, counts, min(components, len(values)), rng)
    membership = np.equal.outer(np.arange(clusters.max() + 1), clusters).astype(np.float64)
    # Within a bin intensities vary too; and a spike, such as the zeros around a masked image, needs some width.
    spread = np.average((values - np.average(values, weights=counts)) ** 2, weights=counts)
    return expectation_maximisation(values, counts, membership, least_variance=width**2 / 12 + 1e-6 * spread + 1e-12)


def expectation_maximisation(
    values: np.ndarray, counts: np.ndarray, membership: np.ndarray, *, least_variance: float
) -> Mixture:
    """Maximise the likelihood of weighted values under a mixture of Gaussians.

    With w_k, mu_k, s_k the parameters and n_i the counts, in turn until the likelihood stands still:

        r_ki = w_k N(v_i; mu_k, s_k) / sum_j w_j N(v_i; mu_j, s_j)                                   (expectation)
        N_k = sum_i n_i r_ki,  w_k = N_k / sum N,  mu_k = sum_i n_i r_ki v_i / N_k,
        s_k = sum_i n_i r_ki (v_i - mu_k)^2 / N_k + least_variance                                   (maximisation)

    Parameters
    ----------
    values, counts : numpy.ndarray
        float64 ``[n]``.
    membership : numpy.ndarray
        float64 ``[k, n]``: the responsibilities to begin with; columns add up to 1.
    least_variance : float
        Added to every variance.
    """
    total = counts.sum()
    before = -np.inf
    for _ in range(ITERATIONS):
        mass = membership @ counts + 1e-10 * total  # a component that lost all its voxels stays where it is not felt
        means = membership @ (counts * values) / mass
        variances = (membership * (values - means[:, None]) ** 2) @ counts / mass + least_variance
        weights = mass / mass.sum()
        joint = _log_joint(values, weights, means, variances)
        highest = joint.max(0)
        evidence = highest + np.log(np.exp(joint - highest).sum(0))
        likelihood = float(counts @ evidence / total)
        if likelihood - before < TOLERANCE:
            break
        before = likelihood
        membership = np.exp(joint - evidence)
    order = np.argsort(means)
    return Mixture(weights[order], means[order], variances[order], likelihood)


def k_means(values: np.ndarray, counts: np.ndarray, clusters: int, rng: np.random.Generator) -> np.ndarray:
    """Cluster weighted values by Lloyd's algorithm from starts of k-means++.

    Parameters
    ----------
    values, counts : numpy.ndarray
        float64 ``[n]``, the values distinct.
    clusters : int
        At most n.
    rng : numpy.random.Generator
        For the starts.

    Returns
    -------
    numpy.ndarray
        int ``[n]``, 0 the lowest cluster; none is empty.
    """
    best, least = None, np.inf
    for _ in range(STARTS):
        centres = _spread_centres(values, counts, clusters, rng)
        for _ in range(ITERATIONS):
            nearest = np.searchsorted((centres[1:] + centres[:-1]) / 2, values)
            mass = np.bincount(nearest, counts, clusters)
            moved = np.where(
                mass > 0, np.bincount(nearest, counts * values, clusters) / np.maximum(mass, 1e-300), centres
            )
            if np.array_equal(moved, centres):
                break
            centres = np.sort(moved)
        inertia = counts @ (values - centres[nearest]) ** 2
        if inertia < least:
            best, least = nearest, inertia
    return np.unique(best, return_inverse=True)[1]


def _spread_centres(values: np.ndarray, counts: np.ndarray, clusters: int, rng: np.random.Generator) -> np.ndarray:
    """Return centres drawn in proportion to counts times squared distance to the nearest centre (k-means++)."""
    centres = [rng.choice(values, p=counts / counts.sum())]
    while len(centres) < clusters:
        distance = np.abs(np.subtract.outer(values, centres)).min(1) ** 2 * counts
        centres.append(rng.choice(values, p=distance / distance.sum()))
    return np.sort(centres)


def _log_joint(values: np.ndarray, weights: np.ndarray, means: np.ndarray, variances: np.ndarray) -> np.ndarray:
    """Return log of weight times density of each component at each value, ``[k, n]``."""
    squares = (values - means[:, None]) ** 2 / variances[:, None]
    return np.log(weights)[:, None] - 0.5 * (np.log(2 * np.pi * variances)[:, None] + squares)

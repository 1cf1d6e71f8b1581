"""Clean-up of posteriors, label maps, and label maps on other grids."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, label, map_coordinates

from synthseg_slicer import postprocess
from synthseg_slicer.errors import OptionError
from synthseg_slicer.labels import BRAIN_IDS, BRAIN_TOPOLOGY
from synthseg_slicer.postprocess import GridMap, clean_up, label_dtype, label_map, largest_component, resample_labels
from synthseg_slicer.predict import TopPosteriors

SHAPE = (14, 15, 16)


def top_of(dense: np.ndarray, ids=BRAIN_IDS, box=None, shape=None) -> TopPosteriors:
    """Return the top four of dense posteriors [labels, x, y, z]."""
    order = np.argsort(-dense, axis=0, kind="stable")[:4]
    values = np.take_along_axis(dense, order, 0).astype(np.float16)
    box = box or tuple(slice(0, n) for n in dense.shape[1:])
    return TopPosteriors(order.astype(np.uint8), values, box, shape or dense.shape[1:], tuple(ids))


def dense_of(top: TopPosteriors) -> np.ndarray:
    return np.stack([top.posterior(channel) for channel in range(len(top.ids))])


def blobs(labels=(2, 3, 10), seed=0) -> np.ndarray:
    """Return smooth random posteriors with several islands a label, exact in half precision, [33, *SHAPE]."""
    rng = np.random.default_rng(seed)
    dense = np.zeros((len(BRAIN_IDS), *SHAPE))
    dense[0] = 1
    for label_id in labels:
        field = gaussian_filter(rng.normal(size=SHAPE), 1.2)
        dense[BRAIN_IDS.index(label_id)] = np.exp(5 * field / field.std() - 4).clip(0, 50)
    dense = np.floor(1024 * dense / dense.sum(0)) / 1024
    dense[0] += 1 - dense.sum(0)
    return dense


def biggest(mask):
    components, count = label(mask)
    return components == 1 + np.argmax(np.bincount(components.ravel())[1:]) if count else mask


def naive_clean_up(dense):
    dense = dense.copy()
    dense[1:] *= biggest(dense[1:].sum(0) > 0.25)
    strong = dense > 0.25
    for topology_class in set(BRAIN_TOPOLOGY.values()) - {0}:
        members = [c for c, label_id in enumerate(BRAIN_IDS) if BRAIN_TOPOLOGY[label_id] == topology_class]
        dense[members] *= biggest(strong[members].any(0))
    total = dense.sum(0)
    dense[0][total == 0] = 1
    return dense / np.where(total == 0, 1, total)


@pytest.mark.parametrize("labels", [(2, 3, 10), (2, 3, 24), (41, 10, 24), (7, 14, 60)])
def test_clean_up_follows_the_rules_written_out_naively(labels):
    top = top_of(blobs(labels, seed=sum(labels)))
    before = dense_of(top)
    expected = naive_clean_up(before)
    assert np.abs(expected - before).max() > 0.3  # something was there to clean
    np.testing.assert_allclose(dense_of(clean_up(top, BRAIN_TOPOLOGY)), expected, atol=2e-3)


def test_clean_up_keeps_the_largest_component_of_a_class_and_its_union():
    dense = np.zeros((len(BRAIN_IDS), 20, 9, 9))
    wm, cortex, thalamus = (BRAIN_IDS.index(label_id) for label_id in (2, 3, 10))
    dense[wm, 2:8, 2:7, 2:7] = 1
    dense[cortex, 8:10, 2:7, 2:7] = 1  # touches the white matter: same class, so it stays
    dense[thalamus, 10:13, 2:7, 2:7] = 1
    dense[wm, 13:15, 2:4, 2:4] = 1  # an island of the class, within the foreground's component
    dense[thalamus, 17:19, 7:9, 7:9] = 1  # apart from everything
    dense[0] = 1 - dense.sum(0)
    labels = label_map(clean_up(top_of(dense), BRAIN_TOPOLOGY))
    assert np.all(labels[2:8, 2:7, 2:7] == 2) and np.all(labels[8:10, 2:7, 2:7] == 3)
    assert np.all(labels[10:13, 2:7, 2:7] == 10)
    assert not labels[13:].any()


def test_probabilities_add_up_to_one_and_are_never_nan_even_where_nothing_is_left():
    dense = np.zeros((len(BRAIN_IDS), 6, 6, 6))
    dense[1, :2] = 1  # a component
    dense[2:6, 4:, 4:, 4:] = 0.25  # four labels without any background: removed entirely
    dense[0] = 1 - dense.sum(0)
    cleaned = clean_up(top_of(dense), BRAIN_TOPOLOGY)
    sums = cleaned.probabilities.astype(np.float32).sum(0)
    np.testing.assert_allclose(sums, 1, atol=2e-3)
    assert not label_map(cleaned)[4:].any()


def test_clean_up_leaves_an_empty_prediction_and_a_background_one_alone():
    nothing = TopPosteriors(
        np.zeros((4, 0, 0, 0), np.uint8), np.zeros((4, 0, 0, 0), np.float16), (slice(0, 0),) * 3, SHAPE, BRAIN_IDS
    )
    assert not label_map(clean_up(nothing, BRAIN_TOPOLOGY)).any()
    background = np.zeros((len(BRAIN_IDS), 5, 5, 5))
    background[0] = 1
    assert not label_map(clean_up(top_of(background), BRAIN_TOPOLOGY)).any()


def test_components_connect_through_faces_only():
    mask = np.zeros((6, 4, 4), bool)
    mask[0:2, 0, 0] = True
    mask[2:5, 1, 1] = True  # meets the first along an edge
    assert np.array_equal(np.argwhere(largest_component(mask))[:, 0], [2, 3, 4])


def test_label_map_places_the_box_and_picks_a_type_that_holds_the_ids():
    top = top_of(blobs()[:, 3:9, 4:9, 5:9], box=(slice(3, 9), slice(4, 9), slice(5, 9)), shape=SHAPE)
    labels = label_map(top)
    expected = np.array(BRAIN_IDS)[blobs()[:, 3:9, 4:9, 5:9].argmax(0)]
    assert labels.dtype == np.uint8 and np.mean(labels[3:9, 4:9, 5:9] == expected) > 0.99
    assert not labels[:3].any() and not labels[:, :, 9:].any()
    assert label_dtype((0, 1035)) is np.int16 and label_dtype((0, 11101, 70000)) is np.int32


def affine_of(order, spacing, start=(3.0, -20.0, 11.0), flips=(1, 1, 1), turn=0.0) -> np.ndarray:
    """Return an affine whose axis a runs along world axis order[a], turned about z."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (world, size, sign) in enumerate(zip(order, spacing, flips)):
        affine[world, axis] = sign * size
    c, s = np.cos(turn), np.sin(turn)
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ affine[:3, :3]
    affine[:3, 3] = start
    return affine


def naive_resampling(dense, source_affine, shape, affine):
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij")).reshape(3, -1)
    matrix = np.linalg.inv(source_affine) @ affine
    where = matrix[:3, :3] @ index + matrix[:3, 3:]
    sampled = np.stack([map_coordinates(p, where, order=1, mode="nearest") for p in dense])
    return sampled.reshape(len(dense), *shape)


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("slab", [1, 2**23])
def test_labels_on_another_grid_are_those_of_brute_force(order, slab, monkeypatch):
    monkeypatch.setattr(postprocess, "SLAB_VOXELS", slab)
    box = (slice(2, 13), slice(0, 12), slice(4, 16))
    top = top_of(blobs()[(slice(None), *box)], box=box, shape=SHAPE)
    top = clean_up(top, {})
    source = affine_of((0, 1, 2), (1, 1, 1), turn=0.3)
    sizes = np.array([0.7, 1.3, 2.1])
    flips = np.array([-1, 1, -1])
    shape = tuple(int(n) for n in (np.array(SHAPE)[list(order)] / sizes).round() + 3)
    affine = affine_of(order, sizes, turn=0.3, flips=flips)
    affine[:3, 3] += (source @ [*(np.array(SHAPE) / 2), 1] - affine @ [*(np.array(shape) / 2), 1])[:3]
    sampled = naive_resampling(dense_of(top), source, shape, affine)
    labels = resample_labels(top, GridMap(shape, affine, source))
    chosen = np.take_along_axis(sampled, np.searchsorted(BRAIN_IDS, labels)[None].astype(int), 0)[0]
    np.testing.assert_allclose(chosen, sampled.max(0), atol=2e-3)  # the largest, up to ties in half precision
    assert len(np.unique(labels)) > 3 and labels.shape == shape


def test_sampled_posterior_is_that_of_brute_force():
    top = top_of(blobs())
    source, affine = affine_of((0, 1, 2), (1, 1, 1)), affine_of((2, 0, 1), (1.5, 0.8, 1.1), (2.2, -21, 12))
    grid = GridMap((9, 17, 12), affine, source)
    expected = naive_resampling(dense_of(top), source, (9, 17, 12), affine)[2]
    np.testing.assert_allclose(grid.sample(top.posterior(2)), expected, atol=1e-4)


def test_a_grid_that_differs_by_order_and_direction_only_is_copied_exactly():
    top = top_of(blobs())
    labels = label_map(top)
    native = labels.transpose(2, 0, 1)[::-1, :, ::-1]
    source = affine_of((0, 1, 2), (1, 1, 1), turn=0.2)
    to_source = np.zeros((4, 4))  # native index to source index
    to_source[[2, 0, 1], [0, 1, 2]] = (-1, 1, -1)
    to_source[:, 3] = (0, SHAPE[1] - 1, SHAPE[2] - 1, 1)
    grid = GridMap(native.shape, source @ to_source, source)
    assert grid.is_copy()
    assert np.array_equal(resample_labels(top, grid), native)


def test_a_grid_outside_the_source_repeats_its_border():
    dense = np.zeros((len(BRAIN_IDS), 4, 4, 4))
    dense[0], dense[0, -1], dense[3, -1] = 1, 0, 1
    far = affine_of((0, 1, 2), (0.5, 0.5, 0.5), (10, 0, 0))
    labels = resample_labels(top_of(dense), GridMap((3, 4, 4), far, np.eye(4)))
    assert np.all(labels == BRAIN_IDS[3])


def test_grids_turned_against_each_other_are_refused():
    with pytest.raises(OptionError, match="do not share their axes"):
        GridMap((10, 10, 10), affine_of((0, 1, 2), (1, 1, 1), turn=0.1), np.eye(4))

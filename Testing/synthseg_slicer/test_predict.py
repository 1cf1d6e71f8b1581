"""Streamed prediction against the naive one that holds everything."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d
from synthetic import random_network

from synthseg_slicer import predict as predict_module
from synthseg_slicer import predict as room
from synthseg_slicer.conform import pad_to_multiple
from synthseg_slicer.errors import DeviceError
from synthseg_slicer.labels import BRAIN, BRAIN_FLIP, BRAIN_IDS
from synthseg_slicer.network import fold_batch_norm
from synthseg_slicer.predict import predict, resolve_device
from synthseg_slicer.weights import Model

HALF = 1e-3
"""Rounding of probabilities stored in half precision, with room for reordered sums."""


def image(shape=(37, 22, 27)) -> np.ndarray:
    return np.random.default_rng(1).random(shape, dtype=np.float32)


def naive(network, image, flip=True, sigma=0.5) -> np.ndarray:
    """Return the posteriors [labels, x, y, z] by the textbook."""
    passes = []
    for mirrored in (False, True)[: 1 + flip]:
        padded, inside = pad_to_multiple(np.ascontiguousarray(image[::-1] if mirrored else image), network.multiple)
        with torch.no_grad():
            p = network(torch.from_numpy(padded)[None, None]).softmax(1)[0].numpy()[(slice(None), *inside)]
        passes.append(p[:, ::-1][BRAIN_FLIP] if mirrored else p)
    mean = np.mean(passes, axis=0)
    for axis in (1, 2, 3):
        mean = gaussian_filter1d(mean, sigma, axis=axis, mode="nearest", truncate=2) if sigma else mean
    return mean


NETWORKS = {
    "fast": lambda: fold_batch_norm(random_network()),
    "paper": lambda: random_network("paper", features=2, levels=3),
}


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("options", [{}, {"flip": False}, {"smoothing": 0}, {"smoothing": 1.0}])
def test_streaming_gives_what_the_naive_way_gives(kind, options):
    network = NETWORKS[kind]()
    expected = naive(network, image(), options.get("flip", True), options.get("smoothing", 0.5))
    top = predict(Model(network, BRAIN, "", {}), image(), device="cpu", **options)
    np.testing.assert_allclose(top.probabilities, -np.sort(-expected, axis=0)[:4], atol=HALF)
    for rank in range(4):
        chosen = np.take_along_axis(expected, top.channels[rank].astype(int)[None], 0)[0]
        np.testing.assert_allclose(top.probabilities[rank], chosen, atol=HALF)


def test_streaming_works_for_a_network_of_an_unknown_kind(threshold_model):
    expected = naive(threshold_model.network, image((9, 10, 11)), flip=False)
    top = predict(threshold_model, image((9, 10, 11)), device="cpu", flip=False)
    np.testing.assert_allclose(top.posterior(13), expected[13], atol=HALF)


@pytest.mark.parametrize("shape", [(32, 24, 16), (37, 22, 27)])
def test_mirrored_input_gives_mirrored_output(random_model, shape):
    plain = predict(random_model, image(shape), device="cpu")
    mirrored = predict(random_model, image(shape)[::-1], device="cpu")
    for channel in range(len(BRAIN_IDS)):
        np.testing.assert_allclose(mirrored.posterior(BRAIN_FLIP[channel])[::-1], plain.posterior(channel), atol=HALF)


def test_two_runs_are_identical(random_model):
    first, second = (predict(random_model, image(), device="cpu") for _ in range(2))
    assert np.array_equal(first.probabilities, second.probabilities)
    assert np.array_equal(first.channels, second.channels)


def certain_outside(monkeypatch, box):
    """Let the coarse logits be certain of background outside a box of an unpadded, unmirrored image."""
    monkeypatch.setattr(room, "MARGIN", 0)
    monkeypatch.setattr(room.Pass, "foreground", lambda self, background: box)


def test_inside_the_box_restricting_the_fine_branch_changes_nothing(random_model, monkeypatch):
    whole = predict(random_model, image(), device="cpu")
    box = (slice(5, 30), slice(3, 18), slice(4, 25))
    certain_outside(monkeypatch, box)
    part = predict(random_model, image(), device="cpu")
    assert part.box == box and part.shape == whole.shape
    np.testing.assert_allclose(part.probabilities, whole.probabilities[(slice(None), *box)], atol=HALF)
    background = part.posterior(0)
    assert background[0, 0, 0] == 1 and part.posterior(3)[0, 0, 0] == 0
    np.testing.assert_allclose(background[box], part.boxed(0))


@pytest.mark.parametrize("mirrored", [False, True])
def test_coarse_logits_bound_the_box_in_the_images_own_coordinates(mirrored):
    network = random_network()
    with torch.no_grad():  # coarse background is certain except where the trunk's first feature is 1
        network.coarse_head.weight.zero_()
        network.coarse_head.bias.zero_()
        network.coarse_head.bias[0] = 20
        network.coarse_head.weight[0, 0] = -20
        seen = room.Pass(image(), mirrored, network, list(range(33)), lambda fraction: None)
        seen.trunk.zero_()
        seen.trunk[:, 0, 4:6, 2, 3] = 1
    padded = (slice(8, 12), slice(4, 6), slice(6, 8))
    x, y, z = (slice(p.start - b, p.stop - b) for p, b in zip(padded, seen.before))
    assert seen.foreground(0) == ((slice(37 - x.stop, 37 - x.start) if mirrored else x), y, z)
    seen.trunk.zero_()
    assert seen.foreground(0) is None


def test_an_image_of_certain_background_gives_background_only(random_model, monkeypatch):
    certain_outside(monkeypatch, None)
    top = predict(random_model, image(), device="cpu")
    assert top.channels.shape == (4, 0, 0, 0)
    assert top.posterior(0).min() == 1 and top.posterior(5).max() == 0


def test_progress_rises_to_one_and_can_stop_the_prediction(random_model):
    seen = []
    predict(random_model, image(), device="cpu", progress=seen.append)
    assert seen == sorted(seen) and seen[0] < 0.1 and seen[-1] == 1.0 and len(seen) > 12

    def stop(fraction):
        if fraction > 0.3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        predict(random_model, image(), device="cpu", progress=stop)
    assert not any(module._forward_pre_hooks for module in random_model.network.modules())


@pytest.mark.parametrize("name", ["warp-drive", "cuda:99", "meta", "xpu"])
def test_unknown_and_absent_devices_are_refused(name):
    with pytest.raises(DeviceError, match=name):
        resolve_device(name)


def test_auto_device_is_one_that_exists():
    assert resolve_device(resolve_device("auto")).type in ("cpu", "cuda")


def fail_on(monkeypatch, *kinds):
    original = room.on_device

    def prepared(network, device):
        if device.type in kinds:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return original(network, device)

    monkeypatch.setattr(room, "on_device", prepared)
    monkeypatch.setattr(room, "resolve_device", torch.device)


def test_out_of_gpu_memory_falls_back_to_the_cpu_with_a_warning(random_model, monkeypatch):
    expected = predict(random_model, image(), device="cpu")
    fail_on(monkeypatch, "mps")
    with pytest.warns(room.DeviceWarning, match="computed on the CPU"):
        top = predict(random_model, image(), device="mps")
    assert np.array_equal(top.probabilities, expected.probabilities)


def test_out_of_memory_on_the_cpu_says_so(random_model, monkeypatch):
    fail_on(monkeypatch, "cpu")
    with pytest.raises(DeviceError, match="Not enough memory"):
        predict(random_model, image(), device="cpu")


def test_other_failures_of_the_device_are_not_hidden(random_model, monkeypatch):
    def broken(network, device):
        raise RuntimeError("illegal instruction")

    monkeypatch.setattr(room, "on_device", broken)
    with pytest.raises(RuntimeError, match="illegal instruction"):
        predict(random_model, image(), device="cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("kind", NETWORKS)
def test_half_precision_on_the_gpu_agrees_with_the_cpu(kind):
    model = Model(NETWORKS[kind](), BRAIN, "", {})
    on_cpu, on_gpu = (predict(model, image(), device=device) for device in ("cpu", "cuda"))
    assert np.mean(on_cpu.channels[0] == on_gpu.channels[0]) > 0.99
    assert next(model.network.parameters()).dtype == torch.float32
    for channel in range(33):
        assert np.abs(on_cpu.posterior(channel) - on_gpu.posterior(channel)).mean() < 5e-3


def test_the_number_of_threads_changes_neither_the_result_nor_torchs_setting(random_model):
    one = predict(random_model, image(), device="cpu")
    torch.set_num_threads(2)
    try:
        two = predict(random_model, image(), device="cpu")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    np.testing.assert_allclose(two.probabilities, one.probabilities, atol=HALF)


def test_the_largest_probabilities_are_those_of_topk():
    torch.manual_seed(0)
    plane = torch.randn(20, 30, 33).mul(3).softmax(-1)
    values, indices = predict_module._largest(plane, 4)
    expected, _ = plane.topk(4, dim=-1)
    torch.testing.assert_close(values, expected, rtol=2**-16, atol=1e-12)
    torch.testing.assert_close(plane.gather(-1, indices.long()), expected, rtol=2**-16, atol=1e-12)

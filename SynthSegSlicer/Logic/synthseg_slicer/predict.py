"""From an image to posteriors, streamed: no full-resolution volume with one channel per label is ever held.

Each pass (the image, and the image mirrored) keeps only the network's last features, at half resolution for
:class:`~synthseg_slicer.network.FastUNet`. Then, in slabs along x and plane by plane, heads and softmax of both
passes are evaluated, averaged, smoothed with a Gaussian (a window of neighbouring planes is kept), and the four most
probable labels of each voxel are stored. A plane's posteriors fit in the processor's cache, which makes this faster
than whole volumes as well as smaller; each core works on a slab of its own.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .conform import pad_to_multiple
from .errors import DeviceError
from .labels import flip_permutation
from .network import FastUNet, space_to_depth
from .weights import Model

TOP = 4
"""Labels kept per voxel. At most three can exceed the clean-up's threshold of 0.25."""

SLAB = 16
"""Planes done at a time by one thread; more costs memory, fewer repeat borders."""

WORKERS = 4
"""Most slabs in work at once; each takes about 150 MB for a head at 1 mm."""

CERTAIN_BACKGROUND = 0.98
MARGIN = 8
"""The full-resolution part runs only in the box of voxels whose coarse background probability is below
``CERTAIN_BACKGROUND``, plus ``MARGIN`` voxels. The clean-up discards voxels with less than 0.25 foreground anyway."""

Box = tuple[slice, slice, slice]


class DeviceWarning(UserWarning):
    """The requested device could not be used to the end."""


@dataclass(frozen=True)
class TopPosteriors:
    """The most probable labels of each voxel, inside the box outside which everything is background.

    Attributes
    ----------
    channels : uint8 array [4, x, y, z]
        Channel (index into the label ids), most probable first; meaningless where the probability is 0.
    probabilities : float16 array [4, x, y, z]
        Their posterior probabilities.
    box : tuple of three slices
        Where the arrays lie in the whole image.
    shape : tuple of three int
        Of the whole image.
    ids : tuple of int
        Label id of each channel; the one with id 0 is background.
    """

    channels: np.ndarray
    probabilities: np.ndarray
    box: Box
    shape: tuple[int, int, int]
    ids: tuple[int, ...]

    @property
    def background(self) -> int:
        """Channel of the background."""
        return self.ids.index(0)

    def posterior(self, channel: int) -> np.ndarray:
        """Return one channel's probabilities for the whole image, float32 [x, y, z]."""
        whole = np.full(self.shape, channel == self.background, np.float32)
        whole[self.box] = self.boxed(channel)
        return whole

    def boxed(self, channel: int) -> np.ndarray:
        """Return one channel's probabilities inside the box, float32 [x, y, z]."""
        return sum((np.where(c == channel, p, 0) for c, p in zip(self.channels, self.probabilities)), np.float32(0))


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """Return the compute device by name.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda", "cuda:N", "mps"} or torch.device
        ``auto`` takes CUDA where there is one, else the CPU.

    Raises
    ------
    DeviceError
        The name is unknown or this machine has no such device.
    """
    if str(device) == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise DeviceError(f"Unknown device '{device}'. Choose auto, cpu, cuda, cuda:0 (a number), or mps.") from error
    present = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (resolved.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if resolved.type not in present:
        raise DeviceError(f"Unsupported device '{device}'. Choose auto, cpu, cuda, cuda:0 (a number), or mps.")
    if not present[resolved.type]:
        raise DeviceError(f"This machine has no device '{device}' that this PyTorch can use. Choose auto or cpu.")
    return resolved


def predict(
    model: Model,
    image: np.ndarray,
    *,
    flip: bool = True,
    device: str | torch.device = "auto",
    smoothing: float = 0.5,
    progress: Callable[[float], None] | None = None,
) -> TopPosteriors:
    """Predict the posteriors of a conformed image.

    The posteriors are the mean of two passes: the image as it is, and mirrored along x with the left and right
    channels swapped and the result mirrored back. The image is mirrored before it is padded, so a mirrored input
    gives exactly the mirrored output whatever its size. On CUDA the network runs in half precision. When the memory
    of a GPU does not suffice, a warning is issued and the CPU used.

    Parameters
    ----------
    model : Model
        Network and labels.
    image : float32 array [x, y, z]
        Intensities in [0, 1], RAS order.
    flip : bool
        Average with the mirrored pass.
    device : torch.device or str
        See :func:`resolve_device`.
    smoothing : float
        Standard deviation in voxels of the Gaussian that smooths the posteriors, truncated at two standard deviations;
        0 for none.
    progress : callable, optional
        Called with the fraction done, in [0, 1]; an exception that it raises stops the prediction.

    Returns
    -------
    TopPosteriors

    Raises
    ------
    DeviceError
        The device is unknown, or the machine's own memory does not suffice.
    """
    device = resolve_device(device)
    progress = progress or (lambda fraction: None)
    try:
        return _predict(model, image, flip, device, smoothing, progress)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        if device.type == "cpu":
            message = f"Not enough memory for an image of {image.shape} voxels. Crop it around the head."
            raise DeviceError(message) from error
        if device.type == "cuda":
            torch.cuda.empty_cache()
    message = f"The memory of the device {device} does not suffice; this scan was computed on the CPU."
    warnings.warn(message, DeviceWarning, stacklevel=2)
    return _predict(model, image, flip, torch.device("cpu"), smoothing, progress)


def out_of_memory(error: BaseException) -> bool:
    """Tell whether memory ran out; only CUDA has an exception class of its own, hence the text."""
    texts = ("out of memory", "not enough memory", "allocate memory", "alloc_failed", "bad_alloc")
    text = str(error).lower()
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(part in text for part in texts))


@torch.inference_mode()
def _predict(
    model: Model,
    image: np.ndarray,
    flip: bool,
    device: torch.device,
    smoothing: float,
    progress: Callable[[float], None],
) -> TopPosteriors:
    network = on_device(model.network, device)
    plain = list(range(len(model.ids)))
    passes = [Pass(image, False, network, plain, _between(progress, 0.0, 0.2 if flip else 0.4))]
    if flip:
        order = flip_permutation(model.ids, model.partners)
        passes.append(Pass(image, True, network, order, _between(progress, 0.2, 0.4)))
    box = _union([p.foreground(model.ids.index(0)) for p in passes], image.shape)
    shape = tuple(s.stop - s.start for s in box)
    channels = np.zeros((TOP, *shape), np.uint8)
    probabilities = np.zeros((TOP, *shape), np.float16)
    if not channels.size:  # nothing but background; there is no plane to compute
        return TopPosteriors(channels, probabilities, box, image.shape, model.ids)
    top, kernel = min(TOP, len(model.ids)), _kernel(smoothing)

    @torch.inference_mode()  # holds for one thread only
    def work(start: int) -> None:
        slab = (slice(start, min(start + SLAB, box[0].stop)), *box[1:])
        for x, plane in enumerate(_smoothed_planes(passes, slab, image.shape, kernel), start - box[0].start):
            values, indices = _largest(plane, top)
            channels[:top, x] = indices.permute(2, 0, 1).to(torch.uint8).cpu().numpy()
            probabilities[:top, x] = values.permute(2, 0, 1).half().cpu().numpy()

    starts = range(box[0].start, box[0].stop, SLAB)
    for done, _ in enumerate(_on_cores(work, starts) if device.type == "cpu" else map(work, starts), 1):
        progress(0.4 + 0.6 * done / len(starts))
    return TopPosteriors(channels, probabilities, box, image.shape, model.ids)


def _on_cores(work: Callable[[int], None], tasks: Iterable[int]) -> Iterator[None]:
    """Run tasks in a few threads, one core each, and yield as they finish, in order.

    Torch's own parallel loops wait for each other after every operation. For the many small operations on planes that
    costs more than it gains, and on a busy machine a hundred times more.
    """
    threads = torch.get_num_threads()
    workers = min(threads, WORKERS)
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(threads // workers,))
    try:
        yield from pool.map(work, tasks)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # the workers' settings reach the matrix library of all threads


def on_device(network: nn.Module, device: torch.device) -> nn.Module:
    """Return the network on the device: half precision on CUDA, channels last on both kinds of processor."""
    if device.type == "cuda":
        network = copy.deepcopy(network).half()
    return network.to(device, memory_format=torch.channels_last_3d)


class Pass:
    """One pass of a network over the image, mirrored along x or not: its last features, and its logits plane by plane.

    Coordinates outside this class are those of the image as given; inside, those of the padded, maybe mirrored one.

    Parameters
    ----------
    image : float32 array [x, y, z]
        As given to :func:`predict`.
    mirrored : bool
        Whether this pass sees the image mirrored along x.
    network : nn.Module
        :class:`FastUNet`, or a network with ``features`` and a 1x1x1 ``head`` such as the paper's, or any other.
    order : list of int
        Order in which the logits' channels are returned.
    progress : callable
        Called with the fraction of the network's convolutions that were run.
    """

    def __init__(
        self, image: np.ndarray, mirrored: bool, network: nn.Module, order: list[int], progress: Callable[[float], None]
    ):
        self.mirrored, self.network, self.order = mirrored, network, order
        self.extent = image.shape
        padded, inside = pad_to_multiple(image[::-1] if mirrored else image, network.multiple)
        self.before = tuple(s.start for s in inside)
        parameter = next(network.parameters())
        x = torch.from_numpy(np.ascontiguousarray(padded))[None, None].to(parameter.device, parameter.dtype)
        self.shape = tuple(x.shape[2:])
        self.fast = isinstance(network, FastUNet)
        with _counting_convolutions(network, progress):
            if self.fast:
                self.image, self.fine = x, _FineBranch(network)
                self.trunk = network.trunk(_channels_last(space_to_depth(x)))
                self.coarse_head, self.head = _linear(network.coarse_head, order), _linear(network.fine_head, order)
            elif hasattr(network, "features"):
                self.features = network.features(x)
                self.head = _linear(network.head, order)
            else:
                self.features = network(x)[:, order]
                self.head = None

    def open(self, start: int, stop: int, region: tuple[slice, slice]) -> Callable[[int], Tensor]:
        """Return a function from a plane's x in ``start`` to ``stop`` to its logits ``[y, z, labels]``.

        ``region`` is a range of y and z in padded coordinates, for :class:`FastUNet` with even bounds; the outermost
        ``reach`` voxels are valid only where the padded image ends.
        """

        def inside(x: int) -> int:
            return self.before[0] + (self.extent[0] - 1 - x if self.mirrored else x)

        if not self.fast:
            return lambda x: self._full_logits(inside(x), region)
        first, last = sorted((inside(start), inside(stop - 1)))
        wide = _even(first - self.network.reach, last + 1 + self.network.reach, self.shape[0])
        trunk = self.trunk[0][(slice(None), *(slice(s.start // 2, s.stop // 2) for s in (wide, *region)))]
        trunk = trunk.permute(1, 2, 3, 0)
        fine = self.fine(self.image[0, 0][(wide, *region)], trunk)
        weight, bias = self.coarse_head
        coarse = F.linear(trunk, weight, bias + self.head[1])
        return lambda x: self._fast_logits(inside(x) - wide.start, fine, coarse)

    def _full_logits(self, x: int, region: tuple[slice, slice]) -> Tensor:
        features = self.features[0, :, x, region[0], region[1]].permute(1, 2, 0)
        return features if self.head is None else F.linear(features, *self.head)

    def _fast_logits(self, x: int, fine: Tensor, coarse: Tensor) -> Tensor:
        """Return the logits of a plane of fine features ``[2x, y, z, C]``, coarse logits ``[x, y/2, z/2, labels]``."""
        # Trilinear upsampling, x first: the plane lies a quarter of a coarse voxel away from the nearer coarse plane.
        near, far = x // 2, x // 2 + (1 if x % 2 else -1)
        far = min(max(far, 0), len(coarse) - 1)
        plane = torch.lerp(coarse[near], coarse[far], 0.25)[None].permute(0, 3, 1, 2)
        plane = F.interpolate(plane, scale_factor=2, mode="bilinear", align_corners=False)
        plane = plane[0].permute(1, 2, 0).contiguous()
        weight = self.head[0]
        plane.view(-1, weight.shape[0]).addmm_(fine[x].reshape(-1, weight.shape[1]), weight.T)
        return plane

    def foreground(self, background: int) -> Box | None:
        """Return the box of voxels that may be foreground, in the image's coordinates; None if there are none."""
        if not self.fast:
            return tuple(slice(0, n) for n in self.extent)
        logits = (F.linear(plane.permute(1, 2, 0), *self.coarse_head) for plane in self.trunk[0].unbind(1))
        unsure = [plane.float().softmax(-1)[..., background] < CERTAIN_BACKGROUND for plane in logits]
        found = torch.nonzero(torch.stack(unsure))
        if not len(found):
            return None
        low = (2 * found.amin(0)).tolist()
        high = (2 * found.amax(0) + 2).tolist()
        x, y, z = (slice(lo - b, hi - b) for lo, hi, b in zip(low, high, self.before))
        if self.mirrored:
            x = slice(self.extent[0] - x.stop, self.extent[0] - x.start)
        return x, y, z


class _FineBranch:
    """The fine branch of :class:`FastUNet` for inference: ``network.fine_features``, rearranged for speed.

    Channels last throughout, the normalisation folded into the two convolutions before it, the sub-pixel convolution
    as a matrix product whose output needs no transposition, and the convolution of the single-channel image in 2D
    with three planes as channels: torch's 3D convolution is slow for one channel on the CPU.
    """

    def __init__(self, network: FastUNet):
        norm = network.fine_norm
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        width = len(scale)
        self.image_weight = network.fine_image.weight[:, 0] * scale[:, None, None, None]
        trunk = network.fine_trunk
        by_voxel = torch.arange(8 * width, device=scale.device).view(width, 8).T.flatten()
        self.trunk_weight = (trunk.weight[:, :, 0, 0, 0] * scale.repeat_interleave(8)[:, None])[by_voxel]
        bias = trunk.bias.view(width, 8) + (network.fine_image.bias - norm.running_mean)[:, None]
        self.bias = (bias * scale[:, None] + norm.bias[:, None]).T.flatten()
        self.last = network.fine

    def __call__(self, image: Tensor, trunk: Tensor) -> Tensor:
        """Return features ``[2x, 2y, 2z, C]`` from an image ``[2x, 2y, 2z]`` and trunk features ``[x, y, z, C']``."""
        x, y, z = trunk.shape[:3]
        blocks = F.linear(trunk, self.trunk_weight, self.bias).view(x, y, z, 2, 2, 2, -1)
        features = blocks.permute(0, 3, 1, 4, 2, 5, 6).reshape(2 * x, 2 * y, 2 * z, -1)
        planes = F.pad(image[None, None], (0, 0, 0, 0, 1, 1))[0, 0]
        planes = torch.stack([planes[:-2], planes[1:-1], planes[2:]], dim=-1).permute(0, 3, 1, 2)
        features.add_(F.conv2d(planes, self.image_weight, padding=1).permute(0, 2, 3, 1)).relu_()
        return self.last(features[None].permute(0, 4, 1, 2, 3))[0].permute(1, 2, 3, 0)


def _smoothed_planes(
    passes: list[Pass], box: Box, shape: tuple[int, int, int], kernel: list[float]
) -> Iterator[Tensor]:
    """Yield the smoothed mean posteriors ``[y, z, labels]`` of the passes for each plane of the box.

    The image's border voxels are repeated beyond the border, so that probabilities keep adding up to 1.
    """
    radius = len(kernel) - 1
    before, padded = passes[0].before, passes[0].shape
    reach = getattr(passes[0].network, "reach", 0) + radius
    region, inner = [], []
    for axis in (1, 2):
        low, high = box[axis].start - reach, box[axis].stop + reach
        region.append(_even(low + before[axis], high + before[axis], padded[axis]))
        wanted = torch.arange(box[axis].start - radius, box[axis].stop + radius).clamp(0, shape[axis] - 1)
        inner.append(wanted + before[axis] - region[-1].start)
    ends = max(box[0].start - radius, 0), min(box[0].stop + radius, shape[0])
    first, *others = (one.open(*ends, tuple(region)) for one in passes)
    window: deque[Tensor] = deque(maxlen=2 * radius + 1)
    done = None
    for x in range(box[0].start - radius, box[0].stop + radius):
        if done != (x := min(max(x, 0), shape[0] - 1)):
            mean = first(x).float().softmax(-1)
            for other in others:
                mean.add_(other(x).float().softmax(-1))
            plane = mean.div_(len(passes))
            for axis, wanted in enumerate(inner):
                plane = _blur([_shifted(plane, axis, wanted, step, radius) for step in range(2 * radius + 1)], kernel)
            done = x
        window.append(plane)
        if len(window) == 2 * radius + 1:
            yield _blur(list(window), kernel)


def _largest(plane: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the largest probabilities of the last axis and their indices ``[y, z, count]``, largest first.

    The index is written into the last bits of each number, so that ``amax``, which is vectorised, finds both at once:
    half the time of ``topk`` on a CPU. It costs a relative 2^-17; the result is stored with 2^-11.
    """
    labels = plane.shape[-1]
    if labels > 64 or plane.device.type != "cpu":
        return plane.topk(count, dim=-1)
    packed = plane.contiguous().view(torch.int32).bitwise_and(~63)
    packed = packed.bitwise_or_(torch.arange(labels, dtype=torch.int32)).view(torch.float32)
    found = []
    for rank in range(count):
        found.append(packed.amax(-1, keepdim=True))
        if rank + 1 < count:
            packed = packed.masked_fill_(packed == found[-1], 0)
    bits = torch.cat(found, -1).view(torch.int32)
    return bits.bitwise_and(~63).view(torch.float32), bits.bitwise_and(63)


def _shifted(plane: Tensor, axis: int, wanted: Tensor, step: int, radius: int) -> Tensor:
    """Return ``plane`` at the indices ``wanted`` of an axis, shifted by ``step``; a view where they are consecutive."""
    part = wanted[step : len(wanted) - 2 * radius + step]
    if part[-1] - part[0] == len(part) - 1:
        return plane.narrow(axis, int(part[0]), len(part))
    return plane.index_select(axis, part.to(plane.device))


def _blur(shifted: list[Tensor], kernel: list[float]) -> Tensor:
    """Return the weighted sum of the centre tensor and its symmetric neighbours; ``kernel`` starts at the centre."""
    centre = len(kernel) - 1
    if not centre:
        return shifted[0]
    result = (shifted[centre - 1] + shifted[centre + 1]).mul_(kernel[1]).add_(shifted[centre], alpha=kernel[0])
    for step in range(2, centre + 1):
        result.add_(shifted[centre - step], alpha=kernel[step]).add_(shifted[centre + step], alpha=kernel[step])
    return result


def _kernel(sigma: float) -> list[float]:
    """Return half of a Gaussian kernel truncated at two standard deviations, from its centre outwards; its sum is 1."""
    radius = math.ceil(2 * sigma)
    half = [math.exp(-0.5 * (step / sigma) ** 2) if sigma else 1.0 for step in range(radius + 1)]
    total = half[0] + 2 * sum(half[1:])
    return [weight / total for weight in half]


def _even(start: int, stop: int, extent: int) -> slice:
    """Return a range widened to even bounds and cut to an axis."""
    return slice(max(start, 0) // 2 * 2, min(stop + stop % 2, extent))


def _union(boxes: list[Box | None], shape: tuple[int, int, int]) -> Box:
    """Return the smallest box around all boxes, ``MARGIN`` wider, inside the image; an empty one if there are none."""
    boxes = [box for box in boxes if box is not None]
    if not boxes:
        return (slice(0, 0),) * 3
    return tuple(
        slice(max(min(b[axis].start for b in boxes) - MARGIN, 0), min(max(b[axis].stop for b in boxes) + MARGIN, n))
        for axis, n in enumerate(shape)
    )


def _linear(head: nn.Conv3d, order: list[int]) -> tuple[Tensor, Tensor]:
    """Return a 1x1x1 convolution as weight ``[labels, channels]`` and bias, its output channels in a new order."""
    return head.weight[order, :, 0, 0, 0], head.bias[order]


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last_3d)


def _between(progress: Callable[[float], None], low: float, high: float) -> Callable[[float], None]:
    return lambda fraction: progress(low + (high - low) * fraction)


@contextmanager
def _counting_convolutions(network: nn.Module, progress: Callable[[float], None]) -> Iterator[None]:
    """Call ``progress`` with the fraction of convolutions begun, at each convolution of the network."""
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv3d)]
    begun = iter(range(1, 1 << 30))
    hooks = [
        module.register_forward_pre_hook(lambda *_: progress(min(next(begun) / len(convolutions), 1.0)))
        for module in convolutions
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()

"""Which family of contrasts a scan shows, so that a network trained on that family alone can take over.

A network for any contrast must find out what bright means before it can follow an edge. One that sees a single family
follows edges better for the same training (``docs/explanation/contrast-experts.md``). The general network recognises
the tissues well enough at half resolution to tell the family.
"""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from .conform import pad_to_multiple
from .network import FastUNet, space_to_depth
from .predict import on_device, out_of_memory
from .weights import Model

T1, ANY = "t1", "any"
TISSUES = {"white matter": (2, 41), "grey matter": (3, 42), "fluid": (4, 14, 24, 43)}
"""Label ids from which a tissue's median intensity is taken."""
FEWEST_VOXELS = 500
"""Voxels of 2 mm that a tissue needs for a median to be trusted: 4 ml."""
CUBE = 160
"""Edge in voxels of the cube in the image's middle that is looked at; a whole head would take twice as long."""
LEAST_GAP = 0.2
"""Least distance between neighbouring tissues, as a share of the distance from fluid to white matter."""
LEAST_SPAN = 0.1
"""Least distance from fluid to white matter, as a share of the scan's intensity range."""


@torch.inference_mode()
def tissue_medians(model: Model, image: np.ndarray, device: str | torch.device = "cpu") -> dict[str, float]:
    """Return the median intensity of each tissue, as the network's half-resolution part finds it.

    Parameters
    ----------
    model : Model
        With a :class:`FastUNet`.
    image : float32 array [x, y, z]
        Conformed: intensities in [0, 1], RAS order, 1 mm.
    device : torch.device or str
        Where to compute.

    Returns
    -------
    dict
        Tissue of :data:`TISSUES` to intensity; tissues that are too small are left out.
    """
    network = on_device(model.network, torch.device(device))
    middle = tuple(slice(max(0, (n - CUBE) // 2), (n + CUBE) // 2) for n in image.shape)
    padded, _ = pad_to_multiple(image[middle], network.multiple)
    whole = torch.from_numpy(np.ascontiguousarray(padded))[None, None].to(next(network.parameters()))
    blocks = space_to_depth(whole).to(memory_format=torch.channels_last_3d)
    labels = torch.tensor(model.ids, device=device)[network.coarse_head(network.trunk(blocks))[0].argmax(0)]
    intensities = F.avg_pool3d(whole, 2)[0, 0].float()
    found = {tissue: intensities[torch.isin(labels, labels.new_tensor(ids))] for tissue, ids in TISSUES.items()}
    return {tissue: float(values.median()) for tissue, values in found.items() if len(values) >= FEWEST_VOXELS}


def contrast(medians: dict[str, float]) -> str:
    """Return ``t1`` where fluid is clearly darker than grey matter and that darker than white matter, else ``any``.

    Parameters
    ----------
    medians : dict
        From :func:`tissue_medians`.
    """
    if set(medians) != set(TISSUES):
        return ANY
    white, grey, fluid = (medians[tissue] for tissue in TISSUES)
    span = white - fluid
    return T1 if span >= LEAST_SPAN and min(white - grey, grey - fluid) >= LEAST_GAP * span else ANY


def expert_for(model: Model, image: np.ndarray, is_ct: bool, device: str | torch.device = "cpu") -> tuple[Model, str]:
    """Return the model to segment an image with, one of ``model.experts`` or ``model`` itself, and the contrast.

    Parameters are those of :func:`tissue_medians`; ``is_ct`` says that the scan is CT, for which there is no expert.
    """
    if not model.experts or is_ct or not isinstance(model.network, FastUNet):
        return model, ANY
    try:
        family = contrast(tissue_medians(model, image, device))
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        return model, ANY  # the prediction, which needs more, tells the user or turns to the CPU
    return model.experts.get(family, model), family

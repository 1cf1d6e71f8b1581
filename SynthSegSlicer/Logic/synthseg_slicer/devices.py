"""The compute devices of this machine. ``python -m synthseg_slicer.devices`` prints them as JSON."""

from __future__ import annotations

import json
import os

GIB = 2**30


def devices() -> list[dict[str, str]]:
    """Return the devices that ``segment(device=...)`` accepts here, the CPU first.

    Returns
    -------
    list of dict
        ``name`` as the option takes it, ``title`` for people.
    """
    import torch

    found = [{"name": "cpu", "title": f"CPU ({os.cpu_count()} cores)"}]
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        found.append({"name": f"cuda:{number}", "title": f"{properties.name} ({properties.total_memory / GIB:.0f} GB)"})
    if torch.backends.mps.is_available():
        found.append({"name": "mps", "title": "Apple GPU (MPS)"})
    return found


if __name__ == "__main__":
    print(json.dumps(devices()))

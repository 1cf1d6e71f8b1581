import json
import subprocess
import sys
from types import SimpleNamespace

import torch

from synthseg_slicer.devices import devices
from synthseg_slicer.predict import resolve_device


def test_every_device_listed_here_can_be_used():
    found = devices()
    assert found[0]["name"] == "cpu"
    for device in found:
        assert str(resolve_device(device["name"])) == device["name"]


def test_gpus_are_listed_with_their_memory(monkeypatch):
    card = SimpleNamespace(name="Card", total_memory=24 * 2**30)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: card)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert [device["name"] for device in devices()] == ["cpu", "cuda:0", "cuda:1", "mps"]
    assert devices()[2]["title"] == "Card (24 GB)"


def test_another_process_can_ask_in_json():
    command = [sys.executable, "-m", "synthseg_slicer.devices"]
    run = subprocess.run(command, capture_output=True, check=True, encoding="utf-8")
    assert json.loads(run.stdout) == devices()

"""Training of SynthSegSlicer's networks on synthetic scans drawn from label maps; runs without 3D Slicer."""

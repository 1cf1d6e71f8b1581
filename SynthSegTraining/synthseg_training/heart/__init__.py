"""SynthSeg for the heart (Billot et al. 2023, section 5.4): label maps that draw a few structures only.

The generative model needs a label for everything in the image. :mod:`.clustering` splits what is not drawn, and what is
drawn but not uniform, by the intensities of an image of the same subject; :mod:`.subdivide` makes training maps of it.
:mod:`.phantom` draws a thorax to try it all without data.
"""

# Stand-in: Slicer writes <extension>Config.cmake here, of which a scripted extension has no use.

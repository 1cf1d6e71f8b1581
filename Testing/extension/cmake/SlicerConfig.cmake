# Stand-in for the package that a Slicer build offers to extensions: only the variables that this extension uses.
set(Slicer_VERSION_MAJOR_MINOR 5.10)
set(Slicer_USE_FILE "${CMAKE_CURRENT_LIST_DIR}/UseSlicer.cmake")
set(Slicer_EXTENSION_GENERATE_CONFIG "${CMAKE_CURRENT_LIST_DIR}/SlicerExtensionGenerateConfig.cmake")
set(Slicer_EXTENSION_CPACK "${CMAKE_CURRENT_LIST_DIR}/SlicerExtensionCPack.cmake")
set(Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR lib/Slicer-${Slicer_VERSION_MAJOR_MINOR}/qt-scripted-modules)

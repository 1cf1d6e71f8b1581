# Lets project() pass without a compiler: the dry check configures and installs, it builds nothing.
set(CMAKE_SYSTEM_NAME Generic)
foreach(language IN ITEMS C CXX)
  set(CMAKE_${language}_COMPILER "${CMAKE_COMMAND}")
  set(CMAKE_${language}_COMPILER_ID_RUN TRUE)
  set(CMAKE_${language}_COMPILER_FORCED TRUE)
endforeach()

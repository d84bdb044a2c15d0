# The fuzz targets: the pure rooms once more, by Clang with libFuzzer, ASan and UBSan. A build of its own, since the
# rest is GCC's (scripts/fuzz configures it):
#   cmake -S . -B build/fuzz -DBULKHEAD_FUZZ=ON -DCMAKE_CXX_COMPILER=clang++-19
if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  message(FATAL_ERROR "libFuzzer comes with Clang: configure with -DCMAKE_CXX_COMPILER=clang++-19")
endif()
option(BULKHEAD_FUZZ_COVERAGE "count executed lines" OFF)

set(fuzz_flags -O1 -g1 -fno-omit-frame-pointer)
if(BULKHEAD_FUZZ_COVERAGE)
  list(APPEND fuzz_flags -fprofile-instr-generate -fcoverage-mapping)
else()
  list(APPEND fuzz_flags -fsanitize=address,undefined -fno-sanitize-recover=all)
endif()
# With GCC 12's library, Clang needs another value of __cpp_concepts to see std::expected.
add_compile_options(${fuzz_flags} -D__cpp_concepts=202002L -Wno-builtin-macro-redefined)
include_directories(${PROJECT_SOURCE_DIR})

foreach(room ${pure_rooms})
  string(REPLACE "/" "_" name ${room})
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${room}/*.cpp)
  if(sources)
    add_library(fuzz_room_${name} STATIC EXCLUDE_FROM_ALL ${sources})
    # GCC judges their warnings.
    target_compile_options(fuzz_room_${name} PRIVATE -fsanitize=fuzzer-no-link -w)
    list(APPEND fuzz_rooms fuzz_room_${name})
  endif()
endforeach()
file(GLOB fakes CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/fakes/*.cpp)
add_library(fuzz_fakes STATIC EXCLUDE_FROM_ALL ${fakes})

add_library(fuzz_replayer STATIC EXCLUDE_FROM_ALL ${PROJECT_SOURCE_DIR}/tests/replay/replayer.cpp)

# tests/fuzz/NAME.cpp becomes the program fuzz_NAME.
file(GLOB targets CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/fuzz/*.cpp)
foreach(source ${targets})
  get_filename_component(name ${source} NAME_WE)
  add_executable(fuzz_${name} ${source})
  target_compile_options(fuzz_${name} PRIVATE -Wall -Wextra $<$<BOOL:${BULKHEAD_WERROR}>:-Werror>)
  target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer ${fuzz_flags})
  target_link_libraries(fuzz_${name} PRIVATE -Wl,--start-group ${fuzz_rooms} fuzz_fakes -Wl,--end-group)
endforeach()

target_link_libraries(fuzz_replay PRIVATE -Wl,--start-group fuzz_replayer ${fuzz_rooms} fuzz_fakes -Wl,--end-group)

# Guest memory that changes between two reads of the dispatcher's: its accesses are diverted to the target.
target_link_options(fuzz_exits PRIVATE
  -Wl,--wrap=_ZNK8bulkhead11GuestMemory2atENS_7AddressINS_18GuestPhysicalSpaceEEEm)

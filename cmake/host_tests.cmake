# The pure rooms for the host, and a unit test program for each: tests/unit mirrors the tree.
set(host_flags -O1 -g1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)

add_library(host_pure INTERFACE)
foreach(room ${pure_rooms})
  string(REPLACE "/" "_" name ${room})
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${room}/*.cpp)
  if(sources)
    add_library(host_${name} STATIC ${sources})
    target_compile_options(host_${name} PRIVATE ${host_flags} ${warnings})
    target_include_directories(host_${name} PRIVATE ${PROJECT_SOURCE_DIR})
    list(APPEND host_libraries host_${name})
  endif()
endforeach()

add_library(catch_main STATIC ${PROJECT_SOURCE_DIR}/tests/unit/catch_main.cpp)
target_compile_options(catch_main PRIVATE ${host_flags})

# Catch2's one large header, compiled once for all test programs.
file(WRITE ${PROJECT_BINARY_DIR}/generated/catch_header.cpp "")
add_library(catch_header OBJECT ${PROJECT_BINARY_DIR}/generated/catch_header.cpp)
target_compile_options(catch_header PRIVATE ${host_flags} ${warnings})
target_precompile_headers(catch_header PRIVATE <catch2/catch.hpp>)

# Fakes that several rooms' tests share.
file(GLOB fakes CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/fakes/*.cpp)
add_library(test_fakes STATIC ${fakes})
target_compile_options(test_fakes PRIVATE ${host_flags} ${warnings})
target_include_directories(test_fakes PRIVATE ${PROJECT_SOURCE_DIR})

foreach(room ${pure_rooms})
  string(REPLACE "/" "_" name ${room})
  file(GLOB tests CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/unit/${room}/*.cpp)
  if(tests)
    add_executable(unit_${name} ${tests})
    target_compile_options(unit_${name} PRIVATE ${host_flags} ${warnings})
    target_include_directories(unit_${name} PRIVATE ${PROJECT_SOURCE_DIR})
    target_precompile_headers(unit_${name} REUSE_FROM catch_header)
    target_link_options(unit_${name} PRIVATE -fsanitize=address,undefined)
    # Rooms depend on one another in layers; the group spares us from spelling the order twice.
    target_link_libraries(unit_${name} PRIVATE catch_main -Wl,--start-group ${host_libraries} test_fakes
                        -Wl,--end-group)
    add_test(NAME unit.${name} COMMAND unit_${name})
  endif()
endforeach()

# Records of exits, replayed through the VMM; scripts/record makes new ones.
add_executable(replay ${PROJECT_SOURCE_DIR}/tests/replay/main.cpp ${PROJECT_SOURCE_DIR}/tests/replay/replayer.cpp)
target_compile_options(replay PRIVATE ${host_flags} ${warnings})
target_include_directories(replay PRIVATE ${PROJECT_SOURCE_DIR})
target_link_options(replay PRIVATE -fsanitize=address,undefined)
target_link_libraries(replay PRIVATE -Wl,--start-group ${host_libraries} test_fakes -Wl,--end-group)
target_sources(unit_vmm_record PRIVATE ${PROJECT_SOURCE_DIR}/tests/replay/replayer.cpp)
file(GLOB records CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/replay/*.record)
foreach(record ${records})
  get_filename_component(name ${record} NAME_WE)
  add_test(NAME replay.${name} COMMAND replay ${record})
endforeach()

# Oracles: well-kept libraries that our own code is compared with.
if(TARGET unit_vmm_decode)
  target_link_libraries(unit_vmm_decode PRIVATE Zydis)
endif()
if(TARGET unit_vmm_config)
  target_link_libraries(unit_vmm_config PRIVATE tomlplusplus)
endif()

# A short run of each fuzz target, the same each time; scripts/fuzz builds them and has the long ones.
file(GLOB fuzz_targets CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/tests/fuzz/*.cpp)
foreach(target ${fuzz_targets})
  get_filename_component(name ${target} NAME_WE)
  add_test(NAME fuzz.${name} COMMAND /usr/bin/python3 ${PROJECT_SOURCE_DIR}/scripts/fuzz.py --short --target ${name})
  set_tests_properties(fuzz.${name} PROPERTIES LABELS fuzz TIMEOUT 300)
endforeach()

# Checks of the source itself.
add_test(NAME check.includes COMMAND /usr/bin/python3 ${PROJECT_SOURCE_DIR}/scripts/check_includes.py)
add_test(NAME check.mutations COMMAND /usr/bin/python3 ${PROJECT_SOURCE_DIR}/scripts/mutate.py --anchors)
if(BULKHEAD_IMAGE)
  add_test(NAME check.stacks COMMAND /usr/bin/python3 ${PROJECT_SOURCE_DIR}/scripts/stack_use.py
           $<TARGET_FILE:bulkhead.elf>)
endif()
add_test(NAME check.format COMMAND ${PROJECT_SOURCE_DIR}/scripts/check_format.sh)
add_test(NAME check.tidy COMMAND ${PROJECT_SOURCE_DIR}/scripts/check_tidy.sh ${PROJECT_BINARY_DIR})
set_tests_properties(check.tidy PROPERTIES TIMEOUT 900 COST 500)

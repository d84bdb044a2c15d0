# System tests: Bulkhead booted by GRUB in Bochs (VT-x) and QEMU (AMD-V), driven over its serial console.

# The small guests they run: tests/guests/NAME.asm becomes tests/guests/NAME.bin in the build directory.
set(guests_source ${PROJECT_SOURCE_DIR}/tests/guests)
set(guests_output ${PROJECT_BINARY_DIR}/tests/guests)
file(MAKE_DIRECTORY ${guests_output})
file(GLOB guest_sources CONFIGURE_DEPENDS ${guests_source}/*.asm)
file(GLOB guest_includes CONFIGURE_DEPENDS ${guests_source}/*.inc)
foreach(source ${guest_sources})
  get_filename_component(name ${source} NAME_WE)
  set(output ${guests_output}/${name}.bin)
  add_custom_command(
    OUTPUT ${output}
    COMMAND ${CMAKE_ASM_NASM_COMPILER} -f bin -Wall -Werror -I ${guests_source}/ -o ${output} ${source}
    DEPENDS ${source} ${guest_includes}
    COMMENT "Assembling guest ${name}")
  list(APPEND guest_binaries ${output})
endforeach()
# The guest that measures.
set(bench_source ${PROJECT_SOURCE_DIR}/tests/bench)
set(bench_guest ${PROJECT_BINARY_DIR}/tests/bench/exits.bin)
file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/tests/bench)
add_custom_command(
  OUTPUT ${bench_guest}
  COMMAND ${CMAKE_ASM_NASM_COMPILER} -f bin -Wall -Werror -I ${bench_source}/ -o ${bench_guest} ${bench_source}/exits.asm
  DEPENDS ${bench_source}/exits.asm ${bench_source}/exits.inc
  COMMENT "Assembling the measuring guest")
list(APPEND guest_binaries ${bench_guest})
add_custom_target(test_guests ALL DEPENDS ${guest_binaries})
include(${CMAKE_CURRENT_LIST_DIR}/guest_programs.cmake)

# Registers tests/system/SCRIPT.py once for each machine. What takes longest starts first (COST), so that two test
# processes finish at about the same time.
#   add_system_test(SCRIPT MACHINES machine... [ARGUMENTS word...] [TIMEOUT seconds] [COST number])
function(add_system_test script)
  cmake_parse_arguments(PARSE_ARGV 1 test "" "TIMEOUT;COST" "MACHINES;ARGUMENTS")
  if(NOT test_TIMEOUT)
    set(test_TIMEOUT 300)
  endif()
  if(NOT test_COST)
    set(test_COST 10)
  endif()
  foreach(machine ${test_MACHINES})
    set(name system.${script}.${machine})
    add_test(NAME ${name} COMMAND /usr/bin/python3 ${PROJECT_SOURCE_DIR}/tests/system/${script}.py ${machine}
                                  ${test_ARGUMENTS})
    set_tests_properties(
      ${name} PROPERTIES TIMEOUT ${test_TIMEOUT} COST ${test_COST} LABELS system SKIP_RETURN_CODE 77
                         ENVIRONMENT "BULKHEAD_BUILD=${PROJECT_BINARY_DIR};PYTHONUNBUFFERED=1")
  endforeach()
endfunction()

add_system_test(linux MACHINES skylake epyc ARGUMENTS full TIMEOUT 900 COST 1000)
# On tigerlake there is no bare dmesg to compare with: without Bulkhead this kernel hangs there.
add_system_test(linux MACHINES ryzen tigerlake ARGUMENTS quick TIMEOUT 900 COST 900)
add_system_test(boot_errors MACHINES skylake epyc COST 100)
add_system_test(faults MACHINES skylake epyc COST 90)
add_system_test(console MACHINES skylake epyc COST 80)
add_system_test(console_json MACHINES skylake epyc COST 60)
add_system_test(protocols MACHINES skylake epyc COST 50)
add_system_test(cores MACHINES skylake ARGUMENTS 4 COST 60)
add_system_test(cores MACHINES epyc ARGUMENTS 16 COST 40)
add_system_test(spin MACHINES skylake epyc COST 40)
add_system_test(dedicated MACHINES skylake epyc TIMEOUT 600 COST 150)
add_system_test(exception_loops MACHINES skylake ryzen COST 60)
add_system_test(alone MACHINES skylake epyc COST 40)
add_system_test(debug_build MACHINES skylake epyc COST 30)
add_system_test(injected_faults MACHINES skylake epyc tigerlake TIMEOUT 900 COST 200)
add_system_test(uefi MACHINES epyc-uefi COST 20)
add_system_test(no_virtualization MACHINES penryn epyc-no-svm epyc-no-npt epyc-no-nx qemu64 pentium3)
add_system_test(guests MACHINES skylake epyc COST 60)
# A guest of 3.25 GiB: across the hole. Without the argument it has 5 GiB, which takes half as long again.
add_system_test(big_memory MACHINES epyc skylake ARGUMENTS 3328 TIMEOUT 900 COST 200)
add_system_test(shares MACHINES skylake TIMEOUT 600 COST 120)
# Not the gang: QEMU's cores are threads, which the host runs one after the other.
add_system_test(shares MACHINES epyc ARGUMENTS shares COST 40)
add_system_test(isolation MACHINES skylake epyc COST 60)
add_system_test(inmate MACHINES skylake epyc COST 70)
add_system_test(exerciser MACHINES skylake epyc COST 40)
add_system_test(attacks MACHINES skylake epyc TIMEOUT 600 COST 100)
add_system_test(virtual_interrupts MACHINES skylake epyc COST 20)
# With 1000 and 100000 for the long runs.
add_system_test(resets MACHINES epyc ARGUMENTS linux 3 COST 60)

# What operations cost a guest, in instructions, which the emulators count exactly.
foreach(machine skylake skylake-soft epyc)
  add_test(NAME bench.${machine} COMMAND /usr/bin/python3 ${bench_source}/bench.py --check ${machine})
  set_tests_properties(bench.${machine} PROPERTIES TIMEOUT 300 COST 30 LABELS system
                       ENVIRONMENT "BULKHEAD_BUILD=${PROJECT_BINARY_DIR};PYTHONUNBUFFERED=1")
endforeach()
add_system_test(smp_linux MACHINES epyc ARGUMENTS 4 TIMEOUT 900 COST 150)
add_system_test(smp_linux MACHINES skylake ARGUMENTS 2 4 TIMEOUT 900 COST 500)
add_system_test(life_cycle MACHINES epyc TIMEOUT 900 COST 150)
# With the argument 100 for the long run.
add_system_test(three_vms MACHINES epyc ARGUMENTS 8 TIMEOUT 900 COST 200)

# The freestanding image: bulkhead.elf in the build directory.
if(NOT BULKHEAD_IMAGE)
  return()
endif()

# The pure rooms that are linked into the image.
set(image_rooms ${pure_rooms})
if(BULKHEAD_IMAGE_ROOMS)
  set(image_rooms ${BULKHEAD_IMAGE_ROOMS})
endif()

if(NOT BULKHEAD_RECORD)
  list(REMOVE_ITEM image_rooms vmm/record)
endif()

set(image_flags
    -ffreestanding -fno-pic -mcmodel=kernel -mgeneral-regs-only -mno-red-zone -fno-exceptions -fno-rtti
    -fno-threadsafe-statics -fno-use-cxa-atexit -fno-asynchronous-unwind-tables -fcf-protection=branch
    -fno-omit-frame-pointer -ffunction-sections -fdata-sections
    -fstack-protector-strong -mstack-protector-guard=global -fno-strict-aliasing
    -Wframe-larger-than=2048)
if(CMAKE_BUILD_TYPE STREQUAL "Debug")
  list(APPEND image_flags -DBULKHEAD_FAULT_INJECTION) # kernel/bootinfo/fault_injection.hpp
endif()
if(BULKHEAD_RECORD)
  list(APPEND image_flags -DBULKHEAD_RECORD)
endif()
# Rooms and files of which nothing runs on an exit, but at boot or at the operator's pace: small rather than fast.
set(cold_rooms boot drivers kernel/bootinfo kernel/log kernel/smp vmm/config vmm/console vmm/loader)
set(cold_files
    vmm/mitigations vmm/manager vmm/manager_definitions vmm/manager_queries vmm/provisioner vmm/partition_plan vmm/cpuid_policy
    kernel/mem/unit_allocator kernel/mem/compartment
    arch/x86/vmx/capabilities arch/x86/vmx/feature_control arch/x86/vmx/host_state arch/x86/vmx/guest_state
    arch/x86/vmx/entry_checks_controls arch/x86/vmx/entry_checks_guest arch/x86/vmx/entry_checks_host
    arch/x86/svm/capabilities arch/x86/svm/entry_checks
    arch/x86/cpu/panic arch/x86/cpu/descriptor_tables arch/x86/cpu/control_registers)
list(TRANSFORM cold_files APPEND ".cpp")
list(TRANSFORM cold_files PREPEND ${PROJECT_SOURCE_DIR}/)

# All else runs on top of these two, for ever: what they call once has its frame to itself.
set_source_files_properties(${PROJECT_SOURCE_DIR}/boot/main.cpp ${PROJECT_SOURCE_DIR}/boot/hypervisor.cpp
                            PROPERTIES COMPILE_OPTIONS -fno-inline-functions-called-once)
# What runs on every exit, over all rooms: optimised as one program, so that a call from one room to another costs
# nothing where it matters. Everything else is compiled for itself.
set(exit_path
    vmm/vcpu vmm/quick_exits vmm/dispatch vmm/vcpu_context vmm/instruction_cache vmm/msr_policy vmm/virtual_machine vmm/guest_memory
    vmm/dev/bus vmm/dev/local_apic vmm/dev/local_apic_inputs vmm/dev/local_apic_timer vmm/dev/io_apic
    vmm/interrupts vmm/dev/irq_router
    vmm/decode/emulator vmm/decode/guest_access vmm/decode/string_ops
    arch/x86/vmx/backend arch/x86/vmx/backend_run arch/x86/vmx/backend_apic arch/x86/vmx/backend_registers arch/x86/vmx/exit_decode
    arch/x86/vmx/events arch/x86/svm/backend arch/x86/svm/backend_run arch/x86/svm/exit_decode
    arch/x86/cpu/vmx_cpu arch/x86/cpu/svm_cpu)
list(TRANSFORM exit_path APPEND ".cpp")
list(TRANSFORM exit_path PREPEND ${PROJECT_SOURCE_DIR}/)
# What records exits stands in for functions by their names.
if(NOT CMAKE_BUILD_TYPE STREQUAL "Debug" AND NOT BULKHEAD_RECORD)
  set(exit_path_flags -flto -flto-partition=one -fno-fat-lto-objects)
endif()

function(add_image_objects name optimisation)
  add_library(${name} OBJECT ${ARGN})
  if(CMAKE_BUILD_TYPE STREQUAL "Debug")
    set(optimisation -O1 -g)
  endif()
  target_compile_options(${name} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:${image_flags} ${optimisation} ${warnings}>)
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR} ${PROJECT_BINARY_DIR}/generated)
  set_property(GLOBAL APPEND PROPERTY image_objects $<TARGET_OBJECTS:${name}>)
endfunction()

# One or two object libraries a room; H rooms too.
function(add_image_room room)
  string(REPLACE "/" "_" name ${room})
  set(hot ${ARGN})
  set(cold ${ARGN})
  if(room IN_LIST cold_rooms)
    set(hot)
  else()
    list(REMOVE_ITEM hot ${cold_files})
    if(hot)
      list(REMOVE_ITEM cold ${hot})
    endif()
  endif()
  set(hottest ${hot})
  if(hot)
    list(REMOVE_ITEM hot ${exit_path})
    if(hot)
      list(REMOVE_ITEM hottest ${hot})
    endif()
  endif()
  if(hottest)
    add_image_objects(image_hottest_${name} "-O2;${exit_path_flags}" ${hottest})
  endif()
  if(hot)
    add_image_objects(image_${name} -O2 ${hot})
  endif()
  if(cold)
    add_image_objects(image_cold_${name} -Os ${cold})
  endif()
endfunction()

foreach(room ${image_rooms})
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${room}/*.cpp)
  if(sources)
    add_image_room(${room} ${sources})
  endif()
endforeach()
foreach(room arch/x86/cpu drivers boot)
  file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${room}/*.cpp ${PROJECT_SOURCE_DIR}/${room}/*.asm)
  if(NOT BULKHEAD_RECORD)
    list(FILTER sources EXCLUDE REGEX "/boot/recording\\.cpp$")
  endif()
  # A vendor's world switch belongs to the vendor's room.
  foreach(vendor vmx svm)
    if(NOT "arch/x86/${vendor}" IN_LIST image_rooms)
      list(FILTER sources EXCLUDE REGEX "/${vendor}_[a-z_]+\\.(cpp|asm)$")
    endif()
  endforeach()
  add_image_room(${room} ${sources})
endforeach()

# The version that the banner shows: from git where there is a repository with tags, else the project's.
find_package(Git QUIET)
set(version "0.1")
if(GIT_FOUND)
  execute_process(COMMAND ${GIT_EXECUTABLE} describe --tags --always
                  WORKING_DIRECTORY ${PROJECT_SOURCE_DIR} OUTPUT_VARIABLE described
                  OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  if(described)
    string(APPEND version "-" ${described})
  endif()
endif()
file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/generated/boot/version.hpp CONTENT
"#pragma once
namespace bulkhead { constexpr char version[] = \"@version@\"; }
" @ONLY)

get_property(image_objects GLOBAL PROPERTY image_objects)
set(linker_script ${PROJECT_SOURCE_DIR}/linker.ld)
set(image_link_flags -nostdlib -static -no-pie -mcmodel=kernel -Wl,-T,${linker_script} -Wl,--gc-sections
    -Wl,-z,max-page-size=4096 -Wl,-z,noexecstack -Wl,--build-id=none)
# Of text and data; checked by the linker script. 512 KiB were enough for one core; the console that manages many
# guests (70 KB of it commands with their help, built for size), the scheduler of many cores, and what tracks and
# guards branches are the rest.
if(CMAKE_BUILD_TYPE STREQUAL "Debug" OR BULKHEAD_RECORD)
  list(APPEND image_link_flags -Wl,--defsym=size_limit=0x100000)
else()
  list(APPEND image_link_flags -Wl,--defsym=size_limit=0xB0000)
endif()

# Fixed memory: text, data and stacks; and the record, where there is one.
if(BULKHEAD_RECORD)
  list(APPEND image_link_flags -Wl,--defsym=fixed_limit=0x1000000)
  foreach(symbol
      _ZNK8bulkhead11GuestMemory2atENS_7AddressINS_18GuestPhysicalSpaceEEEm
      _ZNK8bulkhead11GuestMemory4readENS_7AddressINS_18GuestPhysicalSpaceEEESt4spanIhLm18446744073709551615EE
      _ZNK8bulkhead11GuestMemory5writeENS_7AddressINS_18GuestPhysicalSpaceEEESt4spanIKhLm18446744073709551615EE
      _ZN8bulkhead14VirtualMachine8power_onERKNS_10BootImagesE
      _ZN8bulkhead14VirtualMachine12serial_inputEh
      _ZN8bulkhead4Vcpu5resetEPKNS_10StartStateE
      _ZN8bulkhead4Vcpu3runEm)
    list(APPEND image_link_flags -Wl,--wrap=${symbol})
  endforeach()
else()
  list(APPEND image_link_flags -Wl,--defsym=fixed_limit=0x800000)
endif()

# Twice: the first link tells where the functions are, the second has that table in it, behind all code.
add_executable(unnamed.elf ${image_objects})

find_package(Python3 REQUIRED COMPONENTS Interpreter)
set(symbols ${PROJECT_BINARY_DIR}/generated/symbols)
add_custom_command(
  OUTPUT ${symbols}.asm ${symbols}.bin
  COMMAND Python3::Interpreter ${PROJECT_SOURCE_DIR}/scripts/make_symbols.py $<TARGET_FILE:unnamed.elf> ${symbols}.bin
          --asm ${symbols}.asm
  DEPENDS unnamed.elf ${PROJECT_SOURCE_DIR}/scripts/make_symbols.py
  COMMENT "Naming the image's functions")
set_source_files_properties(${symbols}.asm PROPERTIES OBJECT_DEPENDS ${symbols}.bin)
add_executable(bulkhead.elf ${image_objects} ${symbols}.asm)

foreach(image unnamed.elf bulkhead.elf)
  target_link_options(${image} PRIVATE ${image_flags} -O2 ${exit_path_flags} ${image_link_flags})
  set_target_properties(${image} PROPERTIES LINK_DEPENDS ${linker_script} LINKER_LANGUAGE CXX)
endforeach()

# Only functions whose address is taken remain targets of indirect branches; the relocations tell which those are.
target_link_options(bulkhead.elf PRIVATE -Wl,--emit-relocs)
add_custom_command(TARGET bulkhead.elf POST_BUILD VERBATIM
  COMMAND Python3::Interpreter ${PROJECT_SOURCE_DIR}/scripts/seal_image.py $<TARGET_FILE:bulkhead.elf>
  COMMAND ${CMAKE_OBJCOPY} --remove-relocations=* $<TARGET_FILE:bulkhead.elf>)
set_property(TARGET bulkhead.elf APPEND PROPERTY LINK_DEPENDS ${PROJECT_SOURCE_DIR}/scripts/seal_image.py)

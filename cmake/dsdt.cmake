# The guest's DSDT: vmm/loader/dsdt.asl, compiled by iasl into generated/vmm/loader/dsdt_aml.hpp. Done while
# configuring, so that every target simply finds the header; CMake configures again when the source changes.
find_program(IASL iasl)
if(NOT IASL)
  message(FATAL_ERROR "iasl is missing, which compiles the guest's ACPI tables; install acpica-tools")
endif()

set(dsdt_source ${PROJECT_SOURCE_DIR}/vmm/loader/dsdt.asl)
set(generated_dir ${PROJECT_BINARY_DIR}/generated)
set(dsdt_folder ${generated_dir}/vmm/loader)
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${dsdt_source})
file(MAKE_DIRECTORY ${dsdt_folder})

if(NOT EXISTS ${dsdt_folder}/dsdt_aml.hpp OR ${dsdt_source} IS_NEWER_THAN ${dsdt_folder}/dsdt_aml.hpp)
  # -we: a warning is an error.
  execute_process(COMMAND ${IASL} -we -p ${dsdt_folder}/dsdt ${dsdt_source}
                  RESULT_VARIABLE status OUTPUT_VARIABLE output ERROR_VARIABLE output)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "iasl refuses vmm/loader/dsdt.asl:\n${output}")
  endif()
  file(READ ${dsdt_folder}/dsdt.aml dsdt_hex HEX)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," dsdt_bytes "${dsdt_hex}")
  file(WRITE ${dsdt_folder}/dsdt_aml.hpp
       "// Made from vmm/loader/dsdt.asl by iasl.\n#pragma once\n\n"
       "namespace bulkhead {\n\ninline constexpr unsigned char dsdt_aml_bytes[] = {${dsdt_bytes}};\n\n}\n")
endif()
include_directories(${generated_dir})

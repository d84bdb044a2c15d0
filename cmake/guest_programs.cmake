# Guests in C++: tests/guests/NAME/*.cpp and tests/guests/runtime become the flat Multiboot image
# tests/guests/NAME.bin in the build directory.
set(guest_flags
    -ffreestanding -fno-pic -mcmodel=small -mgeneral-regs-only -mno-red-zone -fno-exceptions -fno-rtti
    -fno-threadsafe-statics -fno-asynchronous-unwind-tables -fno-stack-protector -fcf-protection=none
    -fno-builtin -fno-strict-aliasing -O2)
file(GLOB runtime_sources CONFIGURE_DEPENDS ${guests_source}/runtime/*.cpp ${guests_source}/runtime/*.asm)
add_library(guest_runtime OBJECT ${runtime_sources})
target_compile_options(guest_runtime PRIVATE $<$<COMPILE_LANGUAGE:CXX>:${guest_flags} ${warnings}>)
target_include_directories(guest_runtime PRIVATE ${PROJECT_SOURCE_DIR})

foreach(guest inmate canary exerciser)
  file(GLOB sources CONFIGURE_DEPENDS ${guests_source}/${guest}/*.cpp ${guests_source}/${guest}/*.asm)
  set(script ${guests_source}/runtime/guest.ld)
  add_executable(guest_${guest} ${sources} $<TARGET_OBJECTS:guest_runtime>)
  target_compile_options(guest_${guest} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:${guest_flags} ${warnings}>)
  target_include_directories(guest_${guest} PRIVATE ${PROJECT_SOURCE_DIR})
  target_link_options(guest_${guest} PRIVATE -nostdlib -static -no-pie -Wl,-T,${script} -Wl,--build-id=none
                      -Wl,-z,noexecstack)
  set_target_properties(guest_${guest} PROPERTIES LINK_DEPENDS ${script} LINKER_LANGUAGE CXX
                        OUTPUT_NAME ${guest}.bin RUNTIME_OUTPUT_DIRECTORY ${guests_output})
  add_dependencies(test_guests guest_${guest})
endforeach()

# Programs for a Linux guest: static, for its initramfs.
foreach(program smp_load reset_init work_load)
  add_executable(guest_${program} ${guests_source}/linux/${program}.cpp)
  target_compile_options(guest_${program} PRIVATE -O2 ${warnings})
  target_link_options(guest_${program} PRIVATE -static -pthread -s)
  set_target_properties(guest_${program} PROPERTIES OUTPUT_NAME ${program} RUNTIME_OUTPUT_DIRECTORY ${guests_output})
  add_dependencies(test_guests guest_${program})
endforeach()

// Capability MSRs as real and emulated processors report them.
#pragma once

#include "arch/x86/vmx/capabilities.hpp"

namespace bulkhead::vmx::machines {

// Read in Bochs 2.7 from its model corei7_skylake_x: the "true" control MSRs.
constexpr CapabilityMsrs skylake_x{.basic = 0x00D8'1000'0000'002B,
                                   .pinbased = 0x0000'007F'0000'0016,
                                   .procbased = 0xF7F9'FFFE'0400'6172,
                                   .exit = 0x007F'FFFF'0003'6DFB,
                                   .entry = 0x0000'FFFF'0000'11FB,
                                   .misc = 0x6004'01E0,
                                   .cr0_fixed0 = 0x8000'0021,
                                   .cr0_fixed1 = 0xFFFF'FFFF,
                                   .cr4_fixed0 = 0x2000,
                                   .cr4_fixed1 = 0x3727FF,
                                   .procbased2 = 0x0217'7FFF'0000'0000,
                                   .ept_vpid = 0x0000'0F01'0633'4141};

// corei7_haswell_4770, likewise.
constexpr CapabilityMsrs haswell{.basic = 0x00D8'1000'0000'002B,
                                 .pinbased = 0x0000'007F'0000'0016,
                                 .procbased = 0xF7F9'FFFE'0400'6172,
                                 .exit = 0x007F'FFFF'0003'6DFB,
                                 .entry = 0x0000'FFFF'0000'11FB,
                                 .misc = 0x2004'01E0,
                                 .cr0_fixed0 = 0x8000'0021,
                                 .cr0_fixed1 = 0xFFFF'FFFF,
                                 .cr4_fixed0 = 0x2000,
                                 .cr4_fixed1 = 0x1727FF,
                                 .procbased2 = 0x0004'7FFF'0000'0000,
                                 .ept_vpid = 0x0000'0F01'0633'4141};

// core2_penryn_t9600, likewise: VT-x without EPT.
constexpr CapabilityMsrs penryn{.basic = 0x00D8'1000'0000'002B,
                                .pinbased = 0x0000'003F'0000'0016,
                                .procbased = 0xF7F9'FFFE'0401'E172,
                                .exit = 0x0003'FFFF'0003'6DFF,
                                .entry = 0x0000'3FFF'0000'11FF,
                                .misc = 0x0004'01E0,
                                .cr0_fixed0 = 0x8000'0021,
                                .cr0_fixed1 = 0xFFFF'FFFF,
                                .cr4_fixed0 = 0x2000,
                                .cr4_fixed1 = 0x0467FF,
                                .procbased2 = 0x0000'0041'0000'0000};

}  // namespace bulkhead::vmx::machines

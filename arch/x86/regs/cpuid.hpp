// CPUID: its result and the feature bits the hypervisor looks at. Intel SDM Vol. 2A, CPUID (June 2023
// edition); AMD APM Vol. 3, appendix E (rev. 3.35).
#pragma once

#include "kernel/base/bits.hpp"

namespace bulkhead {

struct CpuidResult {
    u32 eax = 0, ebx = 0, ecx = 0, edx = 0;
    friend constexpr bool operator==(const CpuidResult&, const CpuidResult&) = default;
};

namespace cpuid {

namespace leaf1_ecx {
constexpr u32 sse3 = bit<u32>(0), pclmulqdq = bit<u32>(1), dtes64 = bit<u32>(2), monitor = bit<u32>(3),
              ds_cpl = bit<u32>(4), vmx = bit<u32>(5), smx = bit<u32>(6), eist = bit<u32>(7),
              tm2 = bit<u32>(8), ssse3 = bit<u32>(9), sdbg = bit<u32>(11), fma = bit<u32>(12),
              cx16 = bit<u32>(13), xtpr = bit<u32>(14), pdcm = bit<u32>(15), pcid = bit<u32>(17),
              dca = bit<u32>(18), sse41 = bit<u32>(19), sse42 = bit<u32>(20), x2apic = bit<u32>(21),
              movbe = bit<u32>(22), popcnt = bit<u32>(23), tsc_deadline = bit<u32>(24), aes = bit<u32>(25),
              xsave = bit<u32>(26), osxsave = bit<u32>(27), avx = bit<u32>(28), f16c = bit<u32>(29),
              rdrand = bit<u32>(30), hypervisor = bit<u32>(31);
}
namespace leaf1_edx {
constexpr u32 fpu = bit<u32>(0), vme = bit<u32>(1), de = bit<u32>(2), pse = bit<u32>(3), tsc = bit<u32>(4),
              msr = bit<u32>(5), pae = bit<u32>(6), mce = bit<u32>(7), cx8 = bit<u32>(8), apic = bit<u32>(9),
              sep = bit<u32>(11), mtrr = bit<u32>(12), pge = bit<u32>(13), mca = bit<u32>(14),
              cmov = bit<u32>(15), pat = bit<u32>(16), pse36 = bit<u32>(17), psn = bit<u32>(18),
              clfsh = bit<u32>(19), ds = bit<u32>(21), acpi = bit<u32>(22), mmx = bit<u32>(23),
              fxsr = bit<u32>(24), sse = bit<u32>(25), sse2 = bit<u32>(26), ss = bit<u32>(27),
              htt = bit<u32>(28), tm = bit<u32>(29), pbe = bit<u32>(31);
}
namespace leaf7_ebx {
constexpr u32 fsgsbase = bit<u32>(0), tsc_adjust = bit<u32>(1), sgx = bit<u32>(2), bmi1 = bit<u32>(3),
              hle = bit<u32>(4), avx2 = bit<u32>(5), smep = bit<u32>(7), bmi2 = bit<u32>(8),
              erms = bit<u32>(9), invpcid = bit<u32>(10), rtm = bit<u32>(11), rdt_m = bit<u32>(12),
              mpx = bit<u32>(14), rdt_a = bit<u32>(15), avx512f = bit<u32>(16), avx512dq = bit<u32>(17),
              rdseed = bit<u32>(18), adx = bit<u32>(19), smap = bit<u32>(20), avx512ifma = bit<u32>(21),
              clflushopt = bit<u32>(23), clwb = bit<u32>(24), processor_trace = bit<u32>(25),
              avx512cd = bit<u32>(28), sha = bit<u32>(29), avx512bw = bit<u32>(30), avx512vl = bit<u32>(31);
}
namespace leaf7_ecx {
constexpr u32 avx512vbmi = bit<u32>(1), umip = bit<u32>(2), pku = bit<u32>(3), ospke = bit<u32>(4),
              waitpkg = bit<u32>(5), avx512vbmi2 = bit<u32>(6), cet_ss = bit<u32>(7), gfni = bit<u32>(8),
              vaes = bit<u32>(9), vpclmulqdq = bit<u32>(10), avx512vnni = bit<u32>(11),
              avx512bitalg = bit<u32>(12), tme = bit<u32>(13), avx512vpopcntdq = bit<u32>(14),
              la57 = bit<u32>(16), rdpid = bit<u32>(22), key_locker = bit<u32>(23), pks = bit<u32>(31);
}
namespace leaf7_edx {
constexpr u32 cet_ibt = bit<u32>(20);
}
namespace leaf7_1_edx {
constexpr u32 cet_sss = bit<u32>(18);
}
namespace ext1_ecx {
constexpr u32 lahf = bit<u32>(0), cmp_legacy = bit<u32>(1), svm = bit<u32>(2), cr8_legacy = bit<u32>(4),
              abm = bit<u32>(5), sse4a = bit<u32>(6), misalign_sse = bit<u32>(7), prefetchw = bit<u32>(8);
}
namespace ext1_edx {
constexpr u32 syscall = bit<u32>(11), nx = bit<u32>(20), mmx_ext = bit<u32>(22), ffxsr = bit<u32>(25),
              page1gb = bit<u32>(26), rdtscp = bit<u32>(27), long_mode = bit<u32>(29);
}
namespace svm_edx {  // leaf 8000000Ah
constexpr u32 nested_paging = bit<u32>(0), lbr_virtualization = bit<u32>(1), svm_lock = bit<u32>(2),
              nrip_save = bit<u32>(3), tsc_rate = bit<u32>(4), vmcb_clean = bit<u32>(5),
              flush_by_asid = bit<u32>(6), decode_assists = bit<u32>(7), pause_filter = bit<u32>(10),
              pause_threshold = bit<u32>(12), avic = bit<u32>(13), virtual_vmsave = bit<u32>(15),
              virtual_gif = bit<u32>(16);
}

}  // namespace cpuid
}  // namespace bulkhead

// CR0, CR4, EFER, RFLAGS and XCR0 bits. Intel SDM Vol. 3A, 2.2-2.6 and Vol. 1, 3.4.3 (June 2023 edition).
#pragma once

#include "kernel/base/bits.hpp"

namespace bulkhead {

namespace cr0 {
constexpr u64 pe = bit(0), mp = bit(1), em = bit(2), ts = bit(3), et = bit(4), ne = bit(5), wp = bit(16),
              am = bit(18), nw = bit(29), cd = bit(30), pg = bit(31);
constexpr u64 defined = pe | mp | em | ts | et | ne | wp | am | nw | cd | pg;
}  // namespace cr0

namespace cr4 {
constexpr u64 vme = bit(0), pvi = bit(1), tsd = bit(2), de = bit(3), pse = bit(4), pae = bit(5), mce = bit(6),
              pge = bit(7), pce = bit(8), osfxsr = bit(9), osxmmexcpt = bit(10), umip = bit(11),
              la57 = bit(12), vmxe = bit(13), smxe = bit(14), fsgsbase = bit(16), pcide = bit(17),
              osxsave = bit(18), kl = bit(19), smep = bit(20), smap = bit(21), pke = bit(22), cet = bit(23),
              pks = bit(24);
}  // namespace cr4

namespace efer {
constexpr u64 sce = bit(0), lme = bit(8), lma = bit(10), nxe = bit(11), svme = bit(12), lmsle = bit(13),
              ffxsr = bit(14), tce = bit(15), aibrse = bit(21);
}  // namespace efer

namespace rflags {
constexpr u64 cf = bit(0), reserved_one = bit(1), pf = bit(2), af = bit(4), zf = bit(6), sf = bit(7),
              tf = bit(8), if_ = bit(9), df = bit(10), of = bit(11), iopl = bit(12) | bit(13), nt = bit(14),
              rf = bit(16), vm = bit(17), ac = bit(18), vif = bit(19), vip = bit(20), id = bit(21);
constexpr u64 arithmetic = cf | pf | af | zf | sf | of;
}  // namespace rflags

namespace xcr0 {
constexpr u64 x87 = bit(0), sse = bit(1), avx = bit(2), bndregs = bit(3), bndcsr = bit(4), opmask = bit(5),
              zmm_hi256 = bit(6), hi16_zmm = bit(7), pkru = bit(9);
constexpr u64 avx512 = opmask | zmm_hi256 | hi16_zmm;
constexpr u64 mpx = bndregs | bndcsr;
}  // namespace xcr0

namespace page_fault_error {
constexpr u32 present = bit<u32>(0), write = bit<u32>(1), user = bit<u32>(2), reserved = bit<u32>(3),
              fetch = bit<u32>(4);
}

}  // namespace bulkhead

#include "kernel/base/format.hpp"

#include <catch2/catch.hpp>
#include <cstdint>
#include <limits>

#include "kernel/base/fixed_string.hpp"

using namespace bulkhead;

namespace {
template <class... A>
std::string formatted(FormatString<std::type_identity_t<A>...> format, const A&... arguments) {
    FixedString<256> out;
    print(out, format, arguments...);
    return std::string(out.view());
}
}  // namespace

TEST_CASE("numbers print in decimal and hexadecimal, padded as asked") {
    CHECK(formatted("{}", 0) == "0");
    CHECK(formatted("{}", std::numeric_limits<i64>::min()) == "-9223372036854775808");
    CHECK(formatted("{}", std::numeric_limits<u64>::max()) == "18446744073709551615");
    CHECK(formatted("{:x} {:#x} {:X}", 255, 255, 255) == "ff 0xff FF");
    CHECK(formatted("{:08x}|{:#010x}", 0xBEEFu, 0xBEEFu) == "0000beef|0x0000beef");
    CHECK(formatted("{:>5}|{:<5}|{:5}", 42, 42, 42) == "   42|42   |   42");
    CHECK(formatted("{:05}", -42) == "-0042");
}

TEST_CASE("text is padded to the right, and braces are doubled") {
    CHECK(formatted("{:6}|{:>6}", "abc", "abc") == "abc   |   abc");
    CHECK(formatted("{{{}}}", 1) == "{1}");
    CHECK(formatted("{} {}", true, 'x') == "true x");
}

TEST_CASE("addresses and numbers with a meaning print in hexadecimal") {
    CHECK(formatted("{}", HostPhysical(0x1000)) == "0x1000");
    CHECK(formatted("{:016x}", GuestVirtual(0x1000)) == "0000000000001000");
    CHECK(formatted("{}", Port(0x3F8)) == "0x3f8");
}

TEST_CASE("a full sink cuts text off and says so") {
    FixedString<4> out;
    print(out, "{}", "abcdef");
    CHECK(out.view() == "abcd");
    CHECK(out.truncated());
}

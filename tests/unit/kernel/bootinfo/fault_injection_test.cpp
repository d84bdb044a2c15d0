#include "kernel/bootinfo/fault_injection.hpp"

#include <catch2/catch.hpp>
#include <set>
#include <string>

#include "kernel/bootinfo/host_options.hpp"

using namespace bulkhead;

TEST_CASE("every fault has a name of its own, by which it is found") {
    std::set<std::string> names;
    for (unsigned i = 0; i < static_cast<unsigned>(Fault::count); ++i) {
        const auto fault = static_cast<Fault>(i);
        const std::string word(name_of(fault));
        CHECK(names.insert(word).second);
        const auto faults = parse_faults(word);
        REQUIRE(faults);
        for (unsigned j = 0; j < static_cast<unsigned>(Fault::count); ++j)
            CHECK(faults->has(static_cast<Fault>(j)) == (i == j));
    }
    CHECK(name_of(Fault::count) == "none");
}

TEST_CASE("several faults go into one option, and each is taken once") {
    auto faults = parse_faults("nmi,page-fault,vm-entry");
    REQUIRE(faults);
    CHECK(faults->take(Fault::nmi));
    CHECK_FALSE(faults->take(Fault::nmi));
    CHECK_FALSE(faults->take(Fault::double_fault));
    CHECK_FALSE(faults->empty());
    CHECK(faults->take(Fault::page_fault));
    CHECK(faults->take(Fault::vm_entry));
    CHECK(faults->empty());
}

TEST_CASE("what is no fault is refused by its name") {
    for (const char* wrong : {"", ",", "nmi,", ",nmi", "nmi,,nmi", "NMI", "nm", "nmis", "none"})
        CHECK_FALSE(parse_faults(wrong));
    CHECK(parse_faults("nmi,nonsense").error().text.view() ==
          "\"nonsense\" is no fault that can be injected");
    CHECK_FALSE(parse_faults("nmi:1"));
}

TEST_CASE("a build without fault injection knows no such option") {
    static_assert(!fault_injection);
    const HostOptions options = parse_host_options("inject=nmi");
    CHECK(options.faults.empty());
    REQUIRE(options.complaint_count == 1);
    CHECK(options.complaints[0].view().starts_with("HV-E131: unknown host option \"inject=nmi\""));
}

#include "vmm/guest_switch.hpp"

#include <catch2/catch.hpp>
#include <string>

using namespace bulkhead;

namespace {

constexpr HostPhysical kernel(0x1000), a(0x20'0000), b(0x40'0000);

struct Core {
    GuestSwitch guests;
    void enter(HostPhysical root) { guests.enter(root, root == kernel); }
    // "p": the predictor is flushed, "d": the data are.
    [[nodiscard]] std::string run(HostPhysical root) {
        enter(root);
        const GuestSwitch::Flush flush = guests.before_guest();
        return std::string(flush.predictor ? "p" : "") + (flush.data ? "d" : "");
    }
};

}  // namespace

TEST_CASE("The first guest on a core gets it flushed") {
    Core core;
    CHECK(core.run(a) == "pd");
}

TEST_CASE("A guest that has the core for itself is never flushed again") {
    Core core;
    (void)core.run(a);
    for (int i = 0; i < 3; ++i) CHECK(core.run(a).empty());
}

TEST_CASE("Each change of guests flushes both") {
    Core core;
    (void)core.run(a);
    CHECK(core.run(b) == "pd");
    CHECK(core.run(a) == "pd");
    CHECK(core.run(a).empty());
}

TEST_CASE("A look at another VM's memory flushes the data: no guest ran meanwhile") {
    Core core;
    (void)core.run(a);
    core.enter(b);
    CHECK(core.run(a) == "d");
    CHECK(core.run(a).empty());
}

TEST_CASE("After the kernel's own work nobody is known: a new VM's tables may lie where an old one's did") {
    Core core;
    (void)core.run(a);
    core.enter(kernel);
    CHECK(core.run(a) == "pd");
    core.enter(kernel);
    core.enter(a);
    core.enter(b);
    CHECK(core.run(b) == "pd");
}

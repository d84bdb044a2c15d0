#include "kernel/smp/core_start.hpp"

#include <catch2/catch.hpp>
#include <thread>

using namespace bulkhead;
using State = CoreStart::State;

TEST_CASE("a core is called, answers, and is online") {
    CoreStart start;
    REQUIRE(start.state() == State::absent);
    REQUIRE_FALSE(start.online());
    start.call();
    REQUIRE(start.answer());
    REQUIRE(start.state() == State::answered);
    REQUIRE(start.finish(true));
    REQUIRE(start.online());
    REQUIRE_FALSE(start.give_up());
    REQUIRE(start.online());
}

TEST_CASE("a core whose set-up fails is not online") {
    CoreStart start;
    start.call();
    REQUIRE(start.answer());
    REQUIRE(start.finish(false));
    REQUIRE(start.state() == State::failed);
    REQUIRE_FALSE(start.give_up());
}

TEST_CASE("a core that nobody called, or that shows up late, is told to park") {
    CoreStart uncalled;
    REQUIRE_FALSE(uncalled.answer());

    CoreStart late;
    late.call();
    REQUIRE(late.give_up());
    REQUIRE_FALSE(late.answer());
    REQUIRE_FALSE(late.finish(true));
    REQUIRE(late.state() == State::given_up);

    CoreStart twice;
    twice.call();
    REQUIRE(twice.answer());
    REQUIRE_FALSE(twice.answer());
}

TEST_CASE("a core that hangs in its set-up parks when it comes to the end of it") {
    CoreStart start;
    start.call();
    REQUIRE(start.answer());
    REQUIRE(start.give_up());
    REQUIRE_FALSE(start.finish(true));
    REQUIRE_FALSE(start.online());
}

TEST_CASE("giving up and coming online never both happen") {
    for (unsigned i = 0; i < 2000; ++i) {
        CoreStart start;
        start.call();
        bool core_thinks_online = false;
        std::thread core([&] { core_thinks_online = start.answer() && start.finish(true); });
        while (i % 2 == 0 && start.state() == State::called) std::this_thread::yield();
        const bool given_up = start.give_up();
        core.join();
        REQUIRE(core_thinks_online != given_up);
        REQUIRE(start.online() == core_thinks_online);
    }
}

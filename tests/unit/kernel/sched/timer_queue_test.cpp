#include "kernel/sched/timer_queue.hpp"

#include <catch2/catch.hpp>
#include <map>
#include <memory>
#include <random>
#include <vector>

using namespace bulkhead;

TEST_CASE("timers expire in the order of their deadlines, not before them") {
    TimerQueue<4> queue;
    Timer a, b, c;
    CHECK(queue.next_deadline() == Timer::never);
    REQUIRE(queue.arm(a, 30));
    REQUIRE(queue.arm(b, 10));
    REQUIRE(queue.arm(c, 20));
    CHECK(queue.next_deadline() == 10);
    CHECK(queue.expire(9) == nullptr);
    CHECK(queue.expire(25) == &b);
    CHECK_FALSE(b.is_armed());
    CHECK(queue.expire(25) == &c);
    CHECK(queue.expire(25) == nullptr);
    queue.cancel(a);
    queue.cancel(a);
    CHECK(queue.size() == 0);
}

TEST_CASE("a full queue refuses another timer but moves those it has") {
    TimerQueue<2> queue;
    Timer a, b, c;
    REQUIRE(queue.arm(a, 1));
    REQUIRE(queue.arm(b, 2));
    CHECK_FALSE(queue.arm(c, 0));
    CHECK_FALSE(c.is_armed());
    REQUIRE(queue.arm(a, 3));
    CHECK(queue.next_deadline() == 2);
    CHECK(queue.size() == 2);
}

TEST_CASE("random arming, moving, cancelling and expiring agree with a sorted map") {
    std::mt19937_64 random(9);
    TimerQueue<40> queue;
    std::vector<std::unique_ptr<Timer>> timers;
    for (int i = 0; i < 60; ++i) timers.push_back(std::make_unique<Timer>());
    std::map<Timer*, u64> model;
    for (u64 now = 0; now < 20000; ++now) {
        Timer* timer = timers[random() % timers.size()].get();
        switch (random() % 4) {
            case 0:
                queue.cancel(*timer);
                model.erase(timer);
                break;
            case 1:
                while (Timer* expired = queue.expire(now)) {
                    REQUIRE(model.at(expired) <= now);
                    for (const auto& [_, deadline] : model) REQUIRE(deadline >= model.at(expired));
                    model.erase(expired);
                }
                for (const auto& [_, deadline] : model) REQUIRE(deadline > now);
                break;
            default: {
                const u64 deadline = now + random() % 200;
                const bool room = model.size() < 40 || model.count(timer) != 0;
                REQUIRE(queue.arm(*timer, deadline) == room);
                if (room) model[timer] = deadline;
            }
        }
        REQUIRE(queue.size() == model.size());
        u64 first = Timer::never;
        for (const auto& [_, deadline] : model) first = std::min(first, deadline);
        REQUIRE(queue.next_deadline() == first);
        REQUIRE(timer->is_armed() == (model.count(timer) != 0));
    }
}

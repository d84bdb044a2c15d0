#include "kernel/smp/core_mailbox.hpp"

#include <catch2/catch.hpp>
#include <thread>

using namespace bulkhead;

namespace {

struct Count {
    unsigned runs = 0;
    void run() { ++runs; }
};

}  // namespace

TEST_CASE("work is done once, and its end is told once") {
    CoreMailbox<Count> mailbox;
    Count work;
    REQUIRE_FALSE(mailbox.serve());
    REQUIRE_FALSE(mailbox.take_result());
    REQUIRE(mailbox.post(work));
    REQUIRE_FALSE(mailbox.take_result());
    REQUIRE(mailbox.serve());
    REQUIRE(work.runs == 1);
    REQUIRE_FALSE(mailbox.serve());
    REQUIRE(mailbox.take_result());
    REQUIRE_FALSE(mailbox.take_result());
    REQUIRE(work.runs == 1);
}

TEST_CASE("one piece of work at a time") {
    CoreMailbox<Count> mailbox;
    Count first, second;
    REQUIRE(mailbox.post(first));
    REQUIRE_FALSE(mailbox.post(second));
    REQUIRE(mailbox.serve());
    REQUIRE_FALSE(mailbox.post(second));  // the result is still to be taken
    REQUIRE(mailbox.take_result());
    REQUIRE(mailbox.post(second));
    REQUIRE(mailbox.serve());
    REQUIRE(first.runs == 1);
    REQUIRE(second.runs == 1);
}

TEST_CASE("work that has not begun can be taken back, and is never done then") {
    CoreMailbox<Count> mailbox;
    Count work;
    REQUIRE_FALSE(mailbox.withdraw());
    REQUIRE(mailbox.post(work));
    REQUIRE(mailbox.withdraw());
    REQUIRE_FALSE(mailbox.serve());
    REQUIRE(work.runs == 0);
    REQUIRE(mailbox.post(work));
    REQUIRE(mailbox.serve());
    REQUIRE_FALSE(mailbox.withdraw());
    REQUIRE(mailbox.take_result());
    REQUIRE(work.runs == 1);
}

TEST_CASE("while work runs it cannot be taken back") {
    struct Nosy {
        CoreMailbox<Nosy>* mailbox = nullptr;
        bool withdrawn = true, served = true, posted = true;
        void run() {
            withdrawn = mailbox->withdraw();
            served = mailbox->serve();
            posted = mailbox->post(*this);
        }
    };
    CoreMailbox<Nosy> mailbox;
    Nosy work{.mailbox = &mailbox};
    REQUIRE(mailbox.post(work));
    REQUIRE(mailbox.serve());
    REQUIRE_FALSE(work.withdrawn);
    REQUIRE_FALSE(work.served);
    REQUIRE_FALSE(work.posted);
    REQUIRE(mailbox.take_result());
}

TEST_CASE("between two threads each posted work is either done or taken back, whatever the timing") {
    CoreMailbox<Count> mailbox;
    std::atomic<bool> over{false};
    std::thread server([&] {
        while (!over.load()) {
            if (!mailbox.serve()) std::this_thread::yield();
        }
    });
    unsigned done = 0, withdrawn = 0;
    for (unsigned i = 0; i < 5000; ++i) {
        Count work;
        REQUIRE(mailbox.post(work));
        bool back = false;
        for (unsigned tries = 0;; ++tries) {
            if (mailbox.take_result()) break;
            if (tries == i % 50 && (back = mailbox.withdraw())) break;
            std::this_thread::yield();
        }
        REQUIRE(work.runs == (back ? 0 : 1));
        (back ? withdrawn : done) += 1;
    }
    over = true;
    server.join();
    REQUIRE(done + withdrawn == 5000);
}

#include "vmm/config/nearest.hpp"

#include <catch2/catch.hpp>
#include <string>

using namespace bulkhead;

TEST_CASE("the distance counts insertions, deletions, replacements and swaps") {
    CHECK(edit_distance("", "") == 0);
    CHECK(edit_distance("", "abc") == 3);
    CHECK(edit_distance("kitten", "sitting") == 3);
    CHECK(edit_distance("lsit", "list") == 1);
    CHECK(edit_distance("ab", "ba") == 1);
    CHECK(edit_distance("abcd", "bacd") == 1);
    CHECK(edit_distance(std::string(1000, 'a'), std::string(1000, 'a')) == 0);
    CHECK(edit_distance(std::string(1000, 'a'), "") == 32);
}

TEST_CASE("only near words are suggested, and the nearest of them") {
    Nearest nearest("memry");
    nearest.consider("kernel");
    CHECK(nearest.word().empty());
    nearest.consider("memo");
    nearest.consider("memory");
    CHECK(nearest.word() == "memory");
    Nearest far("x");
    far.consider("list");
    CHECK(far.word().empty());
}

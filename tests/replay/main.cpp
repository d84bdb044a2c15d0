// replay FILE: replays a record of exits and compares.
#include <cstdio>
#include <fstream>
#include <iterator>

#include "tests/replay/replayer.hpp"

using namespace bulkhead;

int main(int count, char** words) {
    if (count != 2) {
        std::fprintf(stderr, "usage: replay FILE\n");
        return 2;
    }
    std::ifstream file(words[1], std::ios::binary);
    const std::vector<u8> record{std::istreambuf_iterator<char>(file), {}};
    const replay::Options options{};
    const FakeMemory physical(options.most_memory + replay::memory_beside);
    const replay::Report report = replay::replay(record, physical, options);
    std::printf("%s: %zu bytes, %llu exits in %llu turns, %llu values compared\n", words[1], record.size(),
                static_cast<unsigned long long>(report.exits), static_cast<unsigned long long>(report.turns),
                static_cast<unsigned long long>(report.compared));
    if (!report.problem.empty()) {
        std::printf("%s\n", report.problem.c_str());
        return 1;
    }
    if (report.exits == 0) {
        std::printf("there is no exit in it\n");
        return 1;
    }
    return 0;
}

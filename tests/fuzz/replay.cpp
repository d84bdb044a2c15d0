// Records of exits, mutated: what a processor could not have said, time that runs backwards, memory that
// changes, in any order. Whatever a record holds, it is played to its end or refused.
#include "tests/fuzz/fuzz.hpp"
#include "tests/replay/replayer.hpp"

using namespace bulkhead;

void fuzz_one(fuzz::Input& in) {
    constexpr replay::Options options{.most_memory = 4 * mib, .compare = false};
    static const FakeMemory physical(options.most_memory + replay::memory_beside);
    const Bytes record = in.rest();
    const replay::Report report = replay::replay(record, physical, options);
    // Each frame takes some of the record, and nothing is played that is not in it.
    MUST(report.frames <= record.size() && report.exits + report.turns <= report.frames);
    MUST(fuzz::is_plain(report.problem));
}

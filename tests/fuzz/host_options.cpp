// The hypervisor's command line.
#include "kernel/bootinfo/host_options.hpp"

#include "tests/fuzz/fuzz.hpp"

using namespace bulkhead;

void fuzz_one(fuzz::Input& in) {
    const HostOptions options = parse_host_options(in.text(4096));
    MUST(!options.console || *options.console < 4);
    MUST(options.baud >= 50 && 115200 % options.baud == 0);
    MUST(options.max_cpus >= 1 && options.max_cpus <= 256);
    MUST(options.complaints.size() <= options.complaint_count);
}

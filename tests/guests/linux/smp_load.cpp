// A load for all processors of a Linux guest, which also checks what they compute: one thread pinned to each.
//
// Four parts, each with the same work on every processor:
//   busy    a checksum in registers, at the same time everywhere: all must come to the same
//   tlb     a page replaced again and again under readers on all processors: a translation that outlives its
//           shootdown shows as an old value
//   ring    a token by pipe from processor to processor, with the time: it must never go backwards
//   spawn   short-lived processes
//
// usage: smp_load PROCESSORS ROUNDS, prints a line for each part and "smp_load: ok" or "smp_load: N failures"
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace {

constexpr int max_processors = 64;
constexpr long page_bytes = 4096;

int processors;
long rounds;
pthread_barrier_t together;
std::atomic<long> failures;
std::atomic<uint64_t*> page;
uint64_t checksums[max_processors];
int pipes[max_processors][2];

void fail(const char* what, int processor) {
    if (failures.fetch_add(1) < 10) std::printf("smp_load: processor %d: %s\n", processor, what);
}

void wait_for_all() {
    pthread_barrier_wait(&together);
}

uint64_t nanoseconds() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

uint64_t checksum() {
    uint64_t value = 1;
    double sum = 0;  // the extended state is switched, too
    for (long i = 0; i < rounds * 20'000; ++i) {
        value = value * 6364136223846793005U + 1442695040888963407U;
        value ^= value >> 29;
        sum += static_cast<double>(value & 1023);
    }
    return value ^ static_cast<uint64_t>(sum);
}

void busy(int me) {
    checksums[me] = checksum();
    if (sched_getcpu() != me) fail("runs elsewhere", me);
}

void tlb(int me) {
    for (long round = 0; round < rounds; ++round) {
        const uint64_t expected = static_cast<uint64_t>(round) * 3 + 1;
        if (round % processors == me) {
            uint64_t* at = page.load();
            if (mmap(at, page_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
                     0) != at) {
                fail("mmap", me);
            } else {
                *static_cast<volatile uint64_t*>(at) = expected;
            }
        }
        wait_for_all();
        if (*static_cast<volatile uint64_t*>(page.load()) != expected) fail("reads an old page", me);
        wait_for_all();
    }
}

void ring(int me) {
    if (processors == 1) return;
    const int previous = (me + processors - 1) % processors;
    uint64_t token = nanoseconds();
    if (me == 0 && write(pipes[me][1], &token, sizeof token) != sizeof token) fail("write", me);
    for (long round = 0; round < rounds; ++round) {
        if (read(pipes[previous][0], &token, sizeof token) != sizeof token) fail("read", me);
        const uint64_t now = nanoseconds();
        if (now < token) fail("time went backwards between processors", me);
        if (me == 0 && round == rounds - 1) break;
        if (write(pipes[me][1], &now, sizeof now) != sizeof now) fail("write", me);
    }
}

void spawn(int me) {
    for (long i = 0; i < rounds / 20 + 1; ++i) {
        const pid_t child = fork();
        if (child == 0) _exit(sched_getcpu() == me ? 40 + me % 8 : 1);
        int status = 0;
        if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status) ||
            WEXITSTATUS(status) != 40 + me % 8)
            fail("a process ended otherwise than it should", me);
    }
}

struct Part {
    const char* name;
    void (*run)(int);
};
constexpr Part parts[] = {{"busy", busy}, {"tlb", tlb}, {"ring", ring}, {"spawn", spawn}};

void* thread(void* argument) {
    const int me = static_cast<int>(reinterpret_cast<intptr_t>(argument));
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(me, &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0) fail("cannot be used", me);
    for (const Part& part : parts) {
        wait_for_all();
        const uint64_t begin = nanoseconds();
        wait_for_all();
        part.run(me);
        wait_for_all();
        if (me == 0) {
            std::printf("smp_load: %s on %d in %.3f s\n", part.name, processors,
                        static_cast<double>(nanoseconds() - begin) / 1e9);
        }
    }
    return nullptr;
}

}  // namespace

int main(int count, char** arguments) {
    processors = count > 1 ? std::atoi(arguments[1]) : 0;
    rounds = count > 2 ? std::atol(arguments[2]) : 0;
    if (processors < 1 || processors > max_processors || rounds < 1) {
        std::puts("usage: smp_load PROCESSORS ROUNDS");
        return 2;
    }
    void* const memory =
        mmap(nullptr, page_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return 2;
    page = static_cast<uint64_t*>(memory);
    pthread_barrier_init(&together, nullptr, static_cast<unsigned>(processors));
    pthread_t threads[max_processors];
    for (int i = 0; i < processors; ++i) {
        if (pipe(pipes[i]) != 0) return 2;
    }
    for (int i = 0; i < processors; ++i) {
        if (pthread_create(&threads[i], nullptr, thread, reinterpret_cast<void*>(static_cast<intptr_t>(i))) !=
            0)
            return 2;
    }
    for (int i = 0; i < processors; ++i) pthread_join(threads[i], nullptr);
    for (int i = 0; i < processors; ++i) {
        if (checksums[i] != checksums[0]) fail("computed something else than processor 0", i);
    }
    std::printf("smp_load: checksum %016llx on each of %d\n", static_cast<unsigned long long>(checksums[0]),
                processors);
    if (failures != 0) {
        std::printf("smp_load: %ld failures\n", failures.load());
        return 1;
    }
    std::puts("smp_load: ok");
    return 0;
}

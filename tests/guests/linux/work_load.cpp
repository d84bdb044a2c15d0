// The only process of a Linux that is measured: says how long the kernel took to get here and what a fixed
// piece of work costs, by the TSC and by the kernel's clock, and has the machine powered off.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>

namespace {

constexpr int rounds = 8;

std::uint64_t tsc() {
    std::uint32_t low, high;
    asm volatile("lfence; rdtsc" : "=a"(low), "=d"(high)::"memory");
    return std::uint64_t{high} << 32 | low;
}

void must(bool done, const char* what) {
    if (done) return;
    std::perror(what);
    reboot(RB_POWER_OFF);
    std::exit(1);
}

// Sorting: nothing but the processor.
void compute() {
    static std::uint32_t numbers[65536];
    std::uint32_t state = 1;
    for (auto& number : numbers) number = state = state * 1664525 + 1013904223;
    std::sort(std::begin(numbers), std::end(numbers));
    must(std::is_sorted(std::begin(numbers), std::end(numbers)), "sort");
}

void enter_kernel() {
    for (int i = 0; i < 5000; ++i) (void)syscall(SYS_getppid);
}

// Fresh pages, first touched and given back.
void touch_pages() {
    constexpr std::size_t size = 4 << 20;
    void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    must(memory != MAP_FAILED, "mmap");
    for (std::size_t at = 0; at < size; at += 4096) static_cast<volatile char*>(memory)[at] = 1;
    must(munmap(memory, size) == 0, "munmap");
}

void pass_through_pipe() {
    int ends[2];
    char buffer[4096];
    std::memset(buffer, 'x', sizeof buffer);
    must(pipe(ends) == 0, "pipe");
    for (int i = 0; i < 500; ++i) {
        must(write(ends[1], buffer, sizeof buffer) == sizeof buffer, "write");
        must(read(ends[0], buffer, sizeof buffer) == sizeof buffer, "read");
    }
    close(ends[0]);
    close(ends[1]);
}

void start_processes() {
    for (int i = 0; i < 20; ++i) {
        const pid_t child = fork();
        must(child >= 0, "fork");
        if (child == 0) _exit(0);
        int status = 0;
        must(waitpid(child, &status, 0) == child && status == 0, "waitpid");
    }
}

void work() {
    compute();
    enter_kernel();
    touch_pages();
    pass_through_pipe();
    start_processes();
}

std::uint64_t uptime() {
    timespec now{};
    must(clock_gettime(CLOCK_MONOTONIC_RAW, &now) == 0, "clock_gettime");
    return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(now.tv_nsec);
}

}  // namespace

int main() {
    const std::uint64_t reached = uptime();
    work();  // whatever is done once only
    std::uint64_t best = ~std::uint64_t{0}, all = 0;
    for (int i = 0; i < rounds; ++i) {
        const std::uint64_t begin = tsc();
        work();
        const std::uint64_t took = tsc() - begin;
        best = std::min(best, took);
        all += took;
    }
    std::printf("work_load: boot_ns=%llu best=%llu mean=%llu\r\n", static_cast<unsigned long long>(reached),
                static_cast<unsigned long long>(best), static_cast<unsigned long long>(all / rounds));
    std::fflush(stdout);
    tcdrain(STDOUT_FILENO);
    sleep(1);  // the machine takes what is still on its way with it
    reboot(RB_POWER_OFF);
    return 1;
}

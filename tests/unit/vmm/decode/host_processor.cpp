#include "host_processor.hpp"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

namespace bulkhead::test {
namespace {

constexpr usize code_size = 4096;

}  // namespace

extern "C" {
void bulkhead_test_run_on_host(HostState* state, const void* code);
void bulkhead_test_host_return();
}

// RDI holds the state until the very last load, and the global from the very first store on. MOV leaves the
// flags alone, so they survive from the instruction under test to PUSHFQ on the host's own stack.
asm(R"(
    .text
    .globl bulkhead_test_run_on_host
bulkhead_test_run_on_host:
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rdi, bulkhead_test_state(%rip)
    mov %rsi, bulkhead_test_code(%rip)
    mov %rsp, 136(%rdi)
    pushq 128(%rdi)
    popfq
    mov 0(%rdi), %rax
    mov 8(%rdi), %rcx
    mov 16(%rdi), %rdx
    mov 24(%rdi), %rbx
    mov 32(%rdi), %rsp
    mov 40(%rdi), %rbp
    mov 48(%rdi), %rsi
    mov 64(%rdi), %r8
    mov 72(%rdi), %r9
    mov 80(%rdi), %r10
    mov 88(%rdi), %r11
    mov 96(%rdi), %r12
    mov 104(%rdi), %r13
    mov 112(%rdi), %r14
    mov 120(%rdi), %r15
    mov 56(%rdi), %rdi
    jmp *bulkhead_test_code(%rip)
    .globl bulkhead_test_host_return
bulkhead_test_host_return:
    mov %rdi, bulkhead_test_rdi(%rip)
    mov bulkhead_test_state(%rip), %rdi
    mov %rax, 0(%rdi)
    mov %rcx, 8(%rdi)
    mov %rdx, 16(%rdi)
    mov %rbx, 24(%rdi)
    mov %rsp, 32(%rdi)
    mov %rbp, 40(%rdi)
    mov %rsi, 48(%rdi)
    mov %r8, 64(%rdi)
    mov %r9, 72(%rdi)
    mov %r10, 80(%rdi)
    mov %r11, 88(%rdi)
    mov %r12, 96(%rdi)
    mov %r13, 104(%rdi)
    mov %r14, 112(%rdi)
    mov %r15, 120(%rdi)
    mov bulkhead_test_rdi(%rip), %rax
    mov %rax, 56(%rdi)
    mov 136(%rdi), %rsp
    pushfq
    popq 128(%rdi)
    cld
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    ret
    .local bulkhead_test_state
    .comm bulkhead_test_state, 8, 8
    .local bulkhead_test_code
    .comm bulkhead_test_code, 8, 8
    .local bulkhead_test_rdi
    .comm bulkhead_test_rdi, 8, 8
)");

HostProcessor::HostProcessor() {
    void* memory =
        mmap(nullptr, code_size, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) std::abort();
    code_ = static_cast<u8*>(memory);
}

HostProcessor::~HostProcessor() {
    munmap(code_, code_size);
}

void HostProcessor::run(Bytes instruction, HostState& state) {
    static constexpr u8 jump[6] = {0xFF, 0x25, 0, 0, 0, 0};  // JMP [RIP + 0]
    const u64 target = reinterpret_cast<u64>(&bulkhead_test_host_return);
    std::memcpy(code_, instruction.data(), instruction.size());
    std::memcpy(code_ + instruction.size(), jump, sizeof jump);
    std::memcpy(code_ + instruction.size() + sizeof jump, &target, sizeof target);
    bulkhead_test_run_on_host(&state, code_);
}

u8* map_low_memory(u64 address, u64 size) {
    void* memory = mmap(reinterpret_cast<void*>(address), size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    return memory == MAP_FAILED ? nullptr : static_cast<u8*>(memory);
}

}  // namespace bulkhead::test

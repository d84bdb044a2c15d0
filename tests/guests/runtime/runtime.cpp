#include "tests/guests/runtime/runtime.hpp"

void* operator new(usize, void* place) noexcept {
    return place;
}

namespace {
constexpr u16 com1 = 0x3F8;
}

extern "C" {
BootState boot_state;
Outcome outcome;
u8 run_active;
u8 ignores_stray_nmi;
bool (*event_hook)();
void guest_main();
void unexpected_event();

void* memset(void* to, int value, usize count) {
    void* const begin = to;
    asm volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(value) : "memory");
    return begin;
}
void* memcpy(void* to, const void* from, usize count) {
    void* const begin = to;
    asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count)::"memory");
    return begin;
}
int memcmp(const void* a, const void* b, usize count) {
    const u8 *x = static_cast<const u8*>(a), *y = static_cast<const u8*>(b);
    for (; count != 0; --count, ++x, ++y)
        if (*x != *y) return *x < *y ? -1 : 1;
    return 0;
}

void unexpected_event() {
    out8(com1 + 3, 3);
    out8(com1 + 4, 0x0B);
    Text text;
    text << "\r\nUNEXPECTED vector " << outcome.vector << " error " << Hex{outcome.error} << " at "
         << Hex{outcome.rip} << " cr2 " << Hex{outcome.cr2} << "\r\n";
    print(text);
    for (;;) asm volatile("cli; hlt");
}
}

namespace {

struct MultibootInfo {
    u32 flags, mem_lower, mem_upper, boot_device, cmdline;
};

alignas(4096) u8 code_memory[4096];
alignas(4096) u8 data_memory[2 * 4096];
alignas(4096) u8 stack_memory[4096];
alignas(4096) u64 window_table[512];

}  // namespace

Text& Text::operator<<(char character) {
    if (used_ + 1 < sizeof(text_)) text_[used_++] = character;
    return *this;
}

Text& Text::operator<<(const char* text) {
    for (; *text != 0; ++text) *this << *text;
    return *this;
}

Text& Text::operator<<(Hex number) {
    unsigned digits = 1;
    while (digits < 16 && (number.value >> (4 * digits)) != 0) ++digits;
    if (digits < number.digits) digits = number.digits;
    for (unsigned i = digits; i-- > 0;) *this << "0123456789abcdef"[number.value >> (4 * i) & 15];
    return *this;
}

Text& Text::operator<<(u64 number) {
    char reversed[20];
    unsigned count = 0;
    do {
        reversed[count++] = static_cast<char>('0' + number % 10);
        number /= 10;
    } while (number != 0);
    while (count > 0) *this << reversed[--count];
    return *this;
}

void print(const char* text) {
    static bool prepared = false;
    if (!prepared) {
        prepared = true;
        out8(com1 + 3, 3);  // eight data bits
        out8(com1 + 2, 7);  // FIFOs on and empty
    }
    // A transmitter that is empty takes a FIFO of 16 at once.
    while (*text != 0) {
        while ((in8(com1 + 5) & 0x20) == 0) {
        }
        for (unsigned i = 0; i < 16 && *text != 0; ++i) out8(com1, static_cast<u8>(*text++));
    }
}

int read_key() {
    return (in8(com1 + 5) & 1) != 0 ? in8(com1) : -1;
}

const char* option(const char* name) {
    const auto* info = reinterpret_cast<const MultibootInfo*>(boot_state.ebx);
    if ((info->flags & 4) == 0) return nullptr;
    for (const char* at = reinterpret_cast<const char*>(u64{info->cmdline}); *at != 0; ++at) {
        if (at != reinterpret_cast<const char*>(u64{info->cmdline}) && at[-1] != ' ') continue;
        const char *a = at, *b = name;
        while (*b != 0 && *a == *b) ++a, ++b;
        if (*b == 0 && *a == '=') return a + 1;
    }
    return nullptr;
}

u64 option(const char* name, u64 otherwise) {
    const char* text = option(name);
    if (text == nullptr) return otherwise;
    u64 value = 0;
    for (; *text >= '0' && *text <= '9'; ++text) value = 10 * value + static_cast<u64>(*text - '0');
    return value;
}

bool is_option(const char* name, const char* value) {
    const char* text = option(name);
    if (text == nullptr) return false;
    while (*value != 0 && *text == *value) ++text, ++value;
    return *value == 0 && (*text == 0 || *text == ' ');
}

u64 end_of_ram() {
    return u64{reinterpret_cast<const MultibootInfo*>(boot_state.ebx)->mem_upper} * 1024 + 0x100000;
}

u64 ticks_per_microsecond() {
    static u64 ticks = 0;
    if (ticks != 0) return ticks;
    // Channel 2 counts 11932 down, a hundredth of a second; its output shows in port 61h.
    out8(0x61, (in8(0x61) & 0xFC) | 1);
    out8(0x43, 0xB0);
    out8(0x42, 11932 & 0xFF);
    out8(0x42, 11932 >> 8);
    const u64 begin = rdtsc();
    while ((in8(0x61) & 0x20) == 0) pause();
    ticks = (rdtsc() - begin) / 10000;
    return ticks == 0 ? ticks = 1 : ticks;
}

u8* data_pages() {
    return data_memory;
}

u8* code_page() {
    return code_memory;
}

void map_page(u64 virtual_address, u64 physical, u64 flags) {
    window_table[virtual_address >> 12 & 511] = physical | flags;
    asm volatile("invlpg (%0)" ::"r"(virtual_address) : "memory");
}

void unmap_page(u64 virtual_address) {
    map_page(virtual_address, 0, 0);
}

void prepare_window() {
    constexpr u64 all = page_present | page_writable | page_user, kernel = page_present | page_writable;
    page_directories[window >> 21] = reinterpret_cast<u64>(window_table) | all;
    write_cr3(read_cr3());
    const auto physical = [](const void* memory) { return reinterpret_cast<u64>(memory); };
    map_page(code_at, physical(code_memory), kernel);
    map_page(user_code_at, physical(code_memory), all);
    for (u64 page = 0; page < 0x2000; page += 0x1000) {
        map_page(data_at + page, physical(data_memory) + page, kernel);
        map_page(user_data_at + page, physical(data_memory) + page, all);
    }
    map_page(stack_at - 0x1000, physical(stack_memory), kernel);
    map_page(user_stack_at - 0x1000, physical(stack_memory), all);
    memset(code_memory, 0xCC, sizeof(code_memory));
}

u64 begin_of(Mode mode) {
    switch (mode) {
        case Mode::long3:
        case Mode::compat3: return user_code_at;
        case Mode::compat16: return 0;
        default: return code_at;
    }
}

const Outcome& run(const Code& code, Mode mode, const Entry& in) {
    static usize used = 0;
    memset(code_memory, 0xCC, used);
    memcpy(code_memory, code.bytes, code.size);
    used = code.size;
    Entry entry = in;
    entry.rip = begin_of(mode);
    const bool ring3 = mode == Mode::long3 || mode == Mode::compat3;
    constexpr u64 selectors[] = {0x08, 0x2B, 0x18, 0x3B, 0x20};
    if (in.cs == 0x08) entry.cs = selectors[static_cast<unsigned>(mode)];
    if (ring3 && in.ss == 0x10) entry.ss = 0x33;
    if (ring3 && in.ds == 0x10) entry.ds = 0x33;
    if (entry.gpr[rsp] == 0) entry.gpr[rsp] = ring3 ? user_stack_at : stack_at;
    run_probed(&entry);
    return outcome;
}

bool completed(const Code& code, Mode mode) {
    const Outcome& o = run(code, mode);
    return o.vector == 3 && o.rip == begin_of(mode) + code.size + 1;
}

bool try_rdmsr(u32 index, u64& value) {
    Entry in;
    in.gpr[rcx] = index;
    const Outcome& o = run({0x0F, 0x32}, Mode::long0, in);
    value = o.gpr[rdx] << 32 | (o.gpr[rax] & 0xFFFFFFFF);
    return o.vector == 3;
}

int try_wrmsr(u32 index, u64 value) {
    Entry in;
    in.gpr[rcx] = index;
    in.gpr[rax] = value & 0xFFFFFFFF;
    in.gpr[rdx] = value >> 32;
    const Outcome& o = run({0x0F, 0x30}, Mode::long0, in);
    return o.vector == 3 ? -1 : static_cast<int>(o.vector);
}

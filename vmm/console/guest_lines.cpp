#include "vmm/console/guest_lines.hpp"

#include <algorithm>

namespace bulkhead {

void append_plain(FixedString<200>& out, std::string_view bytes) {
    for (usize i = 0; i < bytes.size(); ++i) {
        const char c = bytes[i];
        if (c == '\t') {
            out.append(" ");
            continue;
        }
        if (c == '\r') continue;
        if (c != 0x1B || i + 1 == bytes.size()) {
            out.append({&c, 1});
            continue;
        }
        const char kind = bytes[++i];
        if (kind == '[') {  // CSI: parameters up to the final byte
            do {
                ++i;
            } while (i < bytes.size() && (bytes[i] < 0x40 || bytes[i] > 0x7E));
        } else if (kind == ']' || kind == 'P' || kind == '_' || kind == '^' || kind == 'X') {
            // A control string, up to BEL or ST.
            while (i + 1 < bytes.size() && bytes[i] != 7 && !(bytes[i] == 0x1B && bytes[i + 1] == '\\')) ++i;
            if (i < bytes.size() && bytes[i] == 0x1B) ++i;
        } else if (kind >= 0x20 && kind <= 0x2F) {
            ++i;
        }
    }
}

u64 begin_of_last_lines(const ConsoleRing& ring, u64 lines) {
    const u64 oldest = ring.oldest();
    const u64 end = ring.total();
    u64 at = end;
    if (lines == 0) return end;
    u8 chunk[128];
    while (at > oldest) {
        ConsoleRing::Cursor cursor{.position = at - std::min<u64>(at - oldest, sizeof chunk), .dropped = 0};
        const u64 start = cursor.position;
        const usize count = ring.read(cursor, {chunk, static_cast<usize>(at - start)});
        if (cursor.dropped != 0) return cursor.position - count;  // overtaken by the guest
        for (usize i = count; i-- > 0;) {
            if (chunk[i] != '\n' || start + i + 1 == end) continue;
            if (--lines == 0) return start + i + 1;
        }
        at = start;
    }
    return oldest;
}

void GuestLines::begin(Management& management, std::optional<VmId> vm, std::optional<u64> lines,
                       bool follow) {
    sources_.clear();
    only_ = vm;
    lines_ = lines;
    follow_ = follow;
    discover(management);
    lines_.reset();  // VMs that come later are shown from their beginning
}

void GuestLines::discover(Management& management) {
    if (only_) {
        if (sources_.empty()) add(management, *only_);
        return;
    }
    VmSummary vm;
    const usize count = management.vm_count();
    for (usize i = 0; i < count && management.summary(i, vm); ++i) {
        const bool known = std::any_of(sources_.begin(), sources_.end(),
                                       [&](const Source& source) { return source.vm == vm.id; });
        if (!known) add(management, vm.id);
    }
}

void GuestLines::add(Management& management, VmId vm) {
    Source source;
    source.vm = vm;
    if (const ConsoleRing* ring = management.console(vm)) {
        source.end = ring->total();
        source.position = lines_ ? begin_of_last_lines(*ring, *lines_) : ring->oldest();
    }
    (void)sources_.push_back(source);
}

// Is there a line at the source's position, and when was it begun?
void GuestLines::look(Management& management, Source& source) const {
    const ConsoleRing* ring = management.console(source.vm);
    if (ring == nullptr) {
        // Off. Started again, its port begins with the first byte.
        source.position = source.end = 0;
        return;
    }
    const u64 total = ring->total();
    if (source.position > total) source.position = 0;
    if (!follow_ && source.position >= source.end) return;
    if (source.position == total) return;
    source.position = std::max(source.position, ring->oldest());
    ConsoleRing::Cursor cursor{.position = source.position, .dropped = 0};
    u8 bytes[max_line + 1];
    const usize count = ring->read(cursor, bytes);
    source.position = cursor.position - count;
    const bool complete = count == sizeof bytes || std::find(bytes, bytes + count, '\n') != bytes + count;
    if (count == 0 || (follow_ && !complete)) return;
    source.ready = true;
    // A piece of a line that was begun earlier belongs behind its beginning.
    if (const auto time = ring->line_time(source.position)) {
        source.time = *time;
        source.timed = true;
    }
}

bool GuestLines::take(Management& management, Source& source, Line& line) {
    source.ready = false;
    const ConsoleRing* ring = management.console(source.vm);
    if (ring == nullptr) return false;
    ConsoleRing::Cursor cursor{.position = source.position, .dropped = 0};
    u8 bytes[max_line + 1];
    const usize count = ring->read(cursor, bytes);
    if (count == 0) return false;
    const u64 start = cursor.position - count;
    const usize length = static_cast<usize>(std::find(bytes, bytes + count, '\n') - bytes);
    const bool ended = length < count;
    usize shown = std::min(length, max_line);
    source.position = start + shown + (ended ? 1 : 0);
    while (shown > 0 && bytes[shown - 1] == '\r') --shown;
    line.vm = source.vm;
    line.time = source.timed ? std::optional(source.time) : std::nullopt;
    line.text.clear();
    line.text.append({reinterpret_cast<const char*>(bytes), shown});
    return true;
}

bool GuestLines::next(Management& management, Line& line) {
    if (follow_) discover(management);
    Source* first = nullptr;
    for (Source& source : sources_) {
        if (!source.ready) look(management, source);
        if (!source.ready) continue;
        if (first == nullptr || source.time < first->time) first = &source;
    }
    if (first == nullptr || !take(management, *first, line)) return false;
    VmDetails details;
    line.name.clear();
    if (management.details(line.vm, details)) line.name.append(details.summary.name);
    return true;
}

}  // namespace bulkhead

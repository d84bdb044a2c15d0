// What guests have sent by their serial ports, line by line: of one VM, or of all in the order in which the
// lines were begun.
#pragma once

#include <optional>
#include <string_view>

#include "kernel/base/fixed_string.hpp"
#include "vmm/config/config.hpp"
#include "vmm/console/management.hpp"

namespace bulkhead {

// A line for the eye, from a guest's bytes: without control sequences (colours, cursor movement), a tab for a
// blank. What is left of controls a Filtered takes care of. What it writes is never longer than `bytes`.
void append_plain(FixedString<200>& out, std::string_view bytes);

// The position in the ring where its last `lines` lines begin: 0 lines end at the end; one that is not ended
// yet counts.
[[nodiscard]] u64 begin_of_last_lines(const ConsoleRing& ring, u64 lines);

// About 3 KiB.
class GuestLines {
  public:
    // Longer lines come in pieces.
    static constexpr usize max_line = 200;

    struct Line {
        VmId vm{};
        FixedString<31> name;
        std::optional<u64> time;     // TSC when it was begun; nothing when that is forgotten
        FixedString<max_line> text;  // as the guest wrote it, without its end
    };

    // Lines of `vm`, or of all VMs, from the oldest that is still there, or their last `lines` lines.
    // follow: go on with lines that come later, when they are complete; otherwise there are only those that
    // are begun by now.
    void begin(Management& management, std::optional<VmId> vm, std::optional<u64> lines, bool follow);

    // The next line. False when there is none (yet).
    [[nodiscard]] bool next(Management& management, Line& line);

  private:
    struct Source {
        VmId vm{};
        u64 position = 0;
        u64 end = 0;  // not following: where it ended when begun
        u64 time = 0;
        bool ready = false;  // `time` is that of the line at `position`
        bool timed = false;
    };

    void add(Management& management, VmId vm);
    void look(Management& management, Source& source) const;
    void discover(Management& management);
    static bool take(Management& management, Source& source, Line& line);

    FixedVector<Source, Config::max_vms> sources_;
    std::optional<VmId> only_;
    std::optional<u64> lines_;
    bool follow_ = false;
};

}  // namespace bulkhead

#include "vmm/dev/irq_router.hpp"

namespace bulkhead {

IrqRouter::IrqRouter(std::span<IrqLine* const> pic, std::span<IrqLine* const> io_apic) {
    for (unsigned i = 0; i < lines; ++i) {
        if (i == cascade) continue;
        const unsigned pin = i == 0 ? timer_pin : i;
        if (i < pic.size()) lines_[i].pic = pic[i];
        if (pin < io_apic.size()) lines_[i].io_apic = io_apic[pin];
    }
}

}  // namespace bulkhead

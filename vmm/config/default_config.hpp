// Without a config file: each boot module that is a kernel becomes a VM with default settings. Modules that
// are no kernel belong to the kernel before them: the first is its initrd, the others are modules it is
// handed.
#pragma once

#include "kernel/base/bytes.hpp"
#include "vmm/config/config.hpp"

namespace bulkhead {

class DefaultConfig {
  public:
    explicit DefaultConfig(Config& config) : config_(config) {}

    // The next boot module, in order: its name, the words after it (a kernel's command line), its content.
    // The VM is named after the module, with a number where the name is taken.
    [[nodiscard]] Result<> add(std::string_view name, std::string_view rest, Bytes content);

  private:
    Config& config_;
    VmConfig* last_ = nullptr;
};

}  // namespace bulkhead

// `isolation`: whether any VM's memory is in reach of another, by all page tables and by trying.
#pragma once

namespace bulkhead {

class CommandContext;

void check_isolation(CommandContext& context);

}  // namespace bulkhead

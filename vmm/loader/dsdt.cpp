#include "vmm/loader/dsdt.hpp"

#include "vmm/loader/dsdt_aml.hpp"

namespace bulkhead {

Bytes dsdt_aml() {
    return dsdt_aml_bytes;
}

}  // namespace bulkhead

// Errors as values. An error is a sentence for the operator: what is wrong and what to do about it.
#pragma once

#include <expected>

#include "kernel/base/fixed_string.hpp"
#include "kernel/base/format.hpp"

namespace bulkhead {

struct Error {
    FixedString<200> text;
};

template <class T = void>
using Result = std::expected<T, Error>;

// return fail("initrd \"{}\" is not among the modules; check the GRUB entry", name);
template <class... Arguments>
[[nodiscard]] std::unexpected<Error> fail(FormatString<std::type_identity_t<Arguments>...> format,
                                          const Arguments&... arguments) {
    Error error;
    print(error.text, format, arguments...);
    return std::unexpected<Error>(error);
}

}  // namespace bulkhead

// An object with static storage that is constructed by a call, at a known point of start-up: no static
// constructor runs in the image.
#pragma once

#include <new>
#include <utility>

#include "kernel/base/types.hpp"

namespace bulkhead {

template <class T>
class Deferred {
  public:
    // Once, before any other use. What was there is not destroyed.
    template <class... Arguments>
    T& emplace(Arguments&&... arguments) {
        object_ = ::new (static_cast<void*>(storage_)) T(std::forward<Arguments>(arguments)...);
        return *object_;
    }
    [[nodiscard]] bool ready() const { return object_ != nullptr; }
    [[nodiscard]] T& operator*() { return *object_; }
    [[nodiscard]] T* operator->() { return object_; }

  private:
    alignas(T) u8 storage_[sizeof(T)] = {};
    T* object_ = nullptr;
};

}  // namespace bulkhead

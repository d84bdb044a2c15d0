// Where the characters go that a serial port transmits.
#pragma once

#include "kernel/base/types.hpp"

namespace bulkhead {

class CharacterSink {
  public:
    virtual void write(u8 character) = 0;

  protected:
    ~CharacterSink() = default;
};

}  // namespace bulkhead

# The freestanding image: build/bulkhead.elf.

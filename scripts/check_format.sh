#!/usr/bin/env bash
# Every C++ file as clang-format would write it.
cd "$(dirname "$0")/.." && git ls-files '*.hpp' '*.cpp' | xargs clang-format --dry-run --Werror && echo "formatted"

#!/usr/bin/env bash
# clang-tidy over the pure rooms, with the checks of .clang-tidy: all that decides is there, and a header is checked
# through the files that include it.
#   scripts/check_tidy.sh BUILD [FILE...]      BUILD: the build directory, for what is generated there
set -u -o pipefail
export BUILD
BUILD=$(cd "$1" && pwd) || exit
shift
cd "$(dirname "$0")/.." || exit

# With GCC 12's library, Clang needs another value of __cpp_concepts to see std::expected. The analyzer's shallow mode
# takes a third of the time of the deep one.
check() {
    clang-tidy-19 --quiet "$@" -- -std=gnu++23 -I. "-I$BUILD/generated" -D__cpp_concepts=202002L \
        -Wno-builtin-macro-redefined -Xclang -analyzer-config -Xclang mode=shallow \
        2> >(grep -v 'warnings\? generated' >&2)
}
export -f check

if [ $# -gt 0 ]; then
    printf '%s\n' "$@"
else
    git ls-files 'kernel/*.cpp' 'vmm/*.cpp' 'arch/x86/paging/*.cpp' 'arch/x86/vmx/*.cpp' 'arch/x86/svm/*.cpp'
fi | xargs -n 4 -P "$(nproc)" bash -c 'check "$@"' check && echo "tidy"

# The Debian packages each job needs. Sourced by scripts/run and scripts/test: ensure_packages installs what is missing.
build_packages="g++ cmake ninja-build nasm acpica-tools binutils python3 git ca-certificates"
boot_packages="grub-common grub-pc-bin grub-efi-amd64-bin xorriso mtools busybox-static cpio dpkg-dev
    bochs bochs-term bochsbios vgabios qemu-system-x86 seabios ovmf"
test_packages="catch2 libzydis-dev libtomlplusplus-dev nlohmann-json3-dev clang-format clang-tidy-19"
fuzz_packages="clang-19 libclang-rt-19-dev llvm-19"

ensure_packages() {
    local missing="" package
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q "ok installed" || missing="$missing $package"
    done
    [ -z "$missing" ] && return 0
    if [ "$(id -u)" != 0 ]; then
        echo "these packages are missing; run as root, or install them:$missing" >&2
        return 1
    fi
    echo "installing:$missing" >&2
    # No line of apt's belongs in the transcript of a guest; its errors do.
    apt-get update -qq >&2 &&
        # shellcheck disable=SC2086
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
}

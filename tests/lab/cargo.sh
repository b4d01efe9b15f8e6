#!/usr/bin/env bash
# Runs cargo with the given arguments: under sudo, the calling user's own toolchain, which root's PATH does not have.
# Says how to get one if there is none or it is too old.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")

if ! command -v cargo >/dev/null; then
    for home in "$(getent passwd "${SUDO_USER:-root}" | cut -d: -f6)" /root; do
        [[ -x $home/.cargo/bin/cargo ]] || continue
        PATH=$home/.cargo/bin:$PATH
        export CARGO_HOME=${CARGO_HOME:-$home/.cargo} RUSTUP_HOME=${RUSTUP_HOME:-$home/.rustup}
        break
    done
fi

advise() {
    cat >&2 <<TEXT
fullgate needs Rust $wanted or newer, and $1.
Debian's own rustc is too old. Get the current one for your user from https://rustup.rs:
    curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh
Then run the command again; under sudo the toolchain of the user who called it is found.
TEXT
    exit 1
}

command -v cargo >/dev/null || advise "there is no cargo in PATH or ~/.cargo/bin"
found=$(cargo --version | cut -d' ' -f2)
[[ $(printf '%s\n%s\n' "$wanted" "$found" | sort -V | head -n 1) == "$wanted" ]] || advise "$(command -v cargo) is $found"

status=0
cargo "$@" || status=$?
# What root built in a user's checkout, or downloaded into a user's cache, stays that user's.
if [[ $EUID == 0 && -n ${SUDO_USER:-} ]]; then
    owner=$(stat -c %u:%g "$root/Cargo.toml")
    # target/ may be root's because root made it just now.
    [[ ! -d $root/target ]] || chown "$owner" "$root/target"
    for directory in "$root/target" "${CARGO_HOME:-}"; do
        [[ -d $directory && $(stat -c %u:%g "$directory") == "$owner" ]] || continue
        find "$directory" -user 0 -exec chown -h "$owner" {} + 2>/dev/null || true
    done
fi
exit "$status"

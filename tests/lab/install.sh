#!/usr/bin/env bash
# Installs those Debian packages of tests/lab/packages that are missing. Calls apt-get only if there are any.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
mapfile -t packages < <(grep -v -E '^(#|$)' "$here/packages")
missing=()
for package in "${packages[@]}"; do
    [[ $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true) == installed ]] || missing+=("$package")
done
((${#missing[@]})) || exit 0

if [[ $EUID != 0 ]]; then
    printf 'These Debian packages are missing: %s\nInstall them: sudo apt-get install %s\n' "${missing[*]}" "${missing[*]}" >&2
    exit 1
fi

# nginx's package would start a server on port 80 of this machine, which the demo has no use for.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
printf 'installing %s\n' "${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
if ! { apt-get update && apt-get install -y --no-install-recommends "${missing[@]}"; } </dev/null >"$log" 2>&1; then
    tail -n 30 "$log" >&2
    printf 'apt-get failed; its whole output: %s\n' "$log" >&2
    exit 1
fi
rm -f "$log"

#!/usr/bin/env bash
# Tests hugepage-setup/fullgate-hugepages: on this machine (reserves a few 2 MB pages and undoes it; root) and on an
# invented /sys with NICs, an IOMMU and two NUMA nodes. The machine is left as it was found.
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)
script=$here/hugepage-setup/fullgate-hugepages
scratch=$(mktemp -d)
export FULLGATE_HUGEPAGES_STATE=$scratch/state FULLGATE_HUGEPAGES_CONFIG=$scratch/hugepages.conf
checks=0 output='' status=0

[[ $EUID == 0 ]] || { echo "tests/hugepage-setup.sh needs root" >&2; exit 1; }

finish() {
    "$script" --undo >/dev/null 2>&1 || true
    rm -rf "$scratch"
}
trap finish EXIT

run() {
    status=0
    output=$("$script" "$@" 2>&1) || status=$?
}

fail() {
    printf 'FAILED: %s\n--- exit status %s, output:\n%s\n' "$1" "$status" "$output" >&2
    exit 1
}

# expect STATUS TEXT...: the last run ended with STATUS and said each TEXT.
expect() {
    local wanted=$1 text
    shift
    [[ $status == "$wanted" ]] || fail "exit status $wanted expected"
    for text in "$@"; do [[ $output == *"$text"* ]] || fail "expected to read: $text"; done
    checks=$((checks + 1))
}

same() {
    [[ $1 == "$2" ]] || fail "'$2' expected, found '$1' ($3)"
    checks=$((checks + 1))
}

pages=/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages
before=$(<"$pages")
mounts_before=$(grep -c hugetlbfs /proc/self/mounts || true)
wanted=$((before + 64))

# ---- this machine
run
expect 2 "nothing to do: no options given"
run --pages-2m "$wanted" --dry-run
expect 0 "would write '$wanted' to $pages"
same "$(<"$pages")" "$before" "pages after --dry-run"
same "$(ls "$scratch")" "" "state after --dry-run"
run --check --pages-2m "$wanted"
expect 1 "MISSING  2 MB pages: $before reserved, $wanted wanted"
run --pages-2m "$wanted"
expect 0 "2 MB pages: $wanted reserved ($before before)"
same "$(<"$pages")" "$wanted" "pages reserved"
run --check --pages-2m "$wanted"
expect 0 "ok       2 MB pages: $wanted reserved" "ok       hugetlbfs with 2 MB pages: mounted on"
run --pages-2m "$wanted"
expect 0 "$wanted reserved, $wanted wanted: nothing to do" "mounted on"
run --pages-2m "$((wanted - 1))"
expect 0 "nothing to do"
same "$(<"$pages")" "$wanted" "pages are never taken away by a smaller number"
run --undo --dry-run
expect 0 "would write '$before' to $pages"
same "$(<"$pages")" "$wanted" "pages after --undo --dry-run"
run --undo
expect 0 "$pages: $before again"
same "$(<"$pages")" "$before" "pages after --undo"
same "$(grep -c hugetlbfs /proc/self/mounts || true)" "$mounts_before" "mounts after --undo"
run --undo
expect 0 "nothing to undo"

# More than the memory: refused before it is tried.
run --pages-2m 99999999
expect 1 "asked for 99999999 pages of 2 MB on this machine: $before are there" "Ask for fewer"
same "$(<"$pages")" "$before" "pages after a refused request"
run --pages-2m 1@4321
expect 1 "there is no NUMA node 4321; nodes here: "

# From a settings file, which is read and not executed.
printf '# a comment\nPAGES_2M="%s"  # so many\nBIND=""\n' "$wanted" >"$FULLGATE_HUGEPAGES_CONFIG"
run
expect 0 "2 MB pages: $wanted reserved"
run --check
expect 0 "ok       2 MB pages: $wanted reserved"
run --undo
expect 0 "$before again"
printf 'PAGES_2M="1"\nPAGES_4M="2"\n' >"$FULLGATE_HUGEPAGES_CONFIG"
run
expect 1 "hugepages.conf:2: unknown key PAGES_4M: allowed are PAGES_2M, PAGES_1G and BIND"
# shellcheck disable=SC2016 # the text itself is the point
printf 'PAGES_2M=$(touch %s)\n' "$scratch/executed" >"$FULLGATE_HUGEPAGES_CONFIG"
run
[[ $status != 0 && ! -e $scratch/executed ]] || fail "a command in the settings file must be refused and not run"
rm "$FULLGATE_HUGEPAGES_CONFIG"

# Wrong usage.
run --pages-2m many
expect 2 "--pages-2m: 'many' is no number of pages"
run --bind 1:2
expect 2 "'1:2' is no PCI address: it looks like 0000:01:00.0"
run --bind
expect 2 "--bind needs one or more PCI addresses"
run --check --undo
expect 2 "exclude each other"
run --colour
expect 2 "unknown option '--colour'"

# ---- an invented machine
sys=$scratch/sys
devices=$sys/bus/pci/devices
export FULLGATE_SYS=$sys

# nic PCI DRIVER INTERFACE CLASS
nic() {
    mkdir -p "$devices/$1/net/$3" "$sys/bus/pci/drivers/$2"
    printf '%s\n' "$4" >"$devices/$1/class"
    printf '\n' >"$devices/$1/driver_override"
    ln -s "../../drivers/$2" "$devices/$1/driver"
}
for node in 0 1; do
    mkdir -p "$sys/devices/system/node/node$node/hugepages/hugepages-2048kB"
    echo 0 >"$sys/devices/system/node/node$node/hugepages/hugepages-2048kB/nr_hugepages"
    echo 0 >"$sys/devices/system/node/node$node/hugepages/hugepages-2048kB/free_hugepages"
    printf 'Node %s MemFree: 4194304 kB\nNode %s FilePages: 0 kB\n' "$node" "$node" >"$sys/devices/system/node/node$node/meminfo"
done
mkdir -p "$sys/kernel/mm/hugepages/hugepages-2048kB"
echo 0-1 >"$sys/devices/system/node/online"
nic 0000:01:00.0 ixgbe enp1s0 0x020000
# The loopback interface stands for one with an address, after it gets one of global scope in the check below.
nic 0000:02:00.0 ixgbe enp2s0 0x020000
nic 0000:03:00.0 nvme nvme0 0x010802

run --bind 0000:01:00.0
expect 1 "no IOMMU: vfio-pci needs one"
mkdir -p "$sys/kernel/iommu_groups/7" "$sys/bus/pci/drivers/vfio-pci"
: >"$sys/bus/pci/drivers_probe"
run --check --bind 01:00.0
expect 1 "MISSING  0000:01:00.0: driver ixgbe, interface enp1s0" "ok       IOMMU: on" "ok       vfio-pci: loaded" "info     0000:02:00.0"
run --bind 01:00.0 0000:09:00.0 0000:03:00.0
expect 1 "there is no PCI device 0000:09:00.0; network devices here: 0000:01:00.0 0000:02:00.0" \
    "0000:03:00.0 is no network device (PCI class 0x010802, driver nvme)"
same "$(<"$devices/0000:01:00.0/driver_override")" "" "nothing bound when one of several cannot be"
run --dry-run --bind 01:00.0
expect 0 "would write 'vfio-pci' to $devices/0000:01:00.0/driver_override" \
    "would write '0000:01:00.0' to $devices/0000:01:00.0/driver/unbind" \
    "would write '0000:01:00.0' to $sys/bus/pci/drivers_probe"
# Here no kernel acts on what is written: the script must notice, take it back and say so.
run --bind 01:00.0
expect 1 "the kernel did not give it to vfio-pci"
same "$(<"$devices/0000:01:00.0/driver_override")" "" "driver_override after a bind that failed"
same "$(ls "$FULLGATE_HUGEPAGES_STATE" 2>/dev/null || true)" "" "memory after a bind that failed"

# A NIC that is in use.
busy=fghp$$
ip link add "$busy" type dummy 2>/dev/null || ip link add "$busy" type veth peer name "${busy}p"
trap 'ip link del "$busy" 2>/dev/null || true; finish' EXIT
ip addr add 198.51.100.1/24 dev "$busy"
mkdir -p "$devices/0000:02:00.0/net/$busy"
run --bind 02:00.0
expect 1 "its interface $busy has the address 198.51.100.1/24" "--force"
run --bind 02:00.0 --force --dry-run
expect 0 "would write 'vfio-pci' to $devices/0000:02:00.0/driver_override"

# One that vfio-pci has already; giving it back goes to the driver that is remembered.
rm "$devices/0000:01:00.0/driver"
ln -s ../../drivers/vfio-pci "$devices/0000:01:00.0/driver"
mkdir -p "$FULLGATE_HUGEPAGES_STATE"
echo "0000:01:00.0 ixgbe" >"$FULLGATE_HUGEPAGES_STATE/devices"
: >"$sys/bus/pci/drivers/ixgbe/bind"
run --bind 01:00.0
expect 0 "0000:01:00.0: vfio-pci already: nothing to do"
run --undo --dry-run
expect 0 "would write '0000:01:00.0' to $sys/bus/pci/drivers/ixgbe/bind"
run --undo
expect 0 "0000:01:00.0: back with ixgbe"
same "$(<"$sys/bus/pci/drivers/ixgbe/bind")" "0000:01:00.0" "the former driver is asked to bind"

# Per NUMA node.
run --dry-run --pages-2m 512@0 --pages-2m 256@1
expect 0 "would write '512' to $sys/devices/system/node/node0/" "would write '256' to $sys/devices/system/node/node1/"
run --pages-2m 9999@1
expect 1 "on NUMA node 1: 0 are there, and the 4096 MB that are available make 2048 more at most"

printf 'hugepage-setup: %s checks passed\n' "$checks"

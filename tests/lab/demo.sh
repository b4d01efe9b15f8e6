#!/usr/bin/env bash
# The demo: builds fullgate, makes a small network of namespaces, and sends web requests through a virtual service.
#
#   demo.sh          build, show, check, clean up; exit status 0 only if all was as it should be
#   KEEP=1 demo.sh   the same, but leave the network and the gateway up to play with
#   demo.sh end      end what KEEP=1, or an interrupted run, left
#
#   [client] 10.0.0.10 ---- wan [gateway: fullgate] lan ---- [switch] ---- 10.1.0.11 [rs1: nginx]
#                            VIP 10.0.0.100:80                        `---- 10.1.0.12 [rs2: nginx]
#
# Everything lives in namespaces named fgdemo-* and in one directory; only processes started here are ended, by pid.
set -euo pipefail

HERE=$(cd "$(dirname "$0")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
readonly HERE ROOT
readonly PREFIX=fgdemo
readonly DIRECTORY=/run/fullgate-demo
readonly FULLGATE=$ROOT/target/release/fullgate
readonly VIP=10.0.0.100 REQUESTS=20
export FULLGATE_SOCKET=$DIRECTORY/control.sock

bold='' plain=''
if [[ -t 1 ]]; then bold=$'\e[1m' plain=$'\e[0m'; fi
step() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
fail() {
    printf '\ndemo: FAILED: %s\n' "$*" >&2
    if [[ -s $DIRECTORY/fullgate.log ]]; then printf -- '--- the last lines of the gateway'\''s log:\n' >&2; tail -n 20 "$DIRECTORY/fullgate.log" >&2; fi
    exit 1
}
inside() { local namespace=$PREFIX-$1; shift; ip netns exec "$namespace" "$@"; }

# wait_for SECONDS WHAT COMMAND...: until the command succeeds.
wait_for() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || fail "waited in vain for $what"
        sleep 0.1
    done
}

# ---- clean-up

# Ends the process of a pid file, if it is still one of ours: pids are reused.
end_process() {
    local file=$1 pid
    pid=$(<"$file")
    if [[ -r /proc/$pid/cmdline ]] && tr '\0' ' ' <"/proc/$pid/cmdline" | grep -q -F "$DIRECTORY"; then
        kill -TERM "$pid" 2>/dev/null || true
        for _ in $(seq 50); do
            # A zombie has no command line any more: it waits for this shell to notice.
            [[ -n $({ tr -d '\0' <"/proc/$pid/cmdline"; } 2>/dev/null || true) ]] || break
            sleep 0.1
        done
        kill -KILL "$pid" 2>/dev/null || true
    fi
    rm -f "$file"
}

end_lab() {
    local file namespace
    # The gateway first: it gives its interfaces back.
    for file in "$DIRECTORY"/fullgate.pid "$DIRECTORY"/rs*.pid; do [[ ! -e $file ]] || end_process "$file"; done
    for namespace in $(ip netns list 2>/dev/null | awk -v prefix="$PREFIX-" 'index($1, prefix) == 1 { print $1 }'); do
        ip netns del "$namespace"
    done
    rm -rf "$DIRECTORY"
}

keep_or_end() {
    local status=$?
    trap - EXIT
    if [[ $status == 0 && -n ${KEEP:-} && $KEEP != 0 ]]; then explain_lab; else end_lab; fi
    exit "$status"
}

# ---- the network

wire() { # wire NAMESPACE INTERFACE NAMESPACE INTERFACE: a cable without offloads, so that frames are what a NIC sees
    ip -n "$PREFIX-$1" link add "$2" type veth peer name "$4" netns "$PREFIX-$3"
    local namespace interface
    for namespace in "$1 $2" "$3 $4"; do
        interface=${namespace#* } namespace=${namespace% *}
        inside "$namespace" ethtool -K "$interface" rx off tx off tso off gso off gro off >/dev/null 2>&1 || true
        inside "$namespace" sysctl -q -w "net.ipv6.conf.$interface.disable_ipv6=1" 2>/dev/null || true
        ip -n "$PREFIX-$namespace" link set "$interface" up
    done
}

make_network() {
    local name
    for name in client gateway switch rs1 rs2; do
        ip netns add "$PREFIX-$name"
        ip -n "$PREFIX-$name" link set lo up
    done
    ip -n "$PREFIX-switch" link add switch type bridge
    ip -n "$PREFIX-switch" link set switch up
    wire client eth0 gateway veth-wan
    wire switch gateway gateway veth-lan
    wire switch rs1 rs1 eth0
    wire switch rs2 rs2 eth0
    for name in gateway rs1 rs2; do ip -n "$PREFIX-switch" link set "$name" master switch; done
    ip -n "$PREFIX-client" addr add 10.0.0.10/24 dev eth0
    ip -n "$PREFIX-rs1" addr add 10.1.0.11/24 dev eth0
    ip -n "$PREFIX-rs2" addr add 10.1.0.12/24 dev eth0
}

start_nginx() {
    local name=$1 address=$2 directory=$DIRECTORY/$1
    mkdir -p "$directory"
    cat >"$directory/nginx.conf" <<CONF
pid $directory/nginx.pid;
error_log $directory/error.log;
worker_processes 1;
events { worker_connections 2048; }
http {
    access_log off;
    client_body_temp_path $directory; proxy_temp_path $directory; fastcgi_temp_path $directory;
    uwsgi_temp_path $directory; scgi_temp_path $directory;
    server {
        listen $address:80;
        default_type text/plain;
        location / { return 200 "this is $name, and I see you as \$remote_addr\n"; }
    }
}
CONF
    # Not through inside(): $! must be the server's own pid, which `ip netns exec` keeps.
    ip netns exec "$PREFIX-$name" nginx -c "$directory/nginx.conf" -e "$directory/error.log" -g 'daemon off;' >"$directory/out.log" 2>&1 &
    echo $! >"$DIRECTORY/$name.pid"
    wait_for 10 "nginx of $name" inside "$name" curl -sf --max-time 1 "http://$address/"
}

start_gateway() {
    sed -e "s|^socket = .*|socket = \"$FULLGATE_SOCKET\"|" -e "s|^state_dir = .*|state_dir = \"$DIRECTORY/state\"|" \
        "$ROOT/dpdk-config/lab.toml" >"$DIRECTORY/lab.toml"
    mkdir -p "$DIRECTORY/state"
    "$FULLGATE" check --config "$DIRECTORY/lab.toml" || fail "dpdk-config/lab.toml is not valid"
    ip netns exec "$PREFIX-gateway" "$FULLGATE" run --config "$DIRECTORY/lab.toml" </dev/null >"$DIRECTORY/fullgate.log" 2>&1 &
    echo $! >"$DIRECTORY/fullgate.pid"
    local pid=$! deadline=$((SECONDS + 30))
    until "$FULLGATE" status >/dev/null 2>&1; do
        [[ -e /proc/$pid ]] || fail "the gateway ended at start"
        ((SECONDS < deadline)) || fail "the gateway does not answer on $FULLGATE_SOCKET"
        sleep 0.1
    done
}

# ---- what is shown and checked

fetch_pages() {
    local answers=$DIRECTORY/answers number
    : >"$answers"
    for number in $(seq "$REQUESTS"); do
        inside client curl -sS --max-time 5 "http://$VIP/" >>"$answers" || fail "request $number got no answer"
    done
    sort "$answers" | uniq -c
    [[ $(wc -l <"$answers") == "$REQUESTS" ]] || fail "not every one of the $REQUESTS requests was answered"
    for name in rs1 rs2; do grep -q "this is $name," "$answers" || fail "$name was never asked"; done
    if grep -v -q -E 'see you as 10\.1\.0\.20[0-3]$' "$answers"; then fail "a real server saw a source that is no LIP (10.1.0.200-203)"; fi
    echo "both real servers answered, and all they saw is local addresses (LIPs) of the pool: that is FULLNAT"
}

show_gateway() {
    local sessions
    step "ping of the VIP: answered by the kernel, which owns the gateway's addresses"
    inside client ping -c 3 -i 0.2 -W 2 "$VIP" || fail "the VIP does not answer ping"
    step "fullgate service list"
    "$FULLGATE" service list
    step "the same by Debian's own ipvsadm, unmodified: fullgate exec -- ipvsadm -L -n"
    "$FULLGATE" exec -- ipvsadm -L -n | tee "$DIRECTORY/ipvsadm"
    grep -q "^TCP  $VIP:80 rr" "$DIRECTORY/ipvsadm" || fail "ipvsadm does not list the service"
    step "fullgate session list"
    "$FULLGATE" session list | sed -n 1,12p
    step "fullgate stats"
    "$FULLGATE" stats
    step "metrics (http://127.0.0.1:9469/metrics in the gateway's namespace), some lines"
    inside gateway curl -sS --max-time 5 http://127.0.0.1:9469/metrics >"$DIRECTORY/metrics"
    grep -E '^fullgate_(service_connections|real_server_connections|sessions_created|port_packets)' "$DIRECTORY/metrics" || fail "no metrics"
    sessions=$("$FULLGATE" session list --json | jq '[.. | objects | select(has("client") and has("local"))] | length')
    [[ $sessions == "$REQUESTS" ]] || fail "$REQUESTS sessions expected in the list, found $sessions"
    awk '/^fullgate_service_connections_total[{ ]/ { sum += $NF } END { exit sum != '"$REQUESTS"' }' "$DIRECTORY/metrics" ||
        fail "fullgate_service_connections_total is not $REQUESTS"
}

explain_lab() {
    local at="sudo ip netns exec $PREFIX-"
    cat <<TEXT

${bold}== The lab stays up (KEEP=1). To play with it:$plain
  export FULLGATE_SOCKET=$FULLGATE_SOCKET
  fullgate=$FULLGATE
  a request through the gateway
      ${at}client curl http://$VIP/
  what it does, every second; its sessions; draining a real server
      sudo -E \$fullgate stats --watch 1
      sudo -E \$fullgate session list
      sudo -E \$fullgate real edit -t $VIP:80 -r 10.1.0.11:80 -w 0
  the same with Debian's ipvsadm, which takes the gateway for the kernel's IPVS
      sudo -E \$fullgate exec -- ipvsadm -L -n --stats
      sudo -E \$fullgate exec -- ipvsadm -e -t $VIP:80 -r 10.1.0.11:80 -m -w 0
  the kernel's side of its ports
      ${at}gateway ip addr show fg-wan
      ${at}gateway ip neigh
  its metrics, log and configuration
      ${at}gateway curl -s http://127.0.0.1:9469/metrics
      $DIRECTORY/fullgate.log
      $DIRECTORY/lab.toml
To end it:
  sudo make demo-end
TEXT
}

main() {
    [[ $EUID == 0 ]] || { echo "demo: network namespaces need root: sudo make demo" >&2; exit 1; }
    if [[ ${1:-} == end ]]; then end_lab && echo "the demo's lab is gone"; return; fi
    step "Debian packages"
    "$HERE/install.sh"
    echo "all there"
    step "building fullgate (the first time takes some minutes)"
    (cd "$ROOT" && "$HERE/cargo.sh" build --release --locked --package fullgate --package ipvs-preload)
    end_lab
    trap keep_or_end EXIT
    trap 'exit 130' INT TERM
    mkdir -p "$DIRECTORY"
    step "network: client, gateway, switch and two real servers, each a namespace"
    make_network
    ip netns list | grep "^$PREFIX-" | cut -d' ' -f1 | xargs echo
    step "nginx on both real servers"
    start_nginx rs1 10.1.0.11
    start_nginx rs2 10.1.0.12
    inside rs1 curl -s http://10.1.0.11/
    inside rs2 curl -s http://10.1.0.12/
    step "gateway: fullgate run --config dpdk-config/lab.toml, on two AF_XDP ports, without hugepages"
    start_gateway
    "$FULLGATE" status
    step "$REQUESTS requests from the client to http://$VIP/"
    fetch_pages
    show_gateway
    step "all as it should be"
}

main "$@"

"""What a real server in mode tun needs, on a kernel without tunnel devices: takes IPIP, GRE and GUE packets over IPv4 and
IPv6 off raw sockets and gives what is in them to a TUN device, until it is ended. Checksums of GRE and GUE must be right.

Usage: decapsulate.py TUN-DEVICE GUE-PORT"""

import fcntl
import os
import select
import socket
import struct
import subprocess
import sys

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000
IN_IP = {4: socket.AF_INET, 41: socket.AF_INET6}
GRE = 47


def ones_complement_sum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def out_of_gre(payload):
    """The packet in a GRE packet, or None where its checksum is wrong."""
    if payload[0] & 0x80:
        return payload[8:] if ones_complement_sum(payload) == 0xFFFF else None
    return payload[4:]


def out_of_gue(payload):
    """The packet in a GUE packet, or None where that is something else."""
    return payload[4:] if payload[0] == 0 and payload[1] in IN_IP else None


def raw(family, protocol, take):
    """A socket for packets of a protocol, and what gets at what is inside. Only those of IPv4 come with their header."""
    outer = socket.socket(family, socket.SOCK_RAW, protocol)
    if family == socket.AF_INET:
        return outer, lambda packet: take(packet[(packet[0] & 15) * 4 :])
    return outer, take


def sockets(gue_port):
    # The kernel checks the UDP checksum; over IPv6, too, there may be none.
    gue = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    gue.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    gue.setsockopt(socket.IPPROTO_UDP, 102, 1)  # UDP_NO_CHECK6_RX
    gue.bind(("::", gue_port))
    found = [(gue, out_of_gue)]
    for family in (socket.AF_INET, socket.AF_INET6):
        found += [raw(family, protocol, lambda payload: payload) for protocol in IN_IP]
        found.append(raw(family, GRE, out_of_gre))
    return dict(found)


def main():
    device, gue_port = sys.argv[1], int(sys.argv[2])
    tun = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TUN | IFF_NO_PI))
    with open(f"/proc/sys/net/ipv6/conf/{device}/disable_ipv6", "w", encoding="ascii") as setting:
        setting.write("0")
    subprocess.run(["ip", "link", "set", device, "up"], check=True)
    for name in (device, "all"):
        with open(f"/proc/sys/net/ipv4/conf/{name}/rp_filter", "w", encoding="ascii") as setting:
            setting.write("0")
    inside = sockets(gue_port)
    for each in inside:
        each.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE
    print("ready", flush=True)
    while True:
        for ready in select.select(list(inside), [], [])[0]:
            packet = inside[ready](ready.recv(65535))
            if packet:
                os.write(tun, packet)


main()

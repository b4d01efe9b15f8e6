"""What a real server in mode tun needs, on a kernel without tunnel devices: takes IPIP, GRE and GUE packets of IPv4 and
IPv6 off raw sockets and gives what is in them, of either family, to a TUN device, until it is ended. Checksums of GRE and
GUE must be right.

Usage: decapsulate.py TUN-DEVICE GUE-PORT"""

import fcntl
import os
import select
import socket
import struct
import subprocess
import sys

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000
UDP_NO_CHECK6_RX, SO_RCVBUFFORCE = 102, 33


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
    raw, gue = [], []
    for family, anything in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        for protocol in (4, 41, 47):
            raw.append(socket.socket(family, socket.SOCK_RAW, protocol))
        # The kernel checks the UDP checksum.
        gue.append(socket.socket(family, socket.SOCK_DGRAM))
        if family == socket.AF_INET6:
            gue[-1].setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # A checksum of 0 is what a tunnel without one has (RFC 6935).
            gue[-1].setsockopt(socket.IPPROTO_UDP, UDP_NO_CHECK6_RX, 1)
        gue[-1].bind((anything, gue_port))
    for each in raw + gue:
        # A sender's burst must wait for this program, which is slow.
        each.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
    print("ready", flush=True)
    while True:
        for ready in select.select(raw + gue, [], [])[0]:
            packet = ready.recv(65535)
            if ready in gue:
                inner = packet[4:] if packet[:2] in (b"\0\4", b"\0\x29") else None
            else:
                # A raw socket of IPv4 gives the header, too; one of IPv6 does not.
                payload = packet[(packet[0] & 15) * 4 :] if ready.family == socket.AF_INET else packet
                inner = out_of_gre(payload) if ready.proto == 47 else payload
            if inner:
                os.write(tun, inner)


main()

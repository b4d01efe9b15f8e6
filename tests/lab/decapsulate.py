"""What a real server in mode tun needs, on a kernel without tunnel devices: takes IPIP, GRE and GUE packets off raw
sockets and gives what is in them to a TUN device, until it is ended. Checksums of GRE and GUE must be right.

Usage: decapsulate.py TUN-DEVICE GUE-PORT"""

import fcntl
import os
import select
import socket
import struct
import subprocess
import sys

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000


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
    subprocess.run(["ip", "link", "set", device, "up"], check=True)
    for name in (device, "all"):
        with open(f"/proc/sys/net/ipv4/conf/{name}/rp_filter", "w", encoding="ascii") as setting:
            setting.write("0")
    ipip = socket.socket(socket.AF_INET, socket.SOCK_RAW, 4)
    gre = socket.socket(socket.AF_INET, socket.SOCK_RAW, 47)
    # The kernel checks the UDP checksum.
    gue = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    gue.bind(("0.0.0.0", gue_port))
    print("ready", flush=True)
    while True:
        for ready in select.select([ipip, gre, gue], [], [])[0]:
            packet = ready.recv(65535)
            if ready is gue:
                inner = packet[4:] if packet[:2] == b"\0\4" else None
            else:
                payload = packet[(packet[0] & 15) * 4 :]
                inner = payload if ready is ipip else out_of_gre(payload)
            if inner:
                os.write(tun, inner)


main()

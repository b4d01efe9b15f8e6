#!/usr/bin/env python3
"""Writes a capture without end into a pipe, each frame the first of a flow that none before it in the capture had.

Frames are UDP without a checksum (0, RFC 768), so that from client to client only its address and the IPv4 header's
checksum change: a block of many is made at once, faster than any worker takes it.
"""

import fcntl
import os
import pathlib
import struct
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from harness import cases, pcap  # noqa: E402

FRAME_LEN = 60
RECORD_LEN = 16 + FRAME_LEN
FIRST_PORT, PORTS = 10_000, 10_000
PIPE_BYTES = 1 << 20


def block_of_ports():
    """A frame from each port of the client 0.0.0.0, and what its IPv4 header adds up to."""
    frame = pcap.Frame(pcap.UDP, cases.WAN_MAC, FRAME_LEN)
    records = bytearray()
    for port in range(FIRST_PORT, FIRST_PORT + PORTS):
        bytes_ = frame.of((0, port), cases.VIP)
        struct.pack_into("!H", bytes_, 40, 0)
        records += struct.pack("<IIII", 0, 0, FRAME_LEN, FRAME_LEN) + bytes_
    return records, frame.ip_sum + (cases.VIP[0] >> 16) + (cases.VIP[0] & 0xFFFF)


def put(block, offset, value):
    """Sets the bytes at an offset of every frame."""
    for index, byte in enumerate(value):
        block[16 + offset + index::RECORD_LEN] = bytes([byte]) * PORTS


def feed(path):
    block, ip_sum = block_of_ports()
    with open(path, "wb", buffering=0) as pipe:
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        pipe.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        number = 0
        while True:
            client = pcap.CLIENT_BASE + number % pcap.CLIENT_ADDRESSES
            put(block, 26, struct.pack("!I", client))
            put(block, 24, struct.pack("!H", pcap.folded(ip_sum + (client >> 16) + (client & 0xFFFF))))
            left = memoryview(block)
            while left:
                left = left[pipe.write(left):]
            left.release()
            number += 1


if __name__ == "__main__":
    os.sched_setaffinity(0, {int(sys.argv[1])})
    try:
        feed(sys.argv[2])
    except BrokenPipeError:
        pass

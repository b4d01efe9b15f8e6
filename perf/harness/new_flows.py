"""Writes a capture of many frames quickly, each the first of a flow of its own.

Frames are UDP without a checksum (0, RFC 768), so that from client to client only its address and the IPv4 header's
checksum change: those of all its ports are made at once.
"""

import struct

from . import cases, pcap

FRAME_LEN = 60
RECORD_LEN = 16 + FRAME_LEN
FIRST_PORT, PORTS = 10_000, 10_000


def block_of_ports():
    """A frame from each port of the client 0.0.0.0, and what its IPv4 header adds up to."""
    frame = pcap.Frame(pcap.UDP, cases.WAN_MAC, FRAME_LEN)
    records = bytearray()
    for port in range(FIRST_PORT, FIRST_PORT + PORTS):
        packet = frame.of((0, port), cases.VIP)
        struct.pack_into("!H", packet, 40, 0)
        records += struct.pack("<IIII", 0, 0, FRAME_LEN, FRAME_LEN) + packet
    return records, frame.ip_sum + (cases.VIP[0] >> 16) + (cases.VIP[0] & 0xFFFF)


def put(block, offset, value):
    """Sets the bytes at an offset of every frame."""
    for index, byte in enumerate(value):
        block[16 + offset + index::RECORD_LEN] = bytes([byte]) * PORTS


def write(path, frames):
    """Writes at least so many frames; gives how many there are."""
    block, ip_sum = block_of_ports()
    clients = min(-(-frames // PORTS), pcap.CLIENT_ADDRESSES)
    with open(path, "wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for client in range(pcap.CLIENT_BASE, pcap.CLIENT_BASE + clients):
            put(block, 26, struct.pack("!I", client))
            put(block, 24, struct.pack("!H", pcap.folded(ip_sum + (client >> 16) + (client & 0xFFFF))))
            file.write(block)
    return clients * PORTS

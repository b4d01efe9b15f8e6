"""Writes capture files of many flows, with right checksums. Knows nothing of the gateway.

Flow `i` is always the same client address and port, whatever the order, so that runs can be compared.
"""

import random
import struct

# 198.18.0.0/15 is set aside for benchmarks (RFC 2544, appendix C.2.2).
CLIENT_BASE = 0xC6120000
CLIENT_ADDRESSES = 1 << 17
CLIENTS_FIRST_PORT = 10_000
FLOWS_A_CLIENT = 16
MOST_FLOWS = CLIENT_ADDRESSES * 50_000

UDP, TCP = 17, 6
FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10

ETHERNET_LEN, IPV4_LEN = 14, 20
HEADERS_LEN = {UDP: ETHERNET_LEN + IPV4_LEN + 8, TCP: ETHERNET_LEN + IPV4_LEN + 20}


def order_of(flows, order, seed):
    """The flows' numbers in the order in which they are sent."""
    numbers = list(range(flows))
    if order == "random":
        random.Random(seed).shuffle(numbers)
    return numbers


def client_of(flow, flows):
    """Address and port of a flow's client, as numbers."""
    each = max(FLOWS_A_CLIENT, -(-flows // CLIENT_ADDRESSES))
    address, port = divmod(flow, each)
    return CLIENT_BASE + address, CLIENTS_FIRST_PORT + port


def ones_complement_sum(data):
    """The 16-bit ones' complement sum of `data` (RFC 1071), not yet folded."""
    if len(data) % 2:
        data += b"\0"
    return sum(struct.unpack(f"!{len(data) // 2}H", data))


def folded(total):
    """The checksum field of an unfolded sum."""
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Frame:
    """A frame of which only addresses and ports, and the checksums, differ from flow to flow."""

    def __init__(self, protocol, destination_mac, frame_len, flags=0):
        if frame_len < HEADERS_LEN[protocol]:
            raise ValueError(f"a packet size of {frame_len} is too small for its headers: {HEADERS_LEN[protocol]} or more")
        payload = bytes(n & 0xFF for n in range(frame_len - HEADERS_LEN[protocol]))
        ip = struct.pack("!BBHHHBBHII", 0x45, 0, frame_len - ETHERNET_LEN, 0, 0x4000, 64, protocol, 0, 0, 0)
        if protocol == UDP:
            l4, self.l4_checksum_at = struct.pack("!HHHH", 0, 0, 8 + len(payload), 0), 6
        else:
            l4, self.l4_checksum_at = struct.pack("!HHIIBBHHH", 0, 0, 1, 1, 0x50, flags, 65535, 0, 0), 16
        self.protocol = protocol
        self.ip_sum = ones_complement_sum(ip)
        self.l4_sum = ones_complement_sum(l4 + payload) + protocol + len(l4) + len(payload)
        ethernet = destination_mac + bytes.fromhex("0200000000fe") + b"\x08\x00"
        self.template = ethernet + ip + l4 + payload

    def of(self, source, destination):
        """The frame between two pairs of address and port."""
        frame = bytearray(self.template)
        (from_address, from_port), (to_address, to_port) = source, destination
        addresses = (from_address >> 16) + (from_address & 0xFFFF) + (to_address >> 16) + (to_address & 0xFFFF)
        struct.pack_into("!HIIHH", frame, 24, folded(self.ip_sum + addresses), from_address, to_address, from_port, to_port)
        checksum = folded(self.l4_sum + addresses + from_port + to_port)
        if self.protocol == UDP and checksum == 0:
            checksum = 0xFFFF
        struct.pack_into("!H", frame, 34 + self.l4_checksum_at, checksum)
        return frame


def write(path, frames):
    """Writes the frames; gives how many there were."""
    count = 0
    with open(path, "wb", buffering=1 << 20) as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for frame in frames:
            file.write(struct.pack("<IIII", 0, count % 1_000_000, len(frame), len(frame)))
            file.write(frame)
            count += 1
    return count

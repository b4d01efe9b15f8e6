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

ETHERNET_LEN, IPV4_LEN, IPV6_LEN = 14, 20, 40
L4_LEN = {UDP: 8, TCP: 20}
# An address of IPv6 is that of IPv4 in the last bytes of 2001:db8::/96.
IPV6_BASE = 0x20010DB8 << 96


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


def headers_len(protocol, ipv6=False):
    """Bytes of a frame's headers."""
    return ETHERNET_LEN + (IPV6_LEN if ipv6 else IPV4_LEN) + L4_LEN[protocol]


class Frame:
    """A frame of which only addresses and ports, and the checksums, differ from flow to flow."""

    def __init__(self, protocol, destination_mac, frame_len, flags=0, ipv6=False):
        headers = headers_len(protocol, ipv6)
        if frame_len < headers:
            raise ValueError(f"a packet size of {frame_len} is too small for its headers: {headers} or more")
        payload = bytes(n & 0xFF for n in range(frame_len - headers))
        self.ipv6 = ipv6
        if ipv6:
            ip = struct.pack("!IHBB32x", 0x60000000, L4_LEN[protocol] + len(payload), protocol, 64)
        else:
            ip = struct.pack("!BBHHHBBHII", 0x45, 0, frame_len - ETHERNET_LEN, 0, 0x4000, 64, protocol, 0, 0, 0)
        if protocol == UDP:
            l4, self.l4_checksum_at = struct.pack("!HHHH", 0, 0, 8 + len(payload), 0), 6
        else:
            l4, self.l4_checksum_at = struct.pack("!HHIIBBHHH", 0, 0, 1, 1, 0x50, flags, 65535, 0, 0), 16
        self.protocol = protocol
        self.ip_sum = ones_complement_sum(ip)
        self.l4_sum = ones_complement_sum(l4 + payload) + protocol + len(l4) + len(payload)
        ethernet = destination_mac + bytes.fromhex("0200000000fe") + (b"\x86\xdd" if ipv6 else b"\x08\x00")
        self.template = ethernet + ip + l4 + payload

    def of(self, source, destination):
        """The frame between two pairs of address and port."""
        frame = bytearray(self.template)
        (from_address, from_port), (to_address, to_port) = source, destination
        if self.ipv6:
            ends = ((IPV6_BASE + from_address) << 128 | IPV6_BASE + to_address).to_bytes(32, "big")
            frame[22:54] = ends
            struct.pack_into("!HH", frame, 54, from_port, to_port)
            self.put_checksum(frame, 54, ones_complement_sum(ends) + from_port + to_port)
            return frame
        addresses = (from_address >> 16) + (from_address & 0xFFFF) + (to_address >> 16) + (to_address & 0xFFFF)
        struct.pack_into("!HIIHH", frame, 24, folded(self.ip_sum + addresses), from_address, to_address, from_port, to_port)
        self.put_checksum(frame, 34, addresses + from_port + to_port)
        return frame

    def put_checksum(self, frame, l4_at, flow_sum):
        checksum = folded(self.l4_sum + flow_sum)
        if self.protocol == UDP and checksum == 0:
            checksum = 0xFFFF
        struct.pack_into("!H", frame, l4_at + self.l4_checksum_at, checksum)


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

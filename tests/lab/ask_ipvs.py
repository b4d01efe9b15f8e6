"""Lists IPVS's services by generic netlink, as programs do that are not built on libnl, by other functions of the C library.

Usage: ask_ipvs.py send|sendto|sendmsg"""

import ctypes
import os
import select
import socket
import struct
import sys

CONTROLLER, GET_FAMILY, FAMILY_ID, FAMILY_NAME = 0x10, 3, 1, 2
GET_SERVICE, SERVICE, PROTOCOL, ADDRESS, PORT = 4, 1, 2, 3, 4
REQUEST, DUMP, ERROR, DONE = 1, 0x300, 2, 3
KERNEL = (0, 0)


def attributes(data):
    found = {}
    while data:
        length, kind = struct.unpack_from("HH", data)
        found[kind & 0x3FFF] = data[4:length]
        data = data[length + 3 & ~3 :]
    return found


def ask(way, own, family, flags, command, payload=b""):
    body = struct.pack("BBH", command, 1, 0) + payload
    message = struct.pack("IHHII", 16 + len(body), family, flags, 1, os.getpid()) + body
    if way == "send":
        own.send(message)
    elif way == "sendto":
        own.sendto(message, KERNEL)
    else:
        own.sendmsg([message[:8], message[8:]], [], 0, KERNEL)


def answer(way, own):
    """The parts of one datagram, which must be the kernel's: type and what is behind the two headers."""
    if way == "send":
        select.select([own], [], [], 10)
        size = ctypes.CDLL(None).recv(own.fileno(), None, 0, socket.MSG_PEEK | socket.MSG_TRUNC)
        data, sender = own.recv(size), KERNEL
    elif way == "sendto":
        data, sender = own.recvfrom(65536)
    else:
        data, _, _, sender = own.recvmsg(65536)
    assert sender == KERNEL, sender
    while data:
        length, kind = struct.unpack_from("IH", data)
        if kind == ERROR and (error := struct.unpack_from("i", data, 16)[0]):
            sys.exit(os.strerror(-error))
        yield kind, data[20:length]
        data = data[length + 3 & ~3 :]


def main(way):
    own = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16)
    own.settimeout(10)
    own.bind((0, 0))
    name = b"IPVS\0"
    ask(way, own, CONTROLLER, REQUEST, GET_FAMILY, struct.pack("HH", 4 + len(name), FAMILY_NAME) + name.ljust(8, b"\0"))
    [(_, told)] = answer(way, own)
    [family] = struct.unpack("H", attributes(told)[FAMILY_ID])
    ask(way, own, family, REQUEST | DUMP, GET_SERVICE)
    done = False
    while not done:
        for kind, told in answer(way, own):
            done |= kind == DONE
            if kind == family:
                service = attributes(attributes(told)[SERVICE])
                address = socket.inet_ntoa(service[ADDRESS][:4])
                print(struct.unpack("H", service[PROTOCOL])[0], address, struct.unpack("!H", service[PORT])[0])


main(*sys.argv[1:])

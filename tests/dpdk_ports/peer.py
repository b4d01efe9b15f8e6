"""The other side of a port: sends the frames that it reads as lines of hexadecimal digits, writes those that arrive."""

import socket
import sys
import threading

OUTGOING = 4  # PACKET_OUTGOING: our own frames, which a packet socket sees too.
ALL = 3  # ETH_P_ALL

peer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL))
peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
peer.bind((sys.argv[1], ALL))


def receive():
    while True:
        frame, address = peer.recvfrom(65535)
        if address[2] != OUTGOING:
            print(frame.hex(), flush=True)


threading.Thread(target=receive, daemon=True).start()
print("ready", flush=True)
for line in sys.stdin:
    peer.send(bytes.fromhex(line))

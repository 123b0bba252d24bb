#!/usr/bin/env python3
"""HTTP/2 floods against a running gateway, 50 connections at a time: when each is cut, and what memory it cost.

Not part of the gate (`tests/it/hostile/floods.rs` is): this watches a process of its own.
Usage: target/release/rtm-gateway demo --port 18080 --admin-port 18081 & tests/outside/floods.py $! 18080
"""
import socket, struct, sys, threading, time

PID, PORT = int(sys.argv[1]), int(sys.argv[2])


def kib(name):
    return int(next(line for line in open(f"/proc/{PID}/status") if line.startswith(name)).split()[1])


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def string(text):
    text = text.encode()
    if len(text) < 127:
        return bytes([len(text)]) + text
    left, out = len(text) - 127, b"\x7f"
    while left >= 128:
        out, left = out + bytes([left % 128 | 128]), left // 128
    return out + bytes([left]) + text


def literal(name, value):
    return b"\0" + string(name) + string(value)


PATH = "/dev/v2/project/demo-app/rtm/vendor/user_events?wait=20s"
HEAD = b"".join(
    literal(*h)
    for h in [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", PATH), ("x-api-key", "demo-crm")]
)


def drain(sock):
    try:
        while sock.recv(65536):
            pass
    except OSError:
        pass


def flood(name, beginning, following, reads=True):
    before, began, ends, sent = kib("VmRSS"), time.time(), [], []

    def one():
        sock, n, total = socket.create_connection(("127.0.0.1", PORT)), 0, 0
        sock.settimeout(20)
        try:
            sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0) + beginning)
            if reads:
                threading.Thread(target=drain, args=(sock,), daemon=True).start()
            while time.time() - began < 15:
                some = b"".join(following(n + i) for i in range(50))
                sock.sendall(some)
                n, total = n + 50, total + len(some)
            ends.append("went on")
        except OSError:
            ends.append("cut")
        sent.append(total)
        sock.close()

    threads = [threading.Thread(target=one) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(
        f"{name}: {ends.count('cut')} of 50 cut within {time.time() - began:.1f} s, after {sum(sent) // 50 // 1024} KiB "
        f"each; resident {before} -> {kib('VmRSS')} KiB, peak {kib('VmHWM')} KiB",
        flush=True,
    )


def stream(n):
    return 2 * n + 1


flood("PING, answers unread", b"", lambda n: frame(6, 0, 0, b"x" * 8), reads=False)
flood("PING", b"", lambda n: frame(6, 0, 0, b"x" * 8))
flood("SETTINGS", b"", lambda n: frame(4, 0, 0))
flood("rapid reset", b"", lambda n: frame(1, 5, stream(n), HEAD) + frame(3, 0, stream(n), b"\0\0\0\x08"))
flood("CONTINUATION", frame(1, 1, 1, HEAD), lambda n: frame(9, 0, 1, literal(f"x-{n}", "y" * 1000)))
flood("MadeYouReset", b"", lambda n: frame(1, 5, stream(n), HEAD) + frame(8, 0, stream(n), b"\0" * 4))
flood("streams beyond the limit", b"", lambda n: frame(1, 5, stream(n), HEAD))

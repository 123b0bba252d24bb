"""Strangers of every protocol at a gateway, and what those it knows notice of them. See strangers.sh.

Usage: strangers.py GATEWAY OPERATOR SOCKET PLACES SECONDS
"""

import multiprocessing
import select
import socket
import sys
import time
from urllib.parse import urlsplit

GATEWAY, OPERATOR = (urlsplit(url).netloc.rsplit(":", 1) for url in sys.argv[1:3])
GATEWAY, OPERATOR = ((host, int(port)) for host, port in (GATEWAY, OPERATOR))
SOCKET, PLACES, SECONDS = sys.argv[3], int(sys.argv[4]), float(sys.argv[5])
RATE = 1000
DEADLINE = 10

EVENTS = b"GET /dev/v2/project/demo-app/rtm/vendor/user_events?limit=1 HTTP/1.1\r\nHost: a\r\nX-API-Key: all-key\r\n\r\n"
PROBES = [b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n"]


def frame(kind, flags, stream, payload=b""):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0)
PING = frame(6, 0, 0, b"12345678")
POST = b"\x83\x86\x84\x41\x01a"  # POST http://a/
# What a stranger says at first, and then every second.
STRANGERS = [
    (b"", b""),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX-A: ", b"x"),
    (b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n", b""),
    (b"POST /nothing HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n", b"x"),
    (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", b"x"),
    (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", b"x"),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"x"),
    (HTTP2, PING),
    (HTTP2 + frame(1, 4, 1, POST), PING),
    (HTTP2 + frame(1, 0, 1, b"\x82"), b""),
]


class Crowd:
    """Strangers of one place."""

    def __init__(self, to):
        self.to, self.open, self.poll, self.came = to, {}, select.epoll(), 0

    def one_more(self):
        says, then = STRANGERS[self.came % len(STRANGERS)]
        self.came += 1
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(self.to)
        self.open[sock.fileno()] = [sock, says, then, time.monotonic()]
        self.poll.register(sock, select.EPOLLIN | select.EPOLLOUT | select.EPOLLHUP | select.EPOLLERR)

    def look(self):
        for fd, what in self.poll.poll(0, 4000):
            one = self.open[fd]
            try:
                if what & select.EPOLLOUT and one[1] is not None:
                    one[0].send(one[1])
                    one[1] = None
                    self.poll.modify(fd, select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR)
                if what & ~select.EPOLLOUT and not one[0].recv(65536):
                    raise OSError
            except BlockingIOError:
                pass
            except OSError:
                self.gone(fd)

    def drip(self):
        now = time.monotonic()
        for fd, one in list(self.open.items()):
            if one[2] and one[1] is None and now - one[3] >= 1:
                one[3] = now
                try:
                    one[0].send(one[2])
                except OSError:
                    self.gone(fd)

    def gone(self, fd):
        self.poll.unregister(fd)
        self.open.pop(fd)[0].close()


def strangers(ready, over):
    crowds = [(Crowd(GATEWAY), RATE, PLACES), (Crowd(OPERATOR), RATE // 10, 100)]
    for crowd, _, places in crowds:
        while crowd.came < places:
            for _ in range(50):
                crowd.one_more()
            crowd.look()
            time.sleep(0.01)
    time.sleep(1)
    for crowd, _, _ in crowds:
        crowd.look()
    print("strangers open before the flood:", [len(crowd.open) for crowd, _, _ in crowds], flush=True)
    ready.set()
    began, came = time.monotonic(), [crowd.came for crowd, _, _ in crowds]
    dripped = began
    while not over.is_set():
        now = time.monotonic()
        for (crowd, rate, _), before in zip(crowds, came):
            while crowd.came - before < (now - began) * rate:
                crowd.one_more()
            crowd.look()
        if now - dripped > 0.25:
            dripped = now
            for crowd, _, _ in crowds:
                crowd.drip()
        time.sleep(0.002)
    took = time.monotonic() - began
    rates = [round((crowd.came - before) / took) for (crowd, _, _), before in zip(crowds, came)]
    print("new strangers a second:", rates, "open at the end:", [len(c.open) for c, _, _ in crowds], flush=True)


def connect(to):
    sock = socket.socket(socket.AF_UNIX if isinstance(to, str) else socket.AF_INET)
    sock.settimeout(DEADLINE)
    sock.connect(to)
    return sock


def exchange(sock, request):
    sock.sendall(request)
    answer = b""
    while b"\r\n\r\n" not in answer:
        more = sock.recv(65536)
        if not more:
            raise OSError("closed")
        answer += more
    head, body = answer.split(b"\r\n\r\n", 1)
    length = next(int(l.split(b":")[1]) for l in head.split(b"\r\n") if l.lower().startswith(b"content-length"))
    while len(body) < length:
        more = sock.recv(65536)
        if not more:
            raise OSError("closed")
        body += more
    if not head.startswith(b"HTTP/1.1 200"):
        raise OSError(head.split(b"\r\n")[0].decode())


def caller(to, requests, kept, ready, over, results):
    took, errors, sock, n = [], {}, connect(to) if kept else None, 0
    if kept:
        exchange(sock, requests[0])
    ready.wait()
    while not over.is_set():
        began = time.monotonic()
        try:
            if not kept or sock is None:
                sock = connect(to)
            exchange(sock, requests[n % len(requests)])
            took.append(time.monotonic() - began)
            if not kept:
                sock.close()
        except OSError as why:
            errors[str(why)] = errors.get(str(why), 0) + 1
            took.append(time.monotonic() - began)
            sock = None
        n += 1
        time.sleep(0.02)
    results.put((took, errors))


def main():
    ready, over = multiprocessing.Event(), multiprocessing.Event()
    classes = [
        ("known callers, connections kept", GATEWAY, [EVENTS], True, 5),
        ("known callers, a new connection each", GATEWAY, [EVENTS], False, 5),
        ("Unix socket, kept", SOCKET, [EVENTS], True, 1),
        ("Unix socket, a new connection each", SOCKET, [EVENTS], False, 2),
        ("probes, a new connection each", OPERATOR, PROBES, False, 2),
    ]
    waiting, all_of_them = [], []
    for name, to, requests, kept, count in classes:
        results = multiprocessing.Queue()
        waiting.append((name, results, count))
        for _ in range(count):
            all_of_them.append(multiprocessing.Process(target=caller, args=(to, requests, kept, ready, over, results)))
    for one in all_of_them:
        one.start()
    time.sleep(1)
    flood = multiprocessing.Process(target=strangers, args=(ready, over))
    flood.start()
    ready.wait()
    time.sleep(SECONDS)
    over.set()
    for name, results, count in waiting:
        took, errors = [], {}
        for _ in range(count):
            some, wrong = results.get(timeout=2 * DEADLINE)
            took += some
            for why, n in wrong.items():
                errors[why] = errors.get(why, 0) + n
        took.sort()
        at = lambda part: f"{1000 * took[min(len(took) - 1, int(part * len(took)))]:.0f} ms"
        print(f"{name}: {len(took)} requests, p50 {at(.5)}, p99 {at(.99)}, most {at(1)}; failed: {errors or 'none'}")
    flood.join()


main()

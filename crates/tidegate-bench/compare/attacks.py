#!/usr/bin/env python3
"""What a well-behaved client of the web server notices of attacks, and what they do to the server's memory.

    cargo build --release
    crates/tidegate-bench/compare/attacks.py target/release/tidegate [--only slow-heads] [--seconds 20] [--workers 1]

For each attack a server of its own is started, with its defaults but for the room that the attack needs. A client at a
fixed rate (`tidegate bench http --rate`, latency from the moment when a request is due) measures it quiet and then under
the attack, which goes on for as long as is measured: what the server ends begins anew. The limit is max(3 x quiet, 10 ms)
of the 99th percentile. Attackers come from other addresses of loopback, and run only when a processor has nothing else to do
(SCHED_IDLE), so that it is the server that is measured and not who of two clients gets the processor.

Server and client have a processor each where there are two. Not for a machine that does other work.
Needs: Linux, Python 3.8, a hard limit of open files of 12000 for `idle`.
"""

import argparse
import errno
import json
import multiprocessing
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

BIG_BYTES = 10 << 20
REQUEST = b"GET /hello HTTP/1.1\r\nHost: attack\r\n\r\n"
IP_BIND_ADDRESS_NO_PORT = 24


class Server:
    """A server in a folder of its own. It is gone at the end of the block."""

    def __init__(self, program, settings, cpu):
        self.folder = tempfile.TemporaryDirectory(prefix="tidegate-attacks-")
        site = os.path.join(self.folder.name, "site")
        os.mkdir(site)
        with open(os.path.join(site, "big"), "wb") as big:
            big.write(os.urandom(1 << 20) * (BIG_BYTES >> 20))
        given = {"data_dir": os.path.join(self.folder.name, "data"), "web.root": site}
        given.update({f"listen.{name}.address": "127.0.0.1:0" for name in ("web", "gateway", "admin")})
        given.update(settings)
        command = [program, "run"]
        for key, value in given.items():
            command += ["--set", f"{key}={value}"]
        if cpu is not None:
            command = ["taskset", "-c", str(cpu)] + command
        self.log = open(os.path.join(self.folder.name, "stderr"), "w+")
        self.process = subprocess.Popen(
            command, cwd=self.folder.name, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self.log)
        self.addresses = self.wait_ready()

    def wait_ready(self):
        until = time.monotonic() + 20
        while time.monotonic() < until and self.process.poll() is None:
            for line in self.said().splitlines():
                if line.startswith("tidegate: ready, "):
                    return dict(it.split("=", 1) for it in line[len("tidegate: ready, "):].split(" "))
            time.sleep(0.05)
        sys.exit(f"the server does not start:\n{self.said()}")

    def said(self):
        with open(self.log.name) as log:
            return log.read()

    def port(self, name):
        return int(self.addresses[name].rsplit(":", 1)[1])

    def ask(self, path):
        with urllib.request.urlopen(f"http://{self.addresses['admin']}{path}", timeout=20) as answer:
            return answer.read().decode()

    def workers(self):
        return [it["pid"] for it in json.loads(self.ask("/status"))["processes"] if it["role"] == "worker"]

    def memory_kib(self, field):
        total = 0
        for pid in self.workers():
            with open(f"/proc/{pid}/status") as status:
                total += sum(int(line.split()[1]) for line in status if line.startswith(field + ":"))
        return total

    def closes(self):
        """How many connections of the web have ended, by reason."""
        found = {}
        for line in self.ask("/metrics").splitlines():
            if line.startswith("tidegate_connections_closed_total{") and 'listener="web"' in line:
                reason = line.split('reason="', 1)[1].split('"', 1)[0]
                found[reason] = found.get(reason, 0) + int(line.rsplit(" ", 1)[1])
        return found

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
        self.folder.cleanup()


def source(nth):
    """One of 200 addresses of loopback that are not the client's."""
    return f"127.0.1.{nth % 200 + 1}"


def connect(port, address, receive_buffer=None):
    peer = socket.socket()
    if receive_buffer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    peer.setsockopt(socket.SOL_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    peer.bind((address, 0))
    peer.settimeout(5)
    peer.connect(("127.0.0.1", port))
    return peer


def keep(port, count, words, more, ready, receive_buffer=None):
    """Keeps so many connections, each of which says `words` and then `more` once a second; those that end begin anew."""
    peers = {}
    poll = select.epoll()
    opened = 0
    while True:
        begin = time.monotonic()
        # Not all at once: a second's worth of connections is opened in a second.
        for _ in range(min(count - len(peers), 2000)):
            try:
                peer = connect(port, source(opened), receive_buffer)
                peer.sendall(words)
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.EADDRNOTAVAIL):
                    raise
                continue
            opened += 1
            peer.setblocking(False)
            peers[peer.fileno()] = peer
            # Whoever reads nothing hears of nothing but the end.
            poll.register(peer, select.EPOLLRDHUP | (0 if receive_buffer else select.EPOLLIN))
        if len(peers) == count:
            ready.set()
        ended = set()
        for fd, _ in poll.poll(0):
            try:
                if receive_buffer is None and peers[fd].recv(4096):
                    continue
            except BlockingIOError:
                continue
            except OSError:
                pass
            ended.add(fd)
        if more or receive_buffer:
            for fd, peer in peers.items():
                try:
                    peer.send(more) if more else peer.recv(1)
                except BlockingIOError:
                    pass
                except OSError:
                    ended.add(fd)
        for fd in ended:
            peers.pop(fd).close()
        time.sleep(max(0, 1 - (time.monotonic() - begin)))


def slow_heads(port, count, ready):
    keep(port, count, b"GET / HTTP/1.1\r\nHost: attack\r\nX: ", b"x", ready)


def slow_bodies(port, count, ready):
    keep(port, count, b"POST /hello HTTP/1.1\r\nHost: attack\r\nContent-Length: 1000000\r\n\r\n", b"x", ready)


def slow_readers(port, count, ready):
    keep(port, count, b"GET /big HTTP/1.1\r\nHost: attack\r\n\r\n", b"", ready, receive_buffer=4096)


def idle(port, count, ready):
    keep(port, count, b"", b"", ready)


def flood(port, ready, last_words):
    """Opens and ends connections as fast as it can."""
    nth = 0
    ready.set()
    while True:
        nth += 1
        try:
            peer = connect(port, source(nth))
        except OSError:
            continue
        try:
            last_words(peer)
        except OSError:
            pass
        peer.close()


def connection_flood(port, _count, ready):
    flood(port, ready, lambda peer: None)


def reset_flood(port, _count, ready):
    def reset(peer):
        peer.send(REQUEST)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    flood(port, ready, reset)


def request_flood(port, count, ready):
    """Asks on connections of one address, 100 requests at a time, as fast as it is answered."""
    poll = select.epoll()
    peers = {}
    for _ in range(count):
        peer = connect(port, source(0))
        peer.sendall(REQUEST * 100)
        peer.setblocking(False)
        peers[peer.fileno()] = peer
        poll.register(peer, select.EPOLLIN)
    ready.set()
    while True:
        for fd, _ in poll.poll():
            peer = peers[fd]
            try:
                if not peer.recv(1 << 18):
                    sys.exit("the server ends connections of the request flood")
                peer.send(REQUEST * 100)
            except BlockingIOError:
                pass


# Name: what it does, with how many, and settings of the server.
ATTACKS = {
    "slow-heads": (slow_heads, 1500, {}),
    "slow-bodies": (slow_bodies, 1500, {}),
    # On loopback ten segments, which the kernel sends without an answer, are 640 KiB, and it takes twice that from the server
    # for each connection: 2 GiB in all, which is more than it has for TCP. On a network of 1500-byte packets it is 90 KiB.
    "slow-readers": (slow_readers, 1500, {"listen.web.send_buffer": "64KiB"}),
    "idle": (idle, 10_000, {"engine.max_connections": "12000"}),
    "connection-flood": (connection_flood, 1, {}),
    "reset-flood": (reset_flood, 1, {}),
    "request-flood": (request_flood, 16, {}),
}


def attacker(attack, port, count, ready, cpu):
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    attack(port, count, ready)


def measure(program, port, options, cpu):
    command = [program, "bench", "http", "--to", f"http://127.0.0.1:{port}/hello", "--rate", str(options.rate),
               "--connections", "10", "--duration", f"{options.seconds}s", "--warmup", "1s", "--json"]
    if cpu is not None:
        command = ["taskset", "-c", str(cpu)] + command
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        report = json.loads(done.stdout)
    except ValueError:
        sys.exit(f"the client failed: {done.stderr.decode()}")
    failed = sum(it for it in report["failures"].values() if isinstance(it, int))
    return report["latency"]["p99_us"] / 1000, failed + report["unsent"] + report["unanswered"]


def run(program, name, options, cpus):
    attack, count, settings = ATTACKS[name]
    server_cpu, client_cpu = cpus
    settings = dict(settings, **{"process.workers": str(options.workers)})
    for given in options.set:
        key, value = given.split("=", 1)
        settings[key] = value
    with Server(program, settings, server_cpu) as server:
        port = server.port("web")
        quiet, lost = measure(program, port, options, client_cpu)
        if lost:
            print(f"{name}: {lost} requests failed before the attack; the machine is not quiet", file=sys.stderr)
        memory, closes = server.memory_kib("VmRSS"), server.closes()
        ready = multiprocessing.Event()
        child = multiprocessing.Process(
            target=attacker, args=(attack, port, count, ready, client_cpu), daemon=True)
        child.start()
        try:
            if not ready.wait(60):
                sys.exit(f"{name}: the attack did not come about")
            under, lost = measure(program, port, options, client_cpu)
            if not child.is_alive():
                sys.exit(f"{name}: the attack ended too early")
            peak, after = server.memory_kib("VmHWM"), server.closes()
        finally:
            child.kill()
            child.join()
    ended = {reason: n - closes.get(reason, 0) for reason, n in after.items()}
    ended = " ".join(f"{reason} {n}" for reason, n in sorted(ended.items(), key=lambda it: -it[1]) if n > 0)
    limit = max(3 * quiet, 10)
    verdict = "ok" if under <= limit and lost == 0 else f"TOO SLOW, {lost} lost" if lost else "TOO SLOW"
    print(f"{name:<17} {quiet:>9.2f} {under:>10.2f} {limit:>8.2f} {memory / 1024:>8.1f} {peak / 1024:>8.1f}  "
          f"{verdict:<8}  {ended}", flush=True)
    return verdict == "ok"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", help="the binary tidegate, optimised")
    parser.add_argument("--only", action="append", choices=list(ATTACKS), help="one of the attacks; several may be given")
    parser.add_argument("--rate", type=int, default=1000, help="requests per second of the client that is measured")
    parser.add_argument("--seconds", type=int, default=20, help="how long is measured, each time")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a further setting of the server")
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    cpus = sorted(os.sched_getaffinity(0))
    cpus = (cpus[0], cpus[1]) if len(cpus) > 1 else (None, None)
    if options.workers > 1:
        cpus = (None, None)
    program = os.path.abspath(options.program)
    print(f"{'attack':<17} {'quiet p99':>9} {'under p99':>10} {'limit':>8} {'RSS':>8} {'peak':>8}  {'':<8}  closes by reason")
    print(f"{'':<17} {'ms':>9} {'ms':>10} {'ms':>8} {'MiB':>8} {'MiB':>8}")
    names = options.only or list(ATTACKS)
    good = [run(program, name, options, cpus) for name in names]
    sys.exit(0 if all(good) else 1)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""CPU time of the example `proxy` and of HAProxy in TCP mode, for the same messages.

    cargo build --release -p tidegate --example proxy
    crates/tidegate-bench/compare/proxy.py target/release/examples/proxy [--size 64] [--size 16384]

A client (one process) keeps one message of the size in flight on each connection; a target (another one) echoes. Both
proxies have one thread and take turns, ROUNDS times. What is compared is the CPU time that the kernel has entered for
the proxy (/proc/PID/task/*/schedstat), user and system together, for each message there and back: it does not depend on
how fast the two peers are, as long as both proxies get the same load. The answers are checked.

Needs: haproxy (Debian 12: 2.6). Not for a machine that does other work. With --strace: system calls of each, by strace -c.
"""

import argparse
import glob
import os
import select
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HAPROXY = """\
global
    nbthread 1
    maxconn 4000
defaults
    mode tcp
    timeout connect 10s
    timeout client 10m
    timeout server 10m
listen compare
    bind 127.0.0.1:{listen}
    server target 127.0.0.1:{target}
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def echo(listener):
    """Echoes for ever, on whatever connects."""
    poll = select.epoll()
    listener.setblocking(False)
    poll.register(listener, select.EPOLLIN)
    peers = {}
    while True:
        for fd, _ in poll.poll():
            if fd == listener.fileno():
                peer, _ = listener.accept()
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                peers[peer.fileno()] = peer
                poll.register(peer, select.EPOLLIN)
                continue
            try:
                data = peers[fd].recv(1 << 18)
                if data:
                    peers[fd].sendall(data)
                    continue
            except ConnectionError:
                pass
            peers.pop(fd).close()


def connect(port, count, size):
    """Connections on which a message has gone there and back."""
    peers = []
    deadline = time.monotonic() + 10
    while len(peers) < count:
        try:
            peer = socket.create_connection(("127.0.0.1", port), 10)
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer.sendall(b"x" * size)
            if len(receive(peer, size)) == size:
                peers.append(peer)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
    return peers


def receive(peer, size):
    data = b""
    while len(data) < size:
        part = peer.recv(size - len(data))
        if not part:
            raise ConnectionError("the proxy has closed a connection")
        data += part
    return data


def exchange(peers, rounds, size):
    message = os.urandom(size)
    for _ in range(rounds):
        for peer in peers:
            peer.sendall(message)
        for peer in peers:
            if receive(peer, size) != message:
                sys.exit("a wrong answer")


def cpu_ns(pid):
    total = 0
    for path in glob.glob(f"/proc/{pid}/task/*/schedstat"):
        with open(path) as file:
            total += int(file.read().split()[0])
    return total


def start(command, stderr=subprocess.DEVNULL):
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("proxy", help="the example program")
    parser.add_argument("--haproxy", default="/usr/sbin/haproxy")
    parser.add_argument("--size", type=int, action="append", help="bytes of a message; default 64 and 16384")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--messages", type=int, default=40_000, help="in each round, of each proxy")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--strace", action="store_true")
    options = parser.parse_args()
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    target = listener.getsockname()[1]
    peer = os.fork()
    if peer == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        echo(listener)
    listener.close()
    ports = {"tidegate": free_port(), "haproxy": free_port()}
    with tempfile.NamedTemporaryFile("w", suffix=".cfg") as config:
        config.write(HAPROXY.format(listen=ports["haproxy"], target=target))
        config.flush()
        commands = {
            "tidegate": [options.proxy, f"127.0.0.1:{ports['tidegate']}", f"127.0.0.1:{target}", "0"],
            "haproxy": [options.haproxy, "-q", "-db", "-f", config.name],
        }
        proxies = {name: start(command) for name, command in commands.items()}
        try:
            for size in options.size or [64, 16384]:
                compare(size, options, ports, proxies)
        finally:
            for proxy in proxies.values():
                proxy.terminate()
            for proxy in proxies.values():
                proxy.wait()
            os.kill(peer, signal.SIGKILL)
            os.waitpid(peer, 0)


def compare(size, options, ports, proxies):
    rounds = max(1, options.messages // options.connections)
    messages = rounds * options.connections
    peers = {name: connect(port, options.connections, size) for name, port in ports.items()}
    for name in peers:
        exchange(peers[name], max(1, rounds // 10), size)
    spent = {name: [] for name in peers}
    for _ in range(options.rounds):
        for name, own in peers.items():
            before = cpu_ns(proxies[name].pid)
            exchange(own, rounds, size)
            spent[name].append((cpu_ns(proxies[name].pid) - before) / messages)
    ratios = [a / b for a, b in zip(spent["tidegate"], spent["haproxy"])]
    print(f"{size} bytes, {options.connections} connections, {messages} messages there and back in each round")
    for name, values in spent.items():
        print(f"  {name:9} median {statistics.median(values):8.0f} ns CPU a message, least {min(values):8.0f}")
    print(f"  ratio     median {statistics.median(ratios):8.3f}, of the least {min(spent['tidegate']) / min(spent['haproxy']):.3f}")
    if options.strace:
        for name, own in peers.items():
            calls(name, proxies[name].pid, own, rounds, size)
    for own in peers.values():
        for peer in own:
            peer.close()


def calls(name, pid, peers, rounds, size):
    with tempfile.NamedTemporaryFile("r") as table:
        tracer = start(["strace", "-c", "-f", "-p", str(pid), "-o", table.name], subprocess.PIPE)
        # It says so when it has attached.
        tracer.stderr.readline()
        exchange(peers, max(1, rounds // 10), size)
        tracer.send_signal(signal.SIGINT)
        tracer.wait()
        messages = max(1, rounds // 10) * len(peers)
        for line in table.read().splitlines():
            fields = line.split()
            if len(fields) >= 5 and fields[3].isdigit() and fields[-1] != "total":
                print(f"  {name:9} {fields[-1]:12} {int(fields[3]) / messages:6.2f} a message")


if __name__ == "__main__":
    main()

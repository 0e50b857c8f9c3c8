#!/usr/bin/env python3
"""TLS of Tidegate and of nginx, by the processor time that each takes: for a request on kept connections, and for a handshake.

Both serve the same 1 KiB with the same certificate (P-256), the same cipher (TLS_AES_256_GCM_SHA384, X25519) and one worker, and
are measured in turn, so that what else the machine does meets both. What is compared is user and system time of the servers'
processes; what the load's own process takes does not count. Needs nginx, h2load and openssl.

    cargo build --release -p tidegate-cli
    crates/tidegate-bench/compare/tls.py [--tidegate target/release/tidegate] [--rounds 5] [--requests 60000] [--handshakes 3000]
"""

import argparse
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

TICKS = os.sysconf("SC_CLK_TCK")
BODY = b"x" * 1024


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port, process):
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if process.poll() is not None:
            sys.exit(f"{process.args[0]} ended with {process.returncode} before it served")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    sys.exit(f"{process.args[0]} does not serve")


def children(pid):
    """A process and all below it."""
    found = [pid]
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/children") as listed:
            for child in listed.read().split():
                found += children(int(child))
    return found


def cpu_seconds(process):
    """What all processes of a server have taken so far, in nanoseconds of the scheduler where it tells them."""
    total = 0.0
    for pid in children(process.pid):
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/schedstat") as stat:
                total += int(stat.read().split()[0]) / 1e9
    return total


def start_tidegate(binary, folder, port):
    site = os.path.join(folder, "site")
    with open(os.path.join(folder, "tidegate.toml"), "w") as file:
        file.write(
            f'data_dir = "data"\nprocess = {{ workers = 1 }}\nweb = {{ root = "{site}" }}\n'
            f'[[listen]]\nname = "https"\naddress = "127.0.0.1:{port}"\nservice = "web"\n'
            'tls = { cert = "a.pem", key = "a.key" }\n'
        )
    env = {key: value for key, value in os.environ.items() if not key.startswith("TIDEGATE_")}
    log = open(os.path.join(folder, "tidegate.log"), "w")
    return subprocess.Popen([binary, "run"], cwd=folder, env=env, stdout=log, stderr=log)


def start_nginx(folder, port):
    with open(os.path.join(folder, "nginx.conf"), "w") as file:
        file.write(
            "daemon off; worker_processes 1; error_log stderr; pid nginx.pid;\n"
            "events { worker_connections 4096; }\n"
            "http { access_log off; sendfile on; tcp_nopush on; keepalive_requests 100000000; keepalive_timeout 75s;\n"
            "  open_file_cache max=100; types { text/plain txt; }\n"
            f"  server {{ listen 127.0.0.1:{port} ssl; root {folder}/site; ssl_certificate {folder}/a.pem;\n"
            f"    ssl_certificate_key {folder}/a.key; ssl_protocols TLSv1.2 TLSv1.3; ssl_ecdh_curve X25519;\n"
            "    ssl_session_tickets on; } }\n"
        )
    log = open(os.path.join(folder, "nginx.log"), "w")
    return subprocess.Popen(["nginx", "-p", folder, "-c", "nginx.conf"], stdout=log, stderr=log)


def requests(port, count, clients):
    """Requests on kept connections; answers how many were answered."""
    url = f"https://127.0.0.1:{port}/static-1k.txt"
    args = ["h2load", "--h1", "-n", str(count), "-c", str(clients), "-t", "1", url]
    text = subprocess.run(args, capture_output=True, text=True, check=True).stdout
    done = int(re.search(r"(\d+) succeeded", text).group(1))
    cipher = re.search(r"Cipher: (\S+)", text)
    if done != count:
        sys.exit(f"port {port}: {done} of {count} requests were answered\n{text}")
    return done, cipher.group(1) if cipher else "?"


def handshakes(port, count, threads=4):
    """Connections that say nothing but the handshake, with a certificate and keys each time."""
    import ssl

    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE

    def some(number):
        for _ in range(number):
            with socket.create_connection(("127.0.0.1", port)) as plain:
                with context.wrap_socket(plain) as secured:
                    if secured.session_reused:
                        sys.exit("a session went on, which is no full handshake")

    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(some, count // threads) for _ in range(threads)]:
            done.result()
    return count // threads * threads


def measure(servers, rounds, what):
    """Microseconds for one, per server: the median over the rounds, which alternate."""
    taken = {name: [] for name in servers}
    for number in range(rounds + 1):
        for name, (process, port) in servers.items():
            before = cpu_seconds(process)
            done = what(port)
            each = (cpu_seconds(process) - before) / done * 1e6
            if number > 0:
                # The first round fills caches.
                taken[name].append(each)
    return {name: statistics.median(each) for name, each in taken.items()}


def report(title, figures):
    ratio = figures["tidegate"] / figures["nginx"]
    for name, each in figures.items():
        print(f"{title:24} {name:9} {each:8.1f} us of CPU each, {1e6 / each:8.0f} per CPU second")
    print(f"{title:24} tidegate / nginx: {ratio:.3f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tidegate", default="target/release/tidegate")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--requests", type=int, default=60000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--handshakes", type=int, default=3000)
    args = parser.parse_args()
    for program in ["nginx", "h2load"]:
        if not shutil.which(program):
            sys.exit(f"there is no {program}")
    binary = os.path.abspath(args.tidegate)
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        os.mkdir(os.path.join(folder, "site"))
        with open(os.path.join(folder, "site", "static-1k.txt"), "wb") as file:
            file.write(BODY)
        made = [binary, "cert", "--self-signed", "--cert", "a.pem", "--key", "a.key"]
        subprocess.run(made, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        ports = {"tidegate": free_port(), "nginx": free_port()}
        servers = {}
        try:
            servers["tidegate"] = (start_tidegate(binary, folder, ports["tidegate"]), ports["tidegate"])
            servers["nginx"] = (start_nginx(folder, ports["nginx"]), ports["nginx"])
            for process, port in servers.values():
                wait_for(port, process)
            ciphers = {name: requests(port, 100, 1)[1] for name, (_, port) in servers.items()}
            print("cipher:", ", ".join(f"{name} {cipher}" for name, cipher in ciphers.items()))
            kept = measure(servers, args.rounds, lambda port: requests(port, args.requests, args.clients)[0])
            report("1 KiB, kept connections", kept)
            full = measure(servers, args.rounds, lambda port: handshakes(port, args.handshakes))
            report("full handshakes, P-256", full)
        finally:
            for process, _ in servers.values():
                process.send_signal(signal.SIGTERM)
                process.wait(timeout=60)


if __name__ == "__main__":
    main()

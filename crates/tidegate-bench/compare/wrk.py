#!/usr/bin/env python3
"""Compares `tidegate bench http` with wrk, against one web server, in turn: rate, processor time per request, latencies.

    wrk.py TIDEGATE URL [--connections N] [--seconds S] [--rounds R] [--capture PORT]

Both have one thread. With --capture (root, tcpdump and tshark), a run of one connection is captured too, and the latencies of
the capture (request to answer, as tshark's http.time has them) stand beside those that the client saw.

At many connections the latencies of a closed loop are not to be compared: wrk sends the next request a turn of its loop after
the answer, and does not count that time, so fewer of its requests are in flight. With one connection they are.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import tempfile

UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6}


def run(command):
    """The output, and the processor time in seconds, of a command and its children."""
    before = os.times()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    if done.returncode != 0:
        raise SystemExit(f"{command[0]} failed ({done.returncode}): {done.stdout}")
    return done.stdout, cpu


def ours(args, connections, seconds):
    command = [args.tidegate, "bench", "http", "--to", args.url, "--connections", str(connections)]
    text, cpu = run(command + ["--duration", f"{seconds}s", "--warmup", "0s", "--json"])
    report = json.loads(text)
    latency = report["latency"]
    figures = {"rate": report["rate"], "cpu_us": cpu * 1e6 / report["requests"]}
    return figures | {key: latency[f"{key}_us"] for key in ("p50", "p75", "p90", "p99")}


def wrk(args, connections, seconds):
    text, cpu = run(["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", args.url])
    if "Non-2xx" in text or "Socket errors" in text:
        raise SystemExit(text)
    requests = int(re.search(r"(\d+) requests in", text)[1])
    figures = {"rate": float(re.search(r"Requests/sec: *([\d.]+)", text)[1]), "cpu_us": cpu * 1e6 / requests}
    for percent in (50, 75, 90, 99):
        value, unit = re.search(rf"{percent}% +([\d.]+)(us|ms|s)\b", text).groups()
        figures[f"p{percent}"] = float(value) * UNITS[unit]
    return figures


def show(name, samples):
    middle = {key: statistics.median(sample[key] for sample in samples) for key in samples[0]}
    times = "  ".join(f"{key} {middle[key]:8.1f}" for key in ("p50", "p75", "p90", "p99"))
    print(f"  {name:<10} {middle['rate']:10.0f}/s  {middle['cpu_us']:6.3f} us CPU/request  {times} us")
    return middle


def compare(args, connections):
    print(f"{connections} connections, {args.rounds} x {args.seconds} s, medians:")
    samples = {"tidegate": [], "wrk": []}
    for _ in range(args.rounds):
        samples["tidegate"].append(ours(args, connections, args.seconds))
        samples["wrk"].append(wrk(args, connections, args.seconds))
    mine, other = (show(name, sample) for name, sample in samples.items())
    print(f"  tidegate / wrk: rate {mine['rate'] / other['rate']:.2f}, CPU {mine['cpu_us'] / other['cpu_us']:.2f}")


def capture(args):
    with tempfile.TemporaryDirectory() as folder:
        # Readable for tcpdump, which gives up its privileges.
        os.chmod(folder, 0o777)
        file = os.path.join(folder, "run.pcap")
        command = ["tcpdump", "-i", "any", "-s", "256", "-B", "65536", "-w", file, "tcp", "port", str(args.capture)]
        sniffer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        # It says that it listens, and nothing of the run is missed.
        while "listening on" not in (line := sniffer.stderr.readline()):
            if not line:
                raise SystemExit("tcpdump did not start")
        seen = ours(args, 1, 1)
        sniffer.terminate()
        sniffer.communicate()
        fields = ["tshark", "-r", file, "-Y", "http.response", "-T", "fields", "-e", "http.time"]
        text = subprocess.run(fields, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    times = sorted(float(line) * 1e6 for line in text.split())
    if not times:
        raise SystemExit(f"the capture has no answer on port {args.capture}")
    told = {f"p{share}": times[min(len(times) - 1, len(times) * share // 100)] for share in (50, 75, 90, 99)}
    print("1 connection, captured for 1 s:")
    for name, figures in (("client", seen), ("capture", told)):
        print(f"  {name:<10} " + "  ".join(f"{key} {figures[key]:8.1f}" for key in told) + " us")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tidegate")
    parser.add_argument("url")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--capture", type=int, metavar="PORT")
    args = parser.parse_args()
    compare(args, args.connections)
    compare(args, 1)
    if args.capture:
        capture(args)


if __name__ == "__main__":
    main()

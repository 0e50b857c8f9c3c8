#!/bin/sh
# CPU time per datagram of a UDP echo, against a bare loop of recvmmsg(2) and sendmmsg(2), taken alternately.
#
#   sh crates/tidegate-bench/compare/udp.sh [COUNT [ROUNDS]]
#
# Each is one process with one loop. For each number of peers, window (datagrams of each on their way at once) and size it prints the nanoseconds of CPU time (all threads, user and
# system) for a datagram, of each server, and the ratio; the medians of all rounds. Build first:
#
#   cargo build --release -p tidegate-sys --example udp_bare -p tidegate --example udp_echo
set -eu
count=${1:-300000} rounds=${2:-7}
bin=${CARGO_TARGET_DIR:-target}/release/examples
dir=$(mktemp -d)
trap 'kill $bare $echo 2>/dev/null; rm -r "$dir"' EXIT

"$bin/udp_bare" serve 127.0.0.1:0 >"$dir/bare" &
bare=$!
"$bin/udp_echo" udp:127.0.0.1:0 1 >"$dir/echo" &
echo=$!
address() {
    while ! grep -q ready "$dir/$1"; do sleep 0.1; done
    sed 's/.*=udp://' "$dir/$1"
}
bare_at=$(address bare) echo_at=$(address echo)

# Nanoseconds on a processor of a process, its children and all their threads.
cpu() {
    for pid in "$1" $(pgrep -P "$1" || true); do cat /proc/"$pid"/task/*/schedstat; done | awk '{ sum += $1 } END { printf "%.0f\n", sum }'
}
# Which process, its address, the peers, the window, the size.
cost() {
    before=$(cpu "$1")
    "$bin/udp_bare" load "$2" "$3" "$4" "$5" "$count" >/dev/null
    after=$(cpu "$1")
    echo "$before $after $count" | awk '{ print ($2 - $1) / $3 }'
}
median() { sort -n "$1" | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'; }

printf '%6s %7s %6s %12s %12s %6s\n' peers window size 'bare ns' 'tidegate ns' ratio
for size in 64 1400; do
    for load in '1 1' '1 16' '1 64' '64 1' '32 4'; do
        : >"$dir/b"; : >"$dir/t"
        for _ in $(seq "$rounds"); do
            # Two words.
            # shellcheck disable=SC2086
            cost $bare "$bare_at" $load $size >>"$dir/b"
            # shellcheck disable=SC2086
            cost $echo "$echo_at" $load $size >>"$dir/t"
        done
        echo "$load $size $(median "$dir/b") $(median "$dir/t")" |
            awk '{ printf "%6d %7d %6d %12.0f %12.0f %6.2f\n", $1, $2, $3, $4, $5, $5 / $4 }'
    done
done

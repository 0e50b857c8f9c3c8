#!/bin/sh
# Holds 100,000 connections on a tidegate server of 8 workers, each connection sending a message every 30 s, for 60 s.
#
#   hold-100k.sh TIDEGATE [options of `tidegate bench hold`, for example --json or --connections 1000]
#
# Exit code 0: all were held, every message was answered. Needs 20,000 descriptors a process and a few GiB of free memory.
# The server is ended by its process id, and nothing is left behind.
set -eu

[ $# -ge 1 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
tidegate=$1
shift

descriptors=$(ulimit -H -n)
if [ "$descriptors" != unlimited ] && [ "$descriptors" -lt 20000 ]; then
    echo "hold-100k: 20,000 descriptors a process are needed, the hard limit is $descriptors" >&2
    exit 2
fi

dir=$(mktemp -d)
server=
finish() {
    status=$?
    trap - EXIT INT TERM
    if [ -n "$server" ]; then
        kill -TERM "$server" 2>/dev/null || :
        wait "$server" || :
    fi
    [ $status -eq 0 ] || sed 's/^/server: /' "$dir/stderr" >&2 || :
    rm -rf "$dir"
    exit $status
}
trap finish EXIT
trap 'exit 130' INT TERM

cat >"$dir/tidegate.toml" <<TOML
data_dir = "$dir/data"
[process]
workers = 8
[engine]
max_connections = 16000
[[listen]]
name = "echo"
address = "127.0.0.1:0"
service = "echo"
[log]
level = "warn"
TOML

: >"$dir/stderr"
"$tidegate" run --config "$dir/tidegate.toml" 2>"$dir/stderr" &
server=$!

# The server says when it serves. It is asked every tenth of a second, for 10 s, and given up at once when it has ended.
tries=100
until address=$(sed -n 's/^tidegate: ready, .*echo=\([0-9.:]*\).*/\1/p' "$dir/stderr") && [ -n "$address" ]; do
    tries=$((tries - 1))
    if [ $tries -eq 0 ] || ! kill -0 "$server" 2>/dev/null; then
        echo "hold-100k: the server did not become ready" >&2
        exit 1
    fi
    sleep 0.1
done

"$tidegate" bench hold --to "$address" --server-pid "$server" "$@"

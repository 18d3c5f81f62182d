#!/bin/sh
# Measures two millraces that federate beside two Synapses that do, and prints the README's table of
# federation; see README.md.
#
#   HSBENCH=driver TLS_DIR=… SYNAPSE_A=URL SYNAPSE_B=URL SYNAPSE_SECRET=s SYNAPSE_A_PIDFILE=… SYNAPSE_B_PIDFILE=… \
#     bench/compare-federation.sh OUTPUT-FOLDER
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?the folder for results}
: "${HSBENCH:?the load driver}" "${TLS_DIR:?}" "${SYNAPSE_SECRET:?}"
: "${SYNAPSE_A:?}" "${SYNAPSE_B:?}" "${SYNAPSE_A_PIDFILE:?}" "${SYNAPSE_B_PIDFILE:?}"
millrace=${MILLRACE_BIN:-${CARGO_TARGET_DIR:-$here/../target}/release/millrace}
port=${MILLRACE_PORT:-28128}
secret=bench-secret
mkdir -p "$out"
out=$(cd "$out" && pwd)
export TLS_DIR
. "$here/lib.sh"

rm -rf "$out/a" "$out/b" "$out"/*.json "$out"/*.log
MILLRACE_FEDERATION_PORT=$((port + 10)) start a lifted "$port"
MILLRACE_FEDERATION_PORT=$((port + 11)) start b lifted $((port + 1))

# measure MEMBERS ROUNDS: a room of so many members is joined, and talked in.
measure() {
  "$HSBENCH" -json "$out/$1.json" -rounds "$2" -scenario-timeout 30m \
    -target "synapse-a=$SYNAPSE_A,secret=$SYNAPSE_SECRET,pidfile=$SYNAPSE_A_PIDFILE,version=Synapse" \
    -target "millrace-a=http://127.0.0.1:$port,secret=$secret,pidfile=$out/a.pid,version=Millrace" \
    -target "synapse-b=$SYNAPSE_B,secret=$SYNAPSE_SECRET,pidfile=$SYNAPSE_B_PIDFILE,version=Synapse" \
    -target "millrace-b=http://127.0.0.1:$((port + 1)),secret=$secret,pidfile=$out/b.pid,version=Millrace" \
    -pair synapse=synapse-a,synapse-b -pair millrace=millrace-a,millrace-b \
    -run federation -fed-members "$1" -fed-events 100 -fed-inbound 200 -deliver-events 20
}
measure 60 "${ROUNDS:-3}"
measure 500 1
stop

echo
met=0
python3 "$here/table.py" --federation "$out/60.json" "$out/500.json" > "$out/table.md" || met=$?
cat "$out/table.md"
exit $met

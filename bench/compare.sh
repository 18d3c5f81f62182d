#!/bin/sh
# Measures millrace beside Synapse and prints the README's speed table; see README.md.
#
#   HSBENCH=driver SYNAPSE_URL=http://127.0.0.1:8008 SYNAPSE_SECRET=s SYNAPSE_PIDFILE=server.pid+postmaster.pid \
#     bench/compare.sh OUTPUT-FOLDER
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?the folder for results}
: "${HSBENCH:?the load driver}" "${SYNAPSE_URL:?}" "${SYNAPSE_SECRET:?}" "${SYNAPSE_PIDFILE:?}"
millrace=${MILLRACE_BIN:-${CARGO_TARGET_DIR:-$here/../target}/release/millrace}
port=${MILLRACE_PORT:-28118}
rounds=${ROUNDS:-3}
idle_polls=${IDLE_POLLS:-2000}
secret=bench-secret
mkdir -p "$out"
out=$(cd "$out" && pwd)
ulimit -n 20000

. "$here/lib.sh"

rm -rf "$out/beside" "$out/idle" "$out"/*.json "$out"/*.log
# target FOLDER: how the driver reaches the millrace that runs on that folder.
target() {
  echo "millrace=http://127.0.0.1:$port,secret=$secret,pidfile=$out/$1.pid,version=Millrace"
}

# Side by side: limits off and a cheap password hash for both, durable acknowledgement on.
start beside lifted "$port"
"$HSBENCH" -json "$out/beside.json" -rounds "$rounds" -scenario-timeout 30m \
  -target "synapse=$SYNAPSE_URL,secret=$SYNAPSE_SECRET,pidfile=$SYNAPSE_PIDFILE,version=Synapse" \
  -target "$(target beside)" \
  -run send-1,send-par,deliver,initial-sync,incremental-sync,ephemeral,e2ee-queue \
  -sends 300 -par-sends 600 -deliver-k 100 -deliver-events 20 -sync-rooms 40 -incremental 1000 -ephemeral 1000 \
  -todevice-fan 500 -todevice-sends 40 -otks 1000
stop

# Idle long-polls, with the default configuration: one process makes the users, a fresh one is measured.
start idle lifted "$port"
"$HSBENCH" -json "$out/idle-users.json" -state "$out/pool.json" -scenario-timeout 30m -target "$(target idle)" \
  -run idle-polls -idle-polls "$idle_polls" -idle-users "$idle_polls" -idle-seconds 1
stop
start idle default "$port"
"$HSBENCH" -json "$out/idle.json" -state "$out/pool.json" -scenario-timeout 30m -target "$(target idle)" \
  -run idle-polls -idle-polls "$idle_polls" -idle-users "$idle_polls" -idle-seconds 30
stop

echo
met=0
python3 "$here/table.py" "$out/beside.json" "$out/idle.json" > "$out/table.md" || met=$?
cat "$out/table.md"
exit $met

# Sourced by the comparisons: starting and stopping a millrace. They have set $here, $out, $millrace
# and $secret.

# start FOLDER lifted|default PORT: starts millrace on that folder of $out, and waits for it. Its
# process id is in $out/FOLDER.pid.
start() {
  config=$out/$1.toml
  MILLRACE_DIR=$out/$1 MILLRACE_SECRET=$secret MILLRACE_PORT=$3 sh "$here/conduit.toml.sh" "$2" > "$config"
  "$millrace" serve --config "$config" >> "$out/$1.log" 2>&1 &
  pids="${pids:-} $!"
  pid=$!
  echo $pid > "$out/$1.pid"
  tries=0
  until curl -fs -o "$out/versions.json" "http://127.0.0.1:$3/_matrix/client/versions"; do
    kill -0 $pid 2>/dev/null || { echo "millrace ended; see $out/$1.log" >&2; exit 1; }
    tries=$((tries + 1))
    [ $tries -lt 300 ] || { echo "millrace does not answer; see $out/$1.log" >&2; exit 1; }
    sleep 0.1
  done
}

# Stops all that were started.
stop() {
  for pid in ${pids:-}; do
    kill -INT "$pid" 2>/dev/null || true
    wait "$pid" || true
  done
  pids=
}
trap stop EXIT
trap 'exit 1' INT TERM

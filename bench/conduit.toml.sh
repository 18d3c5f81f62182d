#!/bin/sh
# Writes the conduit.toml of a run to standard output: conduit.toml.sh lifted|default
# lifted: no rate limits and a cheap password hash, which is not what is measured; default: neither.
# Durability is as by default in both: an answered write is on disk.
set -eu
cat <<TOML
[global]
server_name = "localhost:$MILLRACE_PORT"
database_path = "$MILLRACE_DIR"
address = "127.0.0.1"
port = $MILLRACE_PORT
registration_shared_secret = "$MILLRACE_SECRET"
log = "warn"
TOML
if [ "$1" = lifted ]; then
  cat <<TOML
[global.rate_limits]
enabled = false
[global.password_hash]
memory_kib = 8
iterations = 1
TOML
fi

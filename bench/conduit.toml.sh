#!/bin/sh
# Writes the conduit.toml of a run: conduit.toml.sh beside|idle
cat <<TOML
[global]
server_name = "localhost:$MILLRACE_PORT"
database_path = "$MILLRACE_DIR"
address = "127.0.0.1"
port = $MILLRACE_PORT
registration_shared_secret = "$MILLRACE_SECRET"
log = "warn"
TOML

#!/bin/sh
# Writes the conduit.toml of a run to standard output: conduit.toml.sh lifted|default
# lifted: no rate limits and a cheap password hash, which is not what is measured; default: neither.
# Durability is as by default in both: an answered write is on disk.
# With MILLRACE_FEDERATION_PORT other servers are served there, with the certificate and the CA in TLS_DIR.
set -eu
cat <<TOML
[global]
server_name = "localhost:${MILLRACE_FEDERATION_PORT:-$MILLRACE_PORT}"
database_path = "$MILLRACE_DIR"
address = "127.0.0.1"
port = $MILLRACE_PORT
registration_shared_secret = "$MILLRACE_SECRET"
log = "warn"
TOML
if [ -n "${MILLRACE_FEDERATION_PORT:-}" ]; then
  cat <<TOML
federation_port = $MILLRACE_FEDERATION_PORT
tls_certificate_path = "$TLS_DIR/chain.pem"
tls_key_path = "$TLS_DIR/leaf.key"
federation_ca_file = "$TLS_DIR/ca.pem"
ip_range_whitelist = ["127.0.0.0/8", "::1/128"]
trusted_servers = []
TOML
fi
if [ "$1" = lifted ]; then
  cat <<TOML
[global.rate_limits]
enabled = false
[global.password_hash]
memory_kib = 8
iterations = 1
TOML
fi

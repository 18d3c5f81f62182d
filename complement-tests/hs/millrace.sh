#!/bin/sh
# Starts one Millrace as the deployer asks by environment (see ../README.md). MILLRACE_BIN is the
# binary; MILLRACE_LOG the log filter.
set -e
config=$HS_DATA_DIR/conduit.toml
if [ ! -f "$config" ]; then
  cat > "$config" <<TOML
[global]
server_name = "$SERVER_NAME"
database_path = "$HS_DATA_DIR/database"
address = "$HS_BIND_IP"
port = $HS_CLIENT_PORT
log = "${MILLRACE_LOG:-info,ruma_state_res=warn}"
allow_registration = true
registration_shared_secret = "$HS_REGISTRATION_SHARED_SECRET"
default_room_version = "11"
allow_room_publication = true
federation_port = $HS_FEDERATION_PORT
tls_certificate_path = "$HS_TLS_CERT"
tls_key_path = "$HS_TLS_KEY"
federation_ca_file = "$HS_CA_CERT"
ip_range_whitelist = ["127.0.0.0/8", "::1/128"]
trusted_servers = []
allow_device_name_federation = true
appservice_dir = "$HS_APPSERVICE_DIR"
[global.media]
freeze_legacy_endpoints = false
url_previews = true
[global.server_notices]
localpart = "_server"
[global.rate_limits]
enabled = false
[global.password_hash]
memory_kib = 8
iterations = 1
TOML
fi
exec "${MILLRACE_BIN:?is not set}" serve --config "$config"

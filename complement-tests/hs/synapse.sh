#!/bin/bash
# Start one Synapse as the deployer asks by environment (see README).
set -e
D=$HS_DATA_DIR; PY=${SYNAPSE_PYTHON:-python3}
if [ ! -f "$D/homeserver.yaml" ]; then
  echo "ed25519 a_key $(head -c 32 /dev/urandom | base64 | tr -d '=\n')" > "$D/signing.key"
  [ -n "$SYNAPSE_TEMPLATE_DB" ] && [ -f "$SYNAPSE_TEMPLATE_DB" ] && cp "$SYNAPSE_TEMPLATE_DB" "$D/homeserver.db"
  AS=""; for f in "$HS_APPSERVICE_DIR"/*.yaml; do [ -f "$f" ] && AS="$AS  - $f"$'\n'; done
  [ -n "$AS" ] && AS="app_service_config_files:"$'\n'"$AS"
  cat > "$D/log.yaml" <<Y
version: 1
formatters: {p: {format: '%(asctime)s %(name)s %(lineno)d %(levelname)s %(request)s %(message)s'}}
handlers: {c: {class: logging.StreamHandler, formatter: p}}
root: {level: ${SYNAPSE_LOG_LEVEL:-INFO}, handlers: [c]}
disable_existing_loggers: false
Y
  cat > "$D/homeserver.yaml" <<Y
server_name: "$SERVER_NAME"
pid_file: $D/pid
public_baseurl: $HS_PUBLIC_BASEURL/
listeners:
  - {port: $HS_CLIENT_PORT, bind_addresses: ['$HS_BIND_IP'], type: http, x_forwarded: false, resources: [{names: [client, federation]}]}
  - {port: $HS_FEDERATION_PORT, bind_addresses: ['$HS_BIND_IP'], type: http, tls: true, resources: [{names: [federation]}]}
tls_certificate_path: $HS_TLS_CERT
tls_private_key_path: $HS_TLS_KEY
federation_custom_ca_list: [$HS_CA_CERT]
database: {name: sqlite3, args: {database: $D/homeserver.db}}
log_config: $D/log.yaml
media_store_path: $D/media
signing_key_path: $D/signing.key
macaroon_secret_key: macaroon
form_secret: form
registration_shared_secret: "$HS_REGISTRATION_SHARED_SECRET"
report_stats: false
trusted_key_servers: []
enable_registration: true
enable_registration_without_verification: true
bcrypt_rounds: 4
url_preview_enabled: true
url_preview_ip_range_blacklist: []
federation_ip_range_blacklist: []
ip_range_blacklist: []
rc_federation: {window_size: 1000, sleep_limit: 10, sleep_delay: 500, reject_limit: 99999, concurrent: 3}
rc_message: {per_second: 9999, burst_count: 9999}
rc_registration: {per_second: 9999, burst_count: 9999}
rc_login:
  address: {per_second: 9999, burst_count: 9999}
  account: {per_second: 9999, burst_count: 9999}
  failed_attempts: {per_second: 9999, burst_count: 9999}
rc_admin_redaction: {per_second: 9999, burst_count: 9999}
rc_joins:
  local: {per_second: 9999, burst_count: 9999}
  remote: {per_second: 9999, burst_count: 9999}
rc_joins_per_room: {per_second: 9999, burst_count: 9999}
rc_3pid_validation: {per_second: 1000, burst_count: 1000}
rc_invites:
  per_room: {per_second: 1000, burst_count: 1000}
  per_user: {per_second: 1000, burst_count: 1000}
  per_issuer: {per_second: 1000, burst_count: 1000}
rc_presence: {per_user: {per_second: 9999, burst_count: 9999}}
rc_room_creation: {per_second: 9999, burst_count: 9999}
rc_key_requests: {per_second: 9999, burst_count: 9999}
rc_third_party_invite: {per_second: 9999, burst_count: 9999}
rc_media_create: {per_second: 9999, burst_count: 9999}
rc_reports: {per_second: 9999, burst_count: 9999}
rc_user_directory: {per_second: 9999, burst_count: 9999}
rc_profile: {per_second: 9999, burst_count: 9999}
rc_delayed_event_mgmt: {per_second: 9999, burst_count: 9999}
federation_rr_transactions_per_room_per_second: 9999
allow_device_name_lookup_over_federation: true
experimental_features:
  msc3381_polls_enabled: true
  msc3890_enabled: true
  msc3391_enabled: true
  msc3874_enabled: true
  msc3967_enabled: true
  msc3266_enabled: true
  msc2409_to_device_messages_enabled: true
  msc3202_device_masquerading: true
  msc3202_transaction_extensions: true
  msc3983_appservice_otk_claims: true
  msc3984_appservice_key_query: true
  msc4155_enabled: true
  msc4306_enabled: true
  msc4222_enabled: true
server_notices: {system_mxid_localpart: _server, system_mxid_display_name: "Server Alert", system_mxid_avatar_url: "", room_name: "Server Alert"}
max_event_delay_duration: 24h
caches: {sync_response_cache_duration: 0}
enable_room_list_search: true
room_list_publication_rules: [{action: allow}]
default_room_version: "${SYNAPSE_ROOM_VERSION:-11}"
allow_public_rooms_over_federation: true
allow_public_rooms_without_auth: true
$AS
Y
fi
exec "$PY" -m synapse.app.homeserver -c "$D/homeserver.yaml"

//! The values of the configuration as the parts of the server take them. Nothing is built here.

use std::{sync::Arc, time::Duration};

use millrace_domain::{
    Env,
    accounts::{self, Lifetimes, PasswordCost, Policy},
    rooms::server_notices::NoticeSettings,
    threepids,
};
use millrace_federation::{
    self as federation, OutboundSettings, identity_servers, keyring::OldKey,
};
use ruma::thirdparty;

use super::SyncTimeoutMax;
use crate::{
    client_api::{
        capabilities::Capabilities,
        create_room::RoomPolicy,
        discovery::{Discovery, SupportContact},
        limits::{Rate, Rates},
        sso::CALLBACK_PATH,
        voip::Turn,
    },
    config::{
        Config,
        accounts::Accounts as AccountsConfig,
        rate_limits::RateLimits,
        registration,
        threepids::{Medium, Threepids},
        voip::Voip,
        well_known::WellKnown,
    },
    sso::SignOnSettings,
};

/// What is decided about accounts.
pub(super) fn account_settings(config: &Config) -> accounts::Settings {
    let (registration, lifetimes) = (&config.registration, &config.accounts);
    let policy = |policy: &registration::Policy| Policy {
        id: policy.id.clone(),
        version: policy.version.clone(),
        language: policy.language.clone(),
        name: policy.name.clone(),
        url: policy.url.clone(),
    };
    accounts::Settings {
        registration: registration.allow_registration,
        guests: registration.allow_guest_registration,
        registration_token: registration.registration_token.clone(),
        shared_secret: registration.registration_shared_secret.clone(),
        terms: registration.terms.iter().map(policy).collect(),
        lifetimes: Lifetimes {
            refreshable_access_token: AccountsConfig::lifetime(
                lifetimes.refreshable_access_token_lifetime_s,
            ),
            access_token: AccountsConfig::lifetime(lifetimes.access_token_lifetime_s),
            refresh_token: AccountsConfig::lifetime(lifetimes.refresh_token_lifetime_s),
            login_token: Duration::from_secs(lifetimes.login_token_lifetime_s),
            uiaa_session: Duration::from_secs(lifetimes.uiaa_session_lifetime_s),
        },
        password_cost: PasswordCost {
            memory_kib: config.password_hash.memory_kib,
            iterations: config.password_hash.iterations,
            parallelism: config.password_hash.parallelism,
        },
        threepids: threepid_settings(config),
        sso: !config.sso.sso_providers.is_empty(),
        require_consent: registration.require_consent,
    }
}

/// The identity providers, and where browsers come back to.
pub(super) fn sign_on_settings(config: &Config) -> SignOnSettings {
    let hosts = config.sso.sso_redirect_hosts.iter();
    SignOnSettings {
        providers: config.sso.sso_providers.clone(),
        redirect_uri: format!("{}{CALLBACK_PATH}", config.base_url()),
        known_clients: hosts.map(|host| host.to_ascii_lowercase()).collect(),
    }
}

/// What is decided about addresses.
pub(super) fn threepid_settings(config: &Config) -> threepids::Settings {
    let medium = |medium: &Medium| match medium {
        Medium::Email => thirdparty::Medium::Email,
        Medium::Msisdn => thirdparty::Medium::Msisdn,
    };
    let section = &config.threepids;
    let allowed = section.allowed_local_3pids.iter().map(|allowed| threepids::Allowed {
        medium: medium(&allowed.medium),
        pattern: allowed.pattern.clone(),
    });
    threepids::Settings {
        email: config.email.smtp_host.is_some(),
        msisdn: section.msisdn_validation_url.is_some(),
        required: section.registrations_require_3pid.iter().map(medium).collect(),
        allowed: allowed.collect(),
        changes: section.enable_3pid_changes,
        silent: section.request_token_inhibit_3pid_errors,
        lifetime: Duration::from_secs(config.email.link_lifetime_s),
    }
}

/// What users are told that they can do.
pub(super) fn capabilities(
    config: &Config,
    default_room_version: ruma::RoomVersionId,
) -> Arc<Capabilities> {
    let threepid_changes = threepids_can_change(config);
    Arc::new(Capabilities { default_room_version, threepid_changes })
}

/// Whether users can add an address at all.
fn threepids_can_change(config: &Config) -> bool {
    let settings = threepid_settings(config);
    settings.changes && (settings.email || settings.msisdn)
}

/// The identity servers that are trusted.
pub(super) fn identity_settings(config: &Threepids) -> identity_servers::Settings {
    let token = config.msisdn_validation_token.clone();
    identity_servers::Settings {
        trusted: config.trusted_third_party_id_servers.clone(),
        phones: config.msisdn_validation_url.clone().map(|url| (url, token)),
    }
}

/// What users may make of rooms.
pub(super) fn room_policy(
    config: &Config,
    default_version: ruma::RoomVersionId,
) -> Arc<RoomPolicy> {
    Arc::new(RoomPolicy {
        default_version,
        publication: config.rooms.allow_room_publication,
        directory_without_account: config.rooms.allow_public_rooms_without_auth,
        directory_for_servers: config.rooms.allow_public_rooms_over_federation,
    })
}

/// How other servers are believed.
pub(super) fn federation_settings(config: &Config) -> federation::Settings {
    let old_keys = config.federation.old_signing_keys.iter().map(|old| OldKey {
        id: old.id.clone(),
        key: old.key.clone(),
        expired: old.expired_ts,
    });
    federation::Settings {
        closed: !config.federation.allow_federation,
        notaries: config.federation.trusted_servers.clone(),
        old_keys: old_keys.collect(),
    }
}

/// How long a sync may wait.
pub(super) fn sync_timeout_max(config: &Config) -> SyncTimeoutMax {
    SyncTimeoutMax(Duration::from_secs(config.limits.limits.sync_timeout_max_s))
}

/// What other servers are told.
pub(super) fn outbound_settings(config: &Config) -> OutboundSettings {
    let federation = &config.federation;
    OutboundSettings {
        enabled: federation.allow_federation,
        presence: config.presence.allow_local_presence && config.presence.allow_outgoing_presence,
        typing: federation.allow_outgoing_typing,
        receipts: federation.allow_outgoing_read_receipts,
        device_names: federation.device_names(),
        sends_at_once: federation.federation_sends_at_once,
        tries_at_once: federation.federation_tries_at_once,
        ..OutboundSettings::default()
    }
}

/// The sizes of token buckets; none where there are no limits.
pub(super) fn rates(config: &RateLimits) -> Rates {
    let rate = |rate: crate::config::rate_limits::Rate| {
        config.enabled.then_some(Rate { per_second: rate.per_second, burst: rate.burst })
    };
    Rates {
        login: rate(config.login),
        registration: rate(config.registration),
        threepid_validation: rate(config.threepid_validation),
        message: rate(config.message),
        join: rate(config.join),
        invite: rate(config.invite),
        create_room: rate(config.create_room),
        search: rate(config.search),
        federation: rate(config.federation),
        other: rate(config.other),
    }
}

/// Where calls find a TURN server.
pub(super) fn turn(config: &Voip) -> Turn {
    Turn {
        uris: config.turn_uris.clone(),
        secret: config.turn_secret.clone(),
        login: config.turn_username.clone().zip(config.turn_password.clone()),
        ttl: Duration::from_secs(config.turn_ttl_s),
        guests: config.turn_allow_guests,
    }
}

/// How the server speaks to its users, if it does.
pub(super) fn notice_settings(
    config: &Config,
    env: &Env,
    room_version: &ruma::RoomVersionId,
) -> Option<NoticeSettings> {
    let notices = &config.server_notices;
    let localpart = notices.localpart.as_deref()?;
    let text = |url: &Option<ruma::OwnedMxcUri>| url.as_ref().map(ToString::to_string);
    Some(NoticeSettings {
        sender: accounts::parse_username(localpart, &env.identity.name).ok()?,
        display_name: notices.display_name.clone(),
        avatar_url: text(&notices.avatar_url),
        room_name: notices.room_name.clone(),
        room_topic: notices.room_topic.clone(),
        room_avatar_url: text(&notices.room_avatar_url),
        room_version: room_version.clone(),
    })
}

/// What `.well-known` answers.
pub(super) fn discovery(config: &WellKnown) -> Discovery {
    let contact = SupportContact {
        role: config.support_role.clone().unwrap_or_else(|| "m.role.admin".to_owned()),
        email_address: config.support_email.clone(),
        matrix_id: config.support_mxid.clone(),
    };
    let reachable = contact.email_address.is_some() || contact.matrix_id.is_some();
    Discovery {
        client_base_url: config.client.clone(),
        server: config.server.clone(),
        support_page: config.support_page.clone(),
        policy_key: config.policy_key(),
        contacts: if reachable { vec![contact] } else { Vec::new() },
    }
}

//! The schema: every table, its partition, its key and its value.
//!
//! Numbers are written into every key: never reuse one, never change one. A *synced* table's rows
//! carry their position and are listed in the change index of their partition.

use millrace_model::position::Position;
use ruma::{
    OwnedDeviceId, OwnedEventId, OwnedRoomAliasId, OwnedRoomId, OwnedServerName, OwnedUserId,
};

use crate::{
    engine::Write,
    key::{EncodeKey, KeyPart, KeyRef},
    rows::{
        account::{
            AccessToken, Account, Consent, Deactivation, Device, DeviceSeen, LoginToken,
            RefreshToken, RegistrationToken, SsoLink, TokenHash,
        },
        appservice::{Queued, ServiceProgress, ServiceQueue},
        federation::{Outage, ServerKeys},
        inbound::{InboundHead, QueuedPdu, RemoteDevice, RemoteDevices},
        keys::{
            BackedUpKey, Backup, BackupsHead, DehydratedDevice, OneTimeKey, OneTimeKeysHead,
            UserKeys,
        },
        media::{Blob, BlobHash, MediaUsage, Medium, Thumbnail, UrlPreview},
        outbox::{DeviceChange, Failing, OutboxRow, Outgoing, RemoteToDevice, ServerInRoom},
        outside::Vias,
        partial::{Completed, Completion, PartialEvent},
        receipt::{ReadUpTo, Receipt, Unread},
        report::Report,
        room::{
            Alias, AuthLinks, EventHeader, EventTransaction, ExpiredUpTo, Gap, Member, Relation,
            RoomHead, ThreadRow, TimelineRow, UserRoom,
        },
        threepid::{Threepid, ThreepidOwner, ThreepidSession},
        user::{Pusher, PusherBehind, PushkeyUsers, ThreadSubscription, ToDevice, ToDeviceHead},
    },
    state_tree::layout::HASH_LEN,
    table::{Family, Node, PartitionKey, Table},
    value::Value,
};

// --- The store's own ---------------------------------------------------------------------------

/// `"format" | "server_name" | ... -> text`: what this database is.
pub const ABOUT: Table<Node, String, String> = Table::new(1, "about");
/// `writer -> seq` of its newest commit. All rows of it in one snapshot are a view.
pub const WRITERS: Table<Node, u16, u64> = Table::new(2, "writers");
/// `(writer, seq) -> partitions in which that commit has news`, each as length (u16) and bytes.
pub const LOG: Table<Node, (u16, u64), Vec<u8>> = Table::new(3, "log").in_family(Family::Changes);
/// First number that no block of event numbers has reserved yet, under the key `()`.
pub const EVENT_NUMBERS_RESERVED: Table<Node, (), u64> = Table::new(5, "event_numbers_reserved");

/// `(partition, writer, seq) -> rows changed`: the change index, in every partition.
const CHANGES_ID: u16 = 4;

// --- Rooms (10-69): see rows/room.rs -------------------------------------------------------------

/// `() -> RoomHead`: the newest of a room, and the guard of its timeline.
pub const ROOM_HEAD: Table<OwnedRoomId, (), RoomHead> = Table::new(10, "room_head");
/// `(n, k) -> TimelineRow`: the room's history in order.
pub const TIMELINE: Table<OwnedRoomId, (i64, i32), TimelineRow> =
    Table::synced(11, "timeline").guarded_by(&ROOM_HEAD);
/// `event ID -> number` of each event of the room.
pub const EVENT_NUMBERS: Table<OwnedRoomId, OwnedEventId, u64> = Table::new(12, "event_numbers");
/// `room -> ()` for each event, by its ID: the rooms that have it. In room versions 1 and 2 two rooms
/// may have events of one ID.
pub const EVENT_ROOMS: Table<String, OwnedRoomId, ()> = Table::new(163, "event_rooms");
/// `number -> canonical JSON` of the event, as it was made or received.
pub const EVENTS: Table<OwnedRoomId, u64, String> =
    Table::new(13, "events").in_family(Family::Bodies);
/// `number -> EventHeader`. Whoever changes one that is there raises `RoomHead::amended`.
pub const EVENT_HEADERS: Table<OwnedRoomId, u64, EventHeader> = Table::new(14, "event_headers");
/// `(type, state_key) -> number`: the current state, flat.
pub const CURRENT_STATE: Table<OwnedRoomId, (String, String), u64> =
    Table::new(15, "current_state");
/// `user -> Member`: the memberships of the current state, flat.
pub const MEMBERS: Table<OwnedRoomId, OwnedUserId, Member> = Table::new(16, "members");
/// `hash -> node` of the room's state trees.
pub const STATE_NODES: Table<OwnedRoomId, [u8; HASH_LEN], Vec<u8>> =
    Table::new(17, "state_nodes").in_family(Family::Nodes);
/// `(parent, rel_type, n, k) -> Relation`: events that relate to a parent, each kind of relation in
/// order of the timeline.
pub const RELATIONS: Table<OwnedRoomId, (OwnedEventId, String, i64, i32), Relation> =
    Table::new(18, "relations").guarded_by(&ROOM_HEAD);
/// `root event -> ThreadRow` of each thread.
pub const THREADS: Table<OwnedRoomId, OwnedEventId, ThreadRow> = Table::new(19, "threads");
/// `(n of the newest event, root event) -> ()`: threads by their newest event.
pub const THREADS_BY_NEWEST: Table<OwnedRoomId, (i64, OwnedEventId), ()> =
    Table::new(20, "threads_by_newest");
/// `(root event, user) -> how many events` of the thread the user has sent.
pub const THREAD_SENDERS: Table<OwnedRoomId, (OwnedEventId, OwnedUserId), u64> =
    Table::new(45, "thread_senders");
/// `(target, number of the redaction) -> ()`: accepted redactions of events that are not here yet.
pub const REDACTIONS_WAITING: Table<OwnedRoomId, (OwnedEventId, u64), ()> =
    Table::new(46, "redactions_waiting").guarded_by(&ROOM_HEAD);
/// `n -> Gap`: events are missing before live event `n`.
pub const GAPS: Table<OwnedRoomId, i64, Gap> = Table::new(47, "gaps").guarded_by(&ROOM_HEAD);
/// `(event ID, n) -> ()`: the gaps in which an event is missing.
pub const MISSING_EVENTS: Table<OwnedRoomId, (OwnedEventId, i64), ()> =
    Table::new(48, "missing_events").guarded_by(&ROOM_HEAD);
/// `(auth event, state event that names it) -> ()`, both by number. The create event, which nearly
/// all name, is left out. A state's events, and all that authorise them, have theirs before it.
pub const CITATIONS: Table<OwnedRoomId, (u64, u64), ()> = Table::new(55, "citations").unguarded();
/// `number -> AuthLinks` of each state event, outliers and rejected ones too.
pub const AUTH_LINKS: Table<OwnedRoomId, u64, AuthLinks> = Table::new(56, "auth_links");
/// `room -> ()`: rooms of which only a part of the state is known (see rows/partial.rs), to go on
/// with after a restart. Its position tells since when.
pub const PARTIAL_ROOMS: Table<Node, OwnedRoomId, ()> = Table::synced(57, "partial_rooms");
/// `() -> Completion` of a partial room.
pub const COMPLETION: Table<OwnedRoomId, (), Completion> = Table::new(58, "completion");
/// `place -> PartialEvent`: what came while the room was partial, in the order of its coming;
/// `RoomHead::partial` is the place of the next.
pub const PARTIAL_EVENTS: Table<OwnedRoomId, u64, PartialEvent> =
    Table::new(59, "partial_events").guarded_by(&ROOM_HEAD);
/// `server -> ()`: servers that are counted in [`ROOM_SERVERS`] once more than they have known
/// members, as another server says that they are in the partial room.
pub const PARTIAL_SERVERS: Table<OwnedRoomId, OwnedServerName, ()> =
    Table::new(60, "partial_servers").unguarded();
/// `user -> ()`: users of other servers whose devices changed while it was not known whether they are in
/// the partial room.
pub const PARTIAL_DEVICES: Table<OwnedRoomId, OwnedUserId, ()> =
    Table::new(62, "partial_devices").unguarded();
/// `() -> Completed`, written when a partial room became complete: whom it was not shown to is shown it.
pub const COMPLETED: Table<OwnedRoomId, (), Completed> = Table::synced(61, "completed");
/// `room -> UserRoom` of each room that a local user has or had to do with.
pub const USER_ROOMS: Table<OwnedUserId, OwnedRoomId, UserRoom> = Table::synced(21, "user_rooms");
/// `() -> Alias` in the partition of an alias.
pub const ALIASES: Table<OwnedRoomAliasId, (), Alias> = Table::new(22, "aliases");
/// `alias -> ()`: the local aliases of a room.
pub const ROOM_ALIASES: Table<OwnedRoomId, OwnedRoomAliasId, ()> = Table::new(23, "room_aliases");
/// `room -> ()`: rooms published in the directory.
pub const PUBLISHED_ROOMS: Table<Node, OwnedRoomId, ()> = Table::new(24, "published_rooms");

/// `(device, endpoint, transaction ID) -> event ID` of what a user's device has sent.
pub const TRANSACTIONS: Table<OwnedUserId, (OwnedDeviceId, String, String), OwnedEventId> =
    Table::new(25, "transactions");
/// `event ID -> EventTransaction` of what a user's devices have sent under transaction IDs.
pub const EVENT_TXNS: Table<OwnedUserId, OwnedEventId, EventTransaction> =
    Table::new(26, "event_txns");
/// `(target, sender, type, key) -> number` of the newest such annotation.
pub const ANNOTATIONS: Table<OwnedRoomId, (OwnedEventId, OwnedUserId, String, String), u64> =
    Table::new(27, "annotations");
/// `(milliseconds since 1970, number) -> Report`: what users have reported.
pub const REPORTS: Table<Node, (u64, u64), Report> = Table::new(28, "reports");

/// `(user, kind of receipt, thread) -> Receipt`: how far members have read. The kind is
/// `ReceiptKind::id`; the thread is `""` (all), `"main"`, or the event ID of a root.
pub const RECEIPTS: Table<OwnedRoomId, (OwnedUserId, u8, String), Receipt> =
    Table::synced(30, "receipts");
/// `user -> ReadUpTo`: the newest of a member's receipts at one glance.
pub const READ_UP_TO: Table<OwnedRoomId, OwnedUserId, ReadUpTo> = Table::new(31, "read_up_to");
/// `(room, recipient, how far) -> Receipt` in a partition with the ID of a sender: the newest of their
/// messages in the room that came so far. How far is `Reach::id`. The partition is neither the room's
/// nor the user's own, so that a delivery wakes only those syncs of the sender that ask for it.
pub const DELIVERED: Table<String, (OwnedRoomId, OwnedUserId, u8), Receipt> =
    Table::synced(32, "delivered");

// --- What belongs to users (70-99): see rows/user.rs ---------------------------------------------

/// `field name -> its value as JSON`: a user's profile, as the user set it.
pub const PROFILES: Table<OwnedUserId, String, String> = Table::synced(70, "profiles");
/// `(room ID, type) -> content as JSON`: account data; of the user where the room ID is `""`.
/// Push rules are here too (`m.push_rules`); who has no row has the default ones.
pub const ACCOUNT_DATA: Table<OwnedUserId, (String, String), String> =
    Table::synced(71, "account_data");
/// `filter ID -> filter as JSON`.
pub const FILTERS: Table<OwnedUserId, String, String> = Table::new(72, "filters");
/// How many filters a user has, under the key `()`.
pub const FILTER_COUNTS: Table<OwnedUserId, (), u64> = Table::new(73, "filter_counts");
/// `(device, n) -> ToDevice`: messages that wait for a device, in their order.
pub const TO_DEVICE: Table<OwnedUserId, (OwnedDeviceId, u64), ToDevice> =
    Table::synced(74, "to_device").guarded_by(&TO_DEVICE_HEAD);
/// `device -> ToDeviceHead`: first and last of a device's messages.
pub const TO_DEVICE_HEAD: Table<OwnedUserId, OwnedDeviceId, ToDeviceHead> =
    Table::new(75, "to_device_head");
/// `device -> digests (16 bytes each)` of the newest transactions in which it sent to devices.
pub const TO_DEVICE_SENT: Table<OwnedUserId, OwnedDeviceId, Vec<u8>> =
    Table::new(76, "to_device_sent");
/// `(app ID, pushkey) -> Pusher`.
pub const PUSHERS: Table<OwnedUserId, (String, String), Pusher> =
    Table::new(77, "pushers").guarded_by(&PUSHERS_HEAD);
/// Counts the changes of a user's pushers, under the key `()`.
pub const PUSHERS_HEAD: Table<OwnedUserId, (), u64> = Table::new(78, "pushers_head");
/// `app ID -> PushkeyUsers` in the partition of a pushkey: who uses it.
pub const PUSHKEY_USERS: Table<String, String, PushkeyUsers> = Table::new(79, "pushkey_users");
/// `(app ID, pushkey) -> PusherBehind` of pushers that do not get everything at once.
pub const PUSHERS_BEHIND: Table<OwnedUserId, (String, String), PusherBehind> =
    Table::new(250, "pushers_behind").unguarded();
/// `() -> ExpiredUpTo`: up to where in a room what expired messages said is off the disk.
pub const EXPIRED_UP_TO: Table<OwnedRoomId, (), ExpiredUpTo> = Table::new(252, "expired_up_to");
/// `(milliseconds since 1970, number) -> ()`: messages before that mark which were dated in the future, by
/// the moment at which they claim to have been sent.
pub const EXPIRING_LATER: Table<OwnedRoomId, (u64, u64), ()> =
    Table::new(253, "expiring_later").unguarded();
/// Under the key `()`: up to where every pusher that is not behind has got everything.
pub const PUSH_FOLLOWED: Table<Node, (), u64> = Table::new(251, "push_followed");
/// `room -> Unread`: a count that took long to make, to go on from.
pub const UNREAD: Table<OwnedUserId, OwnedRoomId, Unread> = Table::new(80, "unread");

/// `() -> room ID` of the room in which the server tells the user something.
pub const NOTICE_ROOMS: Table<OwnedUserId, (), String> = Table::new(81, "notice_rooms");
/// `(room, root of a thread) -> ThreadSubscription`.
pub const THREAD_SUBSCRIPTIONS: Table<
    OwnedUserId,
    (OwnedRoomId, OwnedEventId),
    ThreadSubscription,
> = Table::synced(82, "thread_subscriptions");

// --- Accounts (100-139): see rows/account.rs -----------------------------------------------------

/// Every account of this server, deactivated ones too.
pub const ACCOUNTS: Table<OwnedUserId, (), Account> = Table::new(100, "accounts");
/// By hash: what an access token says. The one read that checks a request.
pub const ACCESS_TOKENS: Table<TokenHash, (), AccessToken> = Table::new(101, "access_tokens");
/// By hash: what a refresh token says.
pub const REFRESH_TOKENS: Table<TokenHash, (), RefreshToken> = Table::new(102, "refresh_tokens");
/// By hash: what a login token says.
pub const LOGIN_TOKENS: Table<TokenHash, (), LoginToken> = Table::new(103, "login_tokens");
/// The devices of a user.
pub const DEVICES: Table<OwnedUserId, OwnedDeviceId, Device> =
    Table::new(104, "devices").guarded_by(&DEVICES_HEAD);
/// Counts the changes of a user's devices; the head of [`DEVICES`].
pub const DEVICES_HEAD: Table<OwnedUserId, (), u64> = Table::new(105, "devices_head");
/// Where and when a user's devices were last seen.
pub const DEVICES_SEEN: Table<OwnedUserId, OwnedDeviceId, DeviceSeen> =
    Table::new(106, "devices_seen");
/// By the token itself: words that allow to register.
pub const REGISTRATION_TOKENS: Table<String, (), RegistrationToken> =
    Table::new(107, "registration_tokens");
/// In the partition [`DEVICE_LISTS`]: users whose devices have changed, at the newest change.
pub const DEVICE_LIST: Table<String, OwnedUserId, ()> = Table::synced(108, "device_list");
/// Deactivated accounts that have not left all their rooms yet.
pub const DEPARTURES: Table<Node, OwnedUserId, Deactivation> = Table::new(109, "departures");

// --- Third-party identifiers (110-129): see rows/threepid.rs -------------------------------------

/// `(medium, address) -> Threepid`: the third-party identifiers of a user.
pub const THREEPIDS: Table<OwnedUserId, (String, String), Threepid> =
    Table::new(110, "threepids").guarded_by(&THREEPIDS_HEAD);
/// Counts the changes of a user's third-party identifiers, under the key `()`.
pub const THREEPIDS_HEAD: Table<OwnedUserId, (), u64> = Table::new(111, "threepids_head");
/// `medium -> ThreepidOwner` in the partition of an address: whose it is.
pub const THREEPID_OWNERS: Table<String, String, ThreepidOwner> =
    Table::new(112, "threepid_owners");
/// `() -> ThreepidSession` in the partition of a session's ID: an address being validated.
pub const THREEPID_SESSIONS: Table<String, (), ThreepidSession> =
    Table::new(113, "threepid_sessions");
/// `(end in milliseconds since 1970, session) -> ()`: when sessions can be forgotten.
pub const THREEPID_SESSION_ENDS: Table<Node, (u64, String), ()> =
    Table::new(114, "threepid_session_ends");
/// `(medium, address, identity server) -> ()`: where a user's identifiers were bound.
pub const THREEPID_BINDINGS: Table<OwnedUserId, (String, String, String), ()> =
    Table::new(115, "threepid_bindings").guarded_by(&THREEPIDS_HEAD);

/// `subject -> SsoLink` in the partition of an identity provider: the accounts of those it knows.
pub const SSO_LINKS: Table<String, String, SsoLink> = Table::new(116, "sso_links");

/// `(provider, subject) -> ()` of each row of [`SSO_LINKS`] that leads to the user.
pub const SSO_SUBJECTS: Table<OwnedUserId, (String, String), ()> = Table::new(117, "sso_subjects");
/// `() -> Consent` of a user: what they have agreed to.
pub const CONSENTS: Table<OwnedUserId, (), Consent> = Table::new(118, "consents");

/// The partition of [`DEVICE_LIST`].
pub const DEVICE_LISTS: &str = "device-lists";

// --- What our users have of rooms that this server is not in (166-169): see rows/outside.rs -------

/// `room -> Vias` of a room that a user has knocked on: who knows of it.
pub const OUTSIDE_VIAS: Table<OwnedUserId, OwnedRoomId, Vias> = Table::new(166, "outside_vias");

// --- What other servers sent (150-159): see rows/inbound.rs --------------------------------------

/// `n -> QueuedPdu`: events that wait to be received into the room, in the order of their arrival.
pub const INBOUND: Table<OwnedRoomId, u64, QueuedPdu> =
    Table::new(150, "inbound").in_family(Family::Bodies).guarded_by(&INBOUND_HEAD);
/// `(due, in milliseconds since 1970, n) -> QueuedPdu`: events to be tried again later.
pub const INBOUND_PUT_OFF: Table<OwnedRoomId, (u64, u64), QueuedPdu> =
    Table::new(151, "inbound_put_off").guarded_by(&INBOUND_HEAD);
/// `() -> InboundHead` of what waits for a room; none where nothing does.
pub const INBOUND_HEAD: Table<OwnedRoomId, (), InboundHead> = Table::new(152, "inbound_head");
/// `room -> ()`: rooms for which something waits, to go on with after a restart.
pub const INBOUND_ROOMS: Table<Node, OwnedRoomId, ()> = Table::new(153, "inbound_rooms");
/// `digest of the transaction ID -> answer as JSON`: the newest transactions of a server.
pub const INBOUND_ANSWERS: Table<OwnedServerName, [u8; 16], String> =
    Table::new(154, "inbound_answers").guarded_by(&INBOUND_ANSWERS_HEAD);
/// The digests (16 bytes each) of a server's newest transactions, the oldest first, under `()`.
pub const INBOUND_ANSWERS_HEAD: Table<OwnedServerName, (), Vec<u8>> =
    Table::new(155, "inbound_answers_head");
/// Digests (16 bytes each) of the newest messages to devices by a user of another server.
pub const INBOUND_TO_DEVICE: Table<OwnedUserId, (), Vec<u8>> = Table::new(156, "inbound_to_device");
/// `() -> RemoteDevices`: how far we know the devices of a user of another server.
pub const REMOTE_DEVICES_HEAD: Table<OwnedUserId, (), RemoteDevices> =
    Table::new(157, "remote_devices_head");
/// `device -> RemoteDevice` of a user of another server.
pub const REMOTE_DEVICES: Table<OwnedUserId, OwnedDeviceId, RemoteDevice> =
    Table::new(158, "remote_devices").guarded_by(&REMOTE_DEVICES_HEAD);
/// `user -> ()`: users of other servers whose devices are to be fetched again.
pub const STALE_DEVICES: Table<Node, OwnedUserId, ()> = Table::new(159, "stale_devices");
// --- Other servers (140-179): see rows/federation.rs ---------------------------------------------

/// `server -> ServerKeys`: the signing keys of other servers.
pub const SERVER_KEYS: Table<Node, OwnedServerName, ServerKeys> = Table::new(160, "server_keys");
/// `server -> JSON`: its signing keys as it published them last, signed, for others that ask us.
pub const SERVER_KEYS_PUBLISHED: Table<Node, OwnedServerName, String> =
    Table::new(161, "server_keys_published");
/// `server -> Outage` of each server that could not be reached when it was tried last.
pub const OUTAGES: Table<Node, OwnedServerName, Outage> = Table::new(162, "outages");

// --- What leaves the server (140-149): see rows/outbox.rs -----------------------------------------

/// `server -> ServerInRoom` of each server that has or had joined users in a room, ours too.
pub const ROOM_SERVERS: Table<OwnedRoomId, OwnedServerName, ServerInRoom> =
    Table::new(140, "room_servers");
/// `room -> ()`: the rooms in which another server has joined users, or had and has not been told
/// yet that it has none.
pub const SERVER_ROOMS: Table<OwnedServerName, OwnedRoomId, ()> = Table::new(141, "server_rooms");
/// `place in the outbox -> OutboxRow`: the newest events of a room that other servers are told;
/// `RoomHead::outbox` is the place of the newest.
pub const OUTBOX: Table<OwnedRoomId, u64, OutboxRow> =
    Table::synced(142, "outbox").guarded_by(&ROOM_HEAD);
/// In the partition [`OUTBOX_NEWS`]: `(kind, what, of whom, part) -> ()`, at its newest change: what
/// the one who wakes senders follows. Kinds are in `millrace_domain::outbox`.
pub const OUTBOX_CHANGED: Table<String, (u8, String, String, String), ()> =
    Table::synced(143, "outbox_changed");
/// `() -> Outgoing`: how far another server was told.
pub const OUTGOING: Table<OwnedServerName, (), Outgoing> = Table::new(144, "outgoing");
/// `n -> RemoteToDevice`: messages that wait for another server, in their order.
pub const TO_DEVICE_OUT: Table<OwnedServerName, u64, RemoteToDevice> =
    Table::new(145, "to_device_out").guarded_by(&TO_DEVICE_OUT_HEAD);
/// `() -> ToDeviceHead`: first and last of the messages that wait for another server.
pub const TO_DEVICE_OUT_HEAD: Table<OwnedServerName, (), ToDeviceHead> =
    Table::new(146, "to_device_out_head");
/// `device -> DeviceChange` of each of a user's devices, at its newest change.
pub const DEVICE_CHANGES: Table<OwnedUserId, OwnedDeviceId, DeviceChange> =
    Table::synced(147, "device_changes");
/// Under the key `()`: what every server that can be reached was told of, or is being told.
pub const OUTBOX_FOLLOWED: Table<Node, (), u64> = Table::new(148, "outbox_followed");
/// Servers that did not answer, left alone for a while.
pub const FAILING: Table<Node, OwnedServerName, Failing> = Table::new(149, "failing");

// --- End-to-end encryption (180-209): see rows/keys.rs --------------------------------------------

/// `() -> UserKeys` of a user of ours: the keys of all devices, and for cross-signing.
pub const USER_KEYS: Table<OwnedUserId, (), UserKeys> = Table::new(180, "user_keys");
/// `(device, algorithm, n) -> OneTimeKey`: keys that wait to be claimed, in the order of their
/// upload.
pub const ONE_TIME_KEYS: Table<OwnedUserId, (OwnedDeviceId, String, u64), OneTimeKey> =
    Table::new(181, "one_time_keys").guarded_by(&ONE_TIME_KEYS_HEAD);
/// `device -> OneTimeKeysHead`: how many one-time keys are left, and the fallback keys.
pub const ONE_TIME_KEYS_HEAD: Table<OwnedUserId, OwnedDeviceId, OneTimeKeysHead> =
    Table::new(182, "one_time_keys_head");
/// `(device, key ID with algorithm) -> n` of each row of [`ONE_TIME_KEYS`].
pub const ONE_TIME_KEY_IDS: Table<OwnedUserId, (OwnedDeviceId, String), u64> =
    Table::new(183, "one_time_key_ids");
/// `(owner, public master key) -> signatures by key ID, as JSON`: those that a user has put on the
/// master keys of others, which nobody else is shown.
pub const USER_SIGNATURES: Table<OwnedUserId, (OwnedUserId, String), String> =
    Table::synced(184, "user_signatures");
/// `() -> ()` at the newest change of a user's keys for cross-signing.
pub const SIGNING_KEYS_CHANGED: Table<OwnedUserId, (), ()> =
    Table::synced(185, "signing_keys_changed");
/// `() -> ()` at the newest change of any of a user's devices: the stream ID of the next change's
/// predecessor.
pub const DEVICE_STREAM: Table<OwnedUserId, (), ()> = Table::synced(186, "device_stream");
/// `() -> BackupsHead`: which backup of room keys is a user's current one.
pub const BACKUPS_HEAD: Table<OwnedUserId, (), BackupsHead> = Table::new(187, "backups_head");
/// `version -> Backup`, deleted ones too.
pub const BACKUPS: Table<OwnedUserId, u64, Backup> =
    Table::new(188, "backups").guarded_by(&BACKUPS_HEAD);
/// `(version, room, session) -> BackedUpKey`. How many there are is in the row of the backup.
pub const BACKED_UP_KEYS: Table<OwnedUserId, (u64, OwnedRoomId, String), BackedUpKey> =
    Table::new(189, "backed_up_keys").in_family(Family::Bodies);
/// `() -> DehydratedDevice` of a user.
pub const DEHYDRATED_DEVICES: Table<OwnedUserId, (), DehydratedDevice> =
    Table::new(190, "dehydrated_devices");

/// The partition of [`OUTBOX_CHANGED`].
pub const OUTBOX_NEWS: &str = "outbox";

// --- Media (210-229): see rows/media.rs ------------------------------------------------------------

/// `() -> Medium` in the partition `server/media ID`.
pub const MEDIA: Table<String, (), Medium> = Table::new(210, "media");
/// `media ID -> ()`: what a user has uploaded or created.
pub const USER_MEDIA: Table<OwnedUserId, String, ()> = Table::new(211, "user_media");
/// `() -> MediaUsage`: how much that is.
pub const MEDIA_USAGE: Table<OwnedUserId, (), MediaUsage> = Table::new(212, "media_usage");
/// `() -> Blob` in the partition of a file's hash: how many media consist of it.
pub const BLOBS: Table<BlobHash, (), Blob> = Table::new(213, "blobs");
/// `hash -> ()`: files that nothing consists of any more, to be removed from the storage.
pub const BLOBS_UNUSED: Table<Node, BlobHash, ()> = Table::new(214, "blobs_unused");
/// `(kind, day since 1970, partition of the medium) -> ()`: media by the day on which they were last
/// asked for. The kind is `MediumKind::id`.
pub const MEDIA_BY_DAY: Table<Node, (u8, u32, String), ()> = Table::new(215, "media_by_day");
/// `(milliseconds since 1970, kind, what) -> ()`: what ends at a time: 0 media that are created and
/// not uploaded (by partition), 1 URL previews (by hash, in hexadecimal digits).
pub const MEDIA_DUE: Table<Node, (u64, u8, String), ()> = Table::new(216, "media_due");
/// `(width, height, kind) -> Thumbnail` of a medium, in its partition.
pub const THUMBNAILS: Table<String, (u32, u32, u8), Thumbnail> =
    Table::new(217, "thumbnails").guarded_by(&MEDIA);
/// `() -> UrlPreview` in the partition of a URL (its BLAKE3 hash).
pub const URL_PREVIEWS: Table<BlobHash, (), UrlPreview> = Table::new(218, "url_previews");

// --- Application services (240-249): see rows/appservice.rs ----------------------------------------

/// `ID -> registration as YAML` of each service that was registered by command.
pub const SERVICE_REGISTRATIONS: Table<Node, String, String> =
    Table::new(240, "service_registrations");
/// Under the key `()`: the commit up to which it was noted what services are to be told.
pub const SERVICES_FOLLOWED: Table<Node, (), u64> = Table::new(241, "services_followed");
/// `() -> ServiceQueue` in the partition of a service's ID, written by who queues.
pub const SERVICE_QUEUE_HEAD: Table<String, (), ServiceQueue> =
    Table::new(242, "service_queue_head");
/// `n -> Queued`: what waits for a service, in order.
pub const SERVICE_QUEUE: Table<String, u64, Queued> = Table::new(243, "service_queue");
/// `day since 1970 -> n` of the first row that came into a service's queue on that day.
pub const SERVICE_QUEUE_DAYS: Table<String, u32, u64> =
    Table::new(246, "service_queue_days").guarded_by(&SERVICE_QUEUE_HEAD);
/// `() -> ServiceProgress` in the partition of a service's ID, written by who sends.
pub const SERVICE_PROGRESS: Table<String, (), ServiceProgress> =
    Table::new(244, "service_progress");
/// `(network, room) -> ()`: rooms that services list in the directories of their networks. A network
/// is `service ID|network ID`.
pub const NETWORK_ROOMS: Table<Node, (String, OwnedRoomId), ()> = Table::new(245, "network_rooms");

// --- How the store writes its own rows -----------------------------------------------------------

pub(crate) fn write_row<K: KeyPart, V: Value>(
    table: &Table<Node, K, V>,
    key: impl KeyRef<K>,
    value: &V,
) -> Write {
    let mut raw = Vec::new();
    value.encode(&mut raw);
    Write { family: table.info().family, key: table.row_key(&Node, &key).bytes, value: Some(raw) }
}

pub(crate) fn delete_row<K: KeyPart, V: Value>(
    table: &Table<Node, K, V>,
    key: impl KeyRef<K>,
) -> Write {
    Write { family: table.info().family, key: table.row_key(&Node, &key).bytes, value: None }
}

/// Key of the change-index row of `partition` (kind and name) at `position`.
pub(crate) fn change_key(partition: &[u8], position: Position) -> Vec<u8> {
    let mut key = Vec::with_capacity(2 + partition.len() + 10);
    key.extend_from_slice(&CHANGES_ID.to_be_bytes());
    key.extend_from_slice(partition);
    (position.writer, position.seq).encode(&mut key);
    key
}

/// Adds one changed row to a change-index row: table (2), length of the key (2), key.
pub(crate) fn list_change(listed: &mut Vec<u8>, table: &[u8], key: &[u8]) {
    listed.extend_from_slice(table);
    list_partition(listed, key);
}

/// Adds one partition to a log row: length (2), bytes.
pub(crate) fn list_partition(listed: &mut Vec<u8>, partition: &[u8]) {
    let len = u16::try_from(partition.len()).expect("identifiers are far shorter than 64 KiB");
    listed.extend_from_slice(&len.to_be_bytes());
    listed.extend_from_slice(partition);
}

/// Reads back what [`list_partition`] wrote; `None` where it is malformed.
pub(crate) fn listed_partitions(mut listed: &[u8]) -> Option<Vec<PartitionKey>> {
    let mut partitions = Vec::new();
    while !listed.is_empty() {
        let (len, rest) = listed.split_first_chunk()?;
        let (partition, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
        partitions.push(PartitionKey(partition.into()));
        listed = rest;
    }
    Some(partitions)
}

/// Reads back what [`list_change`] wrote; `None` where it is malformed.
pub(crate) fn listed_changes(mut listed: &[u8]) -> Option<Vec<(u16, Vec<u8>)>> {
    let mut changes = Vec::new();
    while !listed.is_empty() {
        let (table, rest) = listed.split_first_chunk()?;
        let (len, rest) = rest.split_first_chunk()?;
        let (key, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
        changes.push((u16::from_be_bytes(*table), key.to_vec()));
        listed = rest;
    }
    Some(changes)
}

//! The methods of `invoke`, and their fields.

use super::record::{Field, Kind, Record, Shape, Source, SrtpProfile, records};
use serde::Deserialize;

records! { Deserialize:
    /// Begins to join a scope. Once for each client. One of `token` and `signed` is needed.
    Connect "connect" => "`{}`; then `joined`, or `link_lost` and another try, or `ended`." {
        /// Name or address of the node, alone: without scheme, port and brackets. One of `host` and `resolvers` is needed; with both, `host` is tried where no CnC answers.
        host: Option<String>,
        /// Its port for everything; with `host`.
        port: Option<u16>,
        /// Addresses of CnCs, `https://HOST[:PORT]`, at most 16: the first is random, the others follow until one names the
        /// node. The client then follows the scope when its node dies, and makes publications and subscriptions anew.
        resolvers: Option<Vec<String>>,
        /// Takes `http://` resolvers on hosts that are neither loopback nor private, too.
        insecure_resolvers: Option<bool>,
        /// For `resolvers`: whose scope it is; without, the application of the credential.
        application_id: Option<String>,
        /// For `resolvers`: where the client is, if it knows.
        region: Option<String>,
        /// 1 to 64 bytes.
        scope_id: String,
        /// A JSON Web Token, or a development token.
        token: Option<String>,
        /// A signed credential ([authentication](../authentication.md)).
        signed: Option<Signed>,
        /// Display name, at most 128 bytes.
        name: Option<String>,
        /// For the node's logs, "name/version".
        client: Option<String>,
        /// SRTP profiles, best first; without, `AEAD_AES_128_GCM` alone.
        profiles: Option<Vec<SrtpProfile>>,
        /// A PEM file with the CA's or the node's own certificate. Without this and `fingerprint` the system's certificates
        /// are trusted.
        ca_file: Option<String>,
        /// SHA-256 of the node's certificate, in hexadecimal digits.
        fingerprint: Option<String>,
        /// What stands between.
        proxy: Option<Proxy>,
        /// Whether datagrams may be sent at all; true without.
        udp: Option<bool>,
        /// The node's port for links over QUIC, tried before TLS over TCP; none without.
        quic: Option<u16>,
        /// Media never goes directly to the other of two, who would then know this client's address; false without.
        relay_only: Option<bool>,
    }
    /// Publishes, after `connect`: at once or as soon as the scope is joined, and again whenever it is joined anew.
    Publish "publish" => "`handle`; then `published` (each time), or `refused`." {
        /// Sound or pictures.
        kind: Kind,
        /// One of the codecs of the link ([link](link.md#codecs-and-header-extensions)).
        codec: String,
        /// What is shown.
        source: Option<Source>,
        /// At most 128 bytes.
        name: Option<String>,
        /// Simulcast: how many encodings, lowest first; 1 without.
        encodings: Option<u32>,
        /// Whether it begins muted.
        muted: Option<bool>,
    }
    /// Ends a publication.
    Unpublish "unpublish" => "`{}`." {
        /// Of `publish`.
        handle: u32,
    }
    /// Tells the others that a publication is silent, or no longer.
    SetMuted "set_muted" => "`handle`; then `done` or `refused`." {
        /// Of `published`.
        publication_id: String,
        /// Whether it is.
        muted: bool,
    }
    /// Subscribes to a publication; its packets go to the media callback.
    Subscribe "subscribe" => "`handle`; then `subscribed` or `refused`." {
        /// Of a peer.
        publication_id: String,
        /// As the publisher sends it ([native client](../native-client.md)); false without.
        as_sent: Option<bool>,
    }
    /// Ends a subscription.
    Unsubscribe "unsubscribe" => "`handle`; then `done` or `refused`." {
        /// Of `subscribed`.
        subscription_id: String,
    }
    /// What is wanted of a subscription, instead of what was said before.
    SetPreferences "set_preferences" => "`handle`; then `done` or `refused`." {
        /// Of `subscribed`.
        subscription_id: String,
        /// Nothing is to be sent now, and nothing is given to the application.
        paused: Option<bool>,
        /// The highest simulcast layer, 0 the smallest.
        layer_max: Option<u32>,
        /// How high the picture is shown, in pixels.
        height: Option<u32>,
        /// 0 to 255: what has more comes first where the line is narrow.
        priority: Option<u32>,
        /// Before all that is not.
        pinned: Option<bool>,
    }
    /// Whose streams of a kind may be subscribed to; at first everybody's. Subscriptions to others end, without an event, and what
    /// came directly comes by the node.
    AllowSenders "allow_senders" => "`handle`; then `done` or `refused`." {
        /// Sound or pictures; screens and their sound go with pictures.
        kind: Kind,
        /// Everybody; the list then has no effect.
        everybody: Option<bool>,
        /// These.
        peer_ids: Option<Vec<String>>,
    }
    /// Sends a message. It is kept and sent again until the node took it over. As many wait as the node names (256 before it
    /// did), and 8 MiB at most, as which a message counts its payload, `to` and 64 bytes: `TOO_MANY` beyond, send it later.
    /// One of `text` and `data` is needed.
    SendMessage "send_message" => "`number`; then `undelivered` where nobody of that name is there." {
        /// A peer; all others without.
        to: Option<String>,
        /// Text.
        text: Option<String>,
        /// Bytes, in base 64.
        data: Option<String>,
    }
    /// Asks the node how all fares.
    GetStatistics "get_statistics" => "`handle`; then `node_statistics` or `refused`." {}
    /// How all fares, as the client sees it.
    Statistics "statistics" => "`statistics`: see [`own_statistics`](#own_statistics)." {}
    /// Asks the publisher of a subscription for a key frame.
    AskKeyFrame "ask_key_frame" => "`{}`." {
        /// Of `subscribed`.
        subscription_id: String,
    }
    /// Leaves for good, once the node took over what messages wait, after 2 s at the latest. Nothing can be asked or sent
    /// any more.
    Leave "leave" => "`{}`; then `unconfirmed` where the node did not take over all, then `ended`." {}
}

records! { Deserialize:
    /// In `connect`.
    Signed "signed" {
        /// Which application.
        application_id: String,
        /// Which user.
        user_id: String,
        /// Not used before.
        salt: String,
        /// Seconds since 1970.
        expires: u64,
        /// 64 hexadecimal digits.
        signature: String,
        /// The published scheme (SHA-256 over the concatenation) instead of HMAC-SHA-256.
        concatenated: Option<bool>,
        /// The key that it was signed with, for logs.
        key_id: Option<String>,
    }
    /// In `connect`.
    Proxy "proxy" {
        /// `"socks5"` or `"http"` (CONNECT).
        kind: String,
        /// Name or address, alone.
        host: String,
        /// Port.
        port: u16,
        /// With `password`. Neither holds control characters; 1 to 255 bytes each for `"socks5"`.
        user: Option<String>,
        /// With `user`.
        password: Option<String>,
    }
}

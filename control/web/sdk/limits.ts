/** Every bound of the SDK, with its reason. */

/** Unacknowledged frames kept for a reconnect: the contract's window. */
export const RETAINED_FRAMES_MAX = 512;
/** Frames received before an acknowledgement of its own is sent: the contract's number. */
export const UNACKNOWLEDGED_FRAMES_MAX = 16;
/** Largest text message that the server takes. */
export const FRAME_BYTES_MAX = 256 * 1024;
/** First wait before a reconnect is between this and twice this, at random. */
export const RECONNECT_WAIT_MS = 1_000;
/** And at most this where neither server nor media answered: most often it is our own network that changed. */
export const RECONNECT_SOON_MS = 500;
/**
 * So many attempts follow each other that fast, by chance half of it more or less, when the browser
 * says that the network is back.
 */
export const RECONNECT_HASTY = 6;
/** How long the server keeps a lost session. */
export const SESSION_KEPT_MS = 30_000;
/** Waits double up to this while it does: a call stands still, and not every browser says that the network is back. */
export const RECONNECT_KEPT_WAIT_MS_MAX = 4_000;
/** And up to this when there is nothing left to lose. */
export const RECONNECT_WAIT_MS_MAX = 10_000;
/** A socket that does not open, or a CONNECT that is not answered, is given up after this. */
export const CONNECT_TIMEOUT_MS = 10_000;
/** A request without an answer fails after this: it may have been sent without a session to answer it. */
export const REQUEST_TIMEOUT_MS = SESSION_KEPT_MS;
/** Silence after which a PING is sent: scripts do not see the server's WebSocket pings. */
export const PING_AFTER_MS = 20_000;
/** Silence after a PING that means that the WebSocket is dead. */
export const PONG_WITHIN_MS = 10_000;
/** CnCs that are asked: a round of silent ones takes half a minute. */
export const RESOLVERS_MAX = 16;
/** What a CnC is given to answer in the first round. */
export const RESOLVE_TIMEOUT_MS = 2_000;
/** And at most: twice as long in each round that had no answer, for slow lines. */
export const RESOLVE_TIMEOUT_MS_MAX = 8_000;
/** And to say: addresses of a node, or why there is none. */
export const RESOLVE_CHARACTERS_MAX = 4_096;
/** Nodes that send a client on, one after the other: more is a circle. */
export const REDIRECTS_MAX = 5;
/** How often it is looked whether media comes, and by which path. */
export const PULSE_LOOK_MS = 400;
/** A WebSocket that was silent for this long while media is gets a PING. */
export const DOUBT_MS = 750;
/** And this long to answer it, or the path to: a dead node is noticed within 2 s. */
export const VERDICT_MS = 750;
/** On a slow line this many round trips: one, and one that got lost and came again. */
export const VERDICT_ROUND_TRIPS = 3;
/** And at most, whatever was measured: there are other nodes. */
export const VERDICT_MS_MAX = 5_000;
/** Answers whose time is kept: one that was slow, as that to CONNECT may be, has fast ones beside it soon. */
export const ROUND_TRIPS_KEPT = 3;
/** And each counts for so much at most: a line that is slower carries no call, so it was the server. */
export const ROUND_TRIP_MS_MAX = 2_000;
/** Both where nothing was sent to us anyway, as by a node beside a direct way: nobody misses it. */
export const QUIET_MS = 2_000;
/** Media that came in so many looks without a silence between is a flow that can break off. */
export const FLOW_LOOKS = 3;
/** Looks without a sign of life that are a silence: in a single one nobody may have sent. */
export const SILENT_LOOKS = 2;
/** A node that a CnC named has this long to take the connection: another one may have to. */
export const NODE_CONNECT_TIMEOUT_MS = 3_000;
/** Nodes that are tried at the first join, where CnCs know others: one died just now. */
export const FIRST_NODES_MAX = 3;
/** Changes within this window share one offer. */
export const COALESCE_MS = 30;
/** Receive slots of the first offer, of each kind: a call of three with a screen fits. */
export const SLOTS_FIRST = 4;
/** Slots asked for beyond those needed, so that the next joiners need no offer. */
export const SLOTS_SPARE = 3;
/** Slots of one kind at most: what an SDP within the frame limit carries with room to spare. */
export const SLOTS_MAX = 64;
/** A media path that is interrupted for this long, after the seconds until the browser says so, is restarted. */
export const MEDIA_INTERRUPTED_MS = 1_000;
/**
 * An ICE restart that has not brought the media back after the first of these is made again, for a browser gathers the
 * addresses that it has at that moment; after the second one it makes way for a fresh START.
 */
export const ICE_RESTARTS_MS = [2_000, 3_000];
/**
 * A browser that gave ICE up and does not begin anew so long after a restart will not, as was seen of
 * Firefox: the scope is joined afresh.
 */
export const ICE_REVIVAL_MS = 1_000;
/** On a slow line that takes so many round trips: the offer and its answer, and one that got lost. */
export const ICE_REVIVAL_ROUND_TRIPS = 2;
/** On a slow line each has so many round trips: the offer and its answer, the checks, and what got lost of them. */
export const ICE_RESTART_ROUND_TRIPS = 4;
/** And at most, whatever was measured. */
export const ICE_RESTART_MS_MAX = 10_000;
/** A data channel on which a message is not answered for this long is given up. */
export const ANSWER_WITHIN_MS = 10_000;
/** How often the server is asked to send over a data channel of which it does not know yet. */
export const CHANNEL_TRIES = 5;
/** And after which time again. */
export const CHANNEL_TRY_MS = 200;
/** An id of whom a message is for: what a frame of the data channel has room for. */
export const PEER_BYTES_MAX = 255;
/** Of a wrong argument, in its error: enough to find it. */
export const SHOWN_CHARACTERS_MAX = 40;
/** `leave()` waits this long for the server's answer. */
export const LEAVE_WAIT_MS = 1_000;
/** How often the uplink is looked at, for pictures with a quality. */
export const QUALITY_INTERVAL_MS = 1_000;
/** An uplink that is too narrow for this long gets smaller pictures. */
export const QUALITY_DOWN_MS = 1_000;
/** A processor that is too slow for this long, too. */
export const QUALITY_SLOW_MS = 5_000;
/** An uplink that is wide enough for this long gets larger pictures. */
export const QUALITY_UP_MS = 3_000;
/** Wide enough is so many times what they need: at the edge they would go up and down. */
export const QUALITY_UP_RATIO = 1.15;
/** What the node tells every 2 s counts for so long: one may be left out. */
export const NODE_FIGURES_STALE_MS = 5_000;
/** How often `statistics` is told unless something else is asked for: as often as the node tells. */
export const STATISTICS_INTERVAL_MS = 2_000;
/** And at most: reports are not free, and shorter windows say nothing. */
export const STATISTICS_INTERVAL_MS_MIN = 250;
/** How often the way of the media is looked at. */
export const CONNECTION_TYPE_INTERVAL_MS = 2_000;
/** What encoders get of a capped uplink: the rest is headers and what is sent again. */
export const UPLINK_SHARE = 0.95;
/** What a sound takes of a capped uplink, with its headers. */
export const SOUND_BPS = 48_000;
/** A test of the line waits so long for a media path, by UDP or by TCP. */
export const CONNECTIVITY_CONNECT_MS = 6_000;
/** How long it sends and measures unless something else is asked for. */
export const CONNECTIVITY_MEASURE_MS = 4_000;
/** And at most: nobody waits for longer. */
export const CONNECTIVITY_MEASURE_MS_MAX = 30_000;
/** What it sends: enough packets that single ones do not weigh, on lines that carry a call. */
export const CONNECTIVITY_BPS = 400_000;
/** Before it measures: connections begin with checks and probes that say nothing of the line. */
export const CONNECTIVITY_SETTLE_MS = 1_000;
/** What the data channel of a direct connection is called. */
export const DIRECT_LABEL = "strait-direct";
/** How often who sends directly asks whether it arrives. */
export const DIRECT_BEAT_MS = 250;
/** A direct connection that is silent for so long is dead: four beats, of which hidden pages may send one a second. */
export const DIRECT_SILENCE_MS = 1_800;
/** One that is not up after this long is given up. */
export const DIRECT_CONNECT_MS = 10_000;
/** How often it is looked what arrives directly. */
export const DIRECT_LOOK_MS = 100;
/** The first wait before another attempt; it doubles. */
export const DIRECT_RETRY_MS = 2_000;
/** At most. */
export const DIRECT_RETRY_MS_MAX = 60_000;
/** A direct connection that lasted for so long was well: waits begin with the shortest again. */
export const DIRECT_WELL_MS = 10_000;
/** What is over lasts for so long, for the relay to take over without a gap. */
export const DIRECT_LINGER_MS = 3_000;
/** How often it is listened who speaks in what comes past the server. */
export const DIRECT_SPEECH_MS = 200;
/** What is louder counts as speech, 1 being full scale: 36 dB below it. */
export const DIRECT_SPEECH_LEVEL = 0.016;
/** Silence comes so long after the last word, as the server tells it. */
export const DIRECT_SILENT_AFTER_MS = 600;
/** What the other one signals at once: the server passes no more on. */
export const DIRECT_SIGNAL_CHARACTERS_MAX = 64 * 1024;
/** What it answers a beat with: ids of all that it may be sent. */
export const DIRECT_ANSWER_CHARACTERS_MAX = 16 * 1024;
/** M-lines of what it sends: each is a receiver. */
export const DIRECT_LINES_MAX = 64;
/** Addresses that are taken as candidates of one connection, in descriptions and after them: each is asked for it. */
export const DIRECT_CANDIDATES_MAX = 64;
/** Offers are answered no faster: in the long run the server passes no more on, and there are candidates to tell. */
export const DIRECT_ANSWER_MS = 500;
/** Its attempts follow each other no faster: each is a connection. An honest one waits for twice as long. */
export const DIRECT_ATTEMPT_MS = 1_000;
/** Beats and answers that come faster than this say nothing new. */
export const DIRECT_HEARD_MS = 100;
/** Answers that wait to be sent: more wait for nothing. */
export const DIRECT_BUFFERED_BYTES = 64 * 1024;

/*
 * Strait's client for programs in C and in all that can call C: joins a scope at a node, sends and receives media as RTP
 * payloads, and messages. What is not media goes through strait_invoke() as JSON; the methods, events and their fields are in
 * docs/reference/invoke.md, a program in tools/client/c/examples/call.c.
 *
 * Threads. Every function may be called from any thread, from within a callback as well, and none waits for the network;
 * strait_destroy() alone waits, for a callback that is under way. Each client that has connected has one thread of its own.
 * Its callbacks are called on that thread alone, one after the other: what takes long there holds up this client, and no
 * other. A callback must return: no C++ exception and no longjmp may leave it. After fork() the child must not use clients
 * that its parent made.
 *
 * Pointers. What a function is given is read until it returns; what a callback is given is there until it returns. A client is
 * a number that is given out once: a wrong one, or one that was destroyed, is STRAIT_BAD_CLIENT and nothing worse.
 */
#ifndef STRAIT_H
#define STRAIT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A client; 0 is none. */
typedef uint64_t strait_client;

/* What functions return. docs/reference/invoke.md says what each means. */
enum strait_code {
    STRAIT_OK = 0,
    STRAIT_BAD_CLIENT = 1,
    STRAIT_BAD_ARGUMENT = 2,
    STRAIT_BAD_UTF8 = 3,
    STRAIT_TOO_LARGE = 4,
    STRAIT_MALFORMED = 5,
    STRAIT_UNKNOWN_METHOD = 6,
    STRAIT_NOT_JOINED = 7,
    STRAIT_ALREADY_CONNECTED = 8,
    STRAIT_TOO_MANY = 9,
    STRAIT_UNKNOWN = 10,
    STRAIT_REFUSED = 11,
    STRAIT_LINK_LOST = 12,
    STRAIT_PROTOCOL = 13,
    STRAIT_CONNECT = 14,
    STRAIT_CERTIFICATE = 15,
    STRAIT_PROXY_CREDENTIALS = 16,
    STRAIT_PROXY_NEEDS_CREDENTIALS = 17,
    STRAIT_PROXY = 18,
    STRAIT_ENDED = 19,
    STRAIT_INTERNAL = 20,
    STRAIT_PROXY_TICKET = 21
};

/* The interface that this header describes; compare with strait_interface(). */
#define STRAIT_INTERFACE 1u

/* For strait_send(): how loud the sound is is not known. */
#define STRAIT_NO_LEVEL (-1)
/* For strait_send(): add it where the sound is speech. */
#define STRAIT_SPEECH 128

/* A packet of a subscription. Later versions may add fields at the end. */
typedef struct strait_media {
    /* Of the event `subscribed`. */
    const char *subscription_id;
    /* RTP payload. */
    const uint8_t *payload;
    size_t payload_len;
    /*
     * The sender's SSRC. Another one than before: media goes directly, or no longer, and sequence numbers and timestamps are
     * others. Each packet comes once, also while both ways carry it. With `as_sent` the SSRC stays.
     */
    uint32_t ssrc;
    /* In units of the codec's clock rate. */
    uint32_t timestamp;
    /* Sequence number: packets may come in another order, and some not at all. */
    uint16_t seq;
    uint8_t payload_type;
    /* Of video the last packet of a picture, of sound the first after silence. */
    uint8_t marker;
} strait_media;

/* Takes an event: JSON, UTF-8, ended by a null. */
typedef void (*strait_on_event)(void *user_data, strait_client client, const char *event);

/* Takes a packet. */
typedef void (*strait_on_media)(void *user_data, strait_client client, const strait_media *media);

/* The interface that the library has: the same number means that all of this header is there, and works as it says. */
uint32_t strait_interface(void);

/* The library's version, as "0.1.0". Not to be freed. */
const char *strait_version(void);

/* The name of a code, as "NOT_JOINED"; "UNKNOWN_CODE" where it is none. Not to be freed. */
const char *strait_code_name(int32_t code);

/*
 * Makes a client, which does nothing until it is told to connect. on_media may be null, then media is dropped. user_data is
 * passed to the callbacks.
 *
 * STRAIT_BAD_ARGUMENT: on_event or client is null. STRAIT_TOO_MANY: 1024 are there.
 */
int32_t strait_create(strait_on_event on_event, strait_on_media on_media, void *user_data, strait_client *client);

/*
 * Carries out a request of request_len bytes of JSON, at most 512 KiB. *answer becomes the answer, ended by a null, also where
 * it is an error; it is to be given to strait_free(). answer may be null. What comes of the request later is told by events;
 * one may be told before this returns.
 *
 * Messages (`send_message`) wait here until the node took them over: as many as it names, and 8 MiB at most, as which each
 * counts its payload, its receiver's name and 64 bytes. One more is STRAIT_TOO_MANY: send it later. `leave` hands over what
 * waits before it ends the client, for 2 s at most, and the event `unconfirmed` names the rest.
 *
 * Returns the code that an error's answer names, STRAIT_OK otherwise.
 */
int32_t strait_invoke(strait_client client, const char *request, size_t request_len, char **answer);

/* Frees an answer, once; null is nothing. */
void strait_free(char *answer);

/*
 * Sends a packet of a publication: one RTP payload of at most 1150 bytes, as the codec's payload format says. publication is
 * the handle of the answer to `publish`, encoding 0 for the first. marker: not 0 for the last packet of a picture, and for the
 * first sound after silence. level: how far the sound is below the loudest, 0 to 127 dB (127 is silence), STRAIT_SPEECH added
 * where it is speech; STRAIT_NO_LEVEL for pictures and where it is not known, and then nobody is told who speaks.
 *
 * STRAIT_NOT_JOINED: before the event `published`; the packet is dropped. STRAIT_UNKNOWN: there is no such publication or
 * encoding. STRAIT_TOO_LARGE, STRAIT_BAD_ARGUMENT, STRAIT_BAD_CLIENT, STRAIT_ENDED.
 */
int32_t strait_send(strait_client client, uint32_t publication, uint32_t encoding, const uint8_t *payload,
                    size_t payload_len, uint32_t timestamp, int32_t marker, int32_t level);

/*
 * Leaves the scope, and ends the client. No callback begins after this was called, and none is under way when it returns,
 * unless it was called by that callback: what user_data points to may be freed then. Who holds a lock that the callback waits
 * for must not call this, nor two callbacks with each other's client. Messages that wait are lost: invoke `leave`, and wait
 * for the event `ended`, before.
 *
 * STRAIT_BAD_CLIENT: there is no such client.
 */
int32_t strait_destroy(strait_client client);

#ifdef __cplusplus
}
#endif

#endif

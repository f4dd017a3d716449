/*
 * A call: each name joins the scope as a client of its own, sends sound and a message to the others, and hears them. It ends
 * with 0 when every one of them was heard and has heard, with 1 when that did not happen within 60 s.
 *
 *     call HOST PORT CERTIFICATE TOKEN SCOPE NAME [NAME...]
 *
 * Two of them, or one with two names, make a call. CERTIFICATE is a PEM file with the node's certificate or its CA's.
 *
 * Build: cc -std=c99 -I tools/client/c/include tools/client/c/examples/call.c -L target/release -lstrait -lpthread
 */
#define _POSIX_C_SOURCE 200809L

#include "strait.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    NAMES_MAX = 8,
    /* Packets of sound that are to be heard. */
    ENOUGH = 50,
    /* A frame of sound each 20 ms, for 60 s. */
    FRAMES_MAX = 3000,
    /* 20 ms at 48 kHz. */
    FRAME_TICKS = 960,
    ID_MAX = 128,
    REQUEST_MAX = 1024
};

/* One who is in the call. The callbacks write what main reads: under `lock`. */
struct member {
    const char *name;
    strait_client client;
    uint32_t voice;
    pthread_mutex_t lock;
    int joined;
    int ended;
    unsigned packets;
    unsigned long bytes;
    unsigned messages;
    /* Another one said that it has heard enough, and so did this one. */
    int was_heard;
    int said_heard;
};

/*
 * Copies the string that follows "name": in a piece of JSON, and returns what comes behind it; null where there is none. Enough
 * for identifiers, which hold nothing that JSON escapes; a real program has a JSON parser.
 */
static const char *string_field(const char *json, const char *name, char *value, size_t size)
{
    char key[64];
    const char *start, *end;
    snprintf(key, sizeof key, "\"%s\":\"", name);
    start = strstr(json, key);
    if (!start)
        return NULL;
    start += strlen(key);
    end = strchr(start, '"');
    if (!end || (size_t)(end - start) >= size)
        return NULL;
    memcpy(value, start, (size_t)(end - start));
    value[end - start] = 0;
    return end;
}

/* Invokes a request; its answer's number, 0 without one. Says what does not work. */
static unsigned long invoke(struct member *member, const char *number, const char *format, ...)
{
    char request[REQUEST_MAX], key[64];
    char *answer = NULL;
    const char *found;
    unsigned long value = 0;
    va_list arguments;
    int32_t code;

    va_start(arguments, format);
    vsnprintf(request, sizeof request, format, arguments);
    va_end(arguments);
    code = strait_invoke(member->client, request, strlen(request), &answer);
    if (code != STRAIT_OK)
        fprintf(stderr, "%s: %s: %s\n", member->name, strait_code_name(code), answer);
    snprintf(key, sizeof key, "\"%s\":", number);
    found = answer ? strstr(answer, key) : NULL;
    if (found)
        value = strtoul(found + strlen(key), NULL, 10);
    strait_free(answer);
    return value;
}

/* Subscribes to all publications that a piece of JSON names. */
static void subscribe(struct member *member, const char *json)
{
    char id[ID_MAX];
    while ((json = string_field(json, "publication_id", id, sizeof id)))
        invoke(member, "handle", "{\"method\":\"subscribe\",\"publication_id\":\"%s\"}", id);
}

static void on_event(void *user_data, strait_client client, const char *event)
{
    struct member *member = user_data;
    char name[64] = "", value[REQUEST_MAX] = "";
    (void)client;
    string_field(event, "event", name, sizeof name);
    if (strcmp(name, "joined") == 0) {
        subscribe(member, event);
        invoke(member, "number", "{\"method\":\"send_message\",\"text\":\"hello\"}");
        pthread_mutex_lock(&member->lock);
        member->joined = 1;
        pthread_mutex_unlock(&member->lock);
    } else if (strcmp(name, "peer_joined") == 0) {
        subscribe(member, event);
        string_field(event, "peer_id", value, sizeof value);
        invoke(member, "number", "{\"method\":\"send_message\",\"to\":\"%s\",\"text\":\"hello\"}", value);
    } else if (strcmp(name, "stream_started") == 0) {
        subscribe(member, event);
    } else if (strcmp(name, "message") == 0) {
        string_field(event, "text", value, sizeof value);
        pthread_mutex_lock(&member->lock);
        member->messages++;
        member->was_heard |= strcmp(value, "heard") == 0;
        pthread_mutex_unlock(&member->lock);
    } else if (strcmp(name, "target") == 0) {
        /* Here a program with a camera tells its encoder: bitrate_bps, height, frames_per_second. */
    } else if (strcmp(name, "link_lost") == 0 || strcmp(name, "refused") == 0) {
        fprintf(stderr, "%s: %s\n", member->name, event);
    } else if (strcmp(name, "ended") == 0) {
        string_field(event, "code", value, sizeof value);
        if (strcmp(value, "ENDED") != 0)
            fprintf(stderr, "%s: %s\n", member->name, event);
        pthread_mutex_lock(&member->lock);
        member->ended = 1;
        pthread_mutex_unlock(&member->lock);
    }
}

static void on_media(void *user_data, strait_client client, const strait_media *media)
{
    struct member *member = user_data;
    (void)client;
    pthread_mutex_lock(&member->lock);
    member->packets++;
    member->bytes += (unsigned long)media->payload_len;
    pthread_mutex_unlock(&member->lock);
}

/* Joins and publishes. */
static int begin(struct member *member, const char *name, char **arguments)
{
    member->name = name;
    pthread_mutex_init(&member->lock, NULL);
    if (strait_create(on_event, on_media, member, &member->client) != STRAIT_OK)
        return 0;
    /* Arguments are written into JSON as they are: names without quotation marks. */
    invoke(member, "none",
        "{\"method\":\"connect\",\"host\":\"%s\",\"port\":%s,\"ca_file\":\"%s\",\"token\":\"%s\",\"scope_id\":\"%s\","
        "\"name\":\"%s\",\"client\":\"call.c/1\"}",
        arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], name);
    /* It is published as soon as the scope is joined. */
    member->voice = (uint32_t)invoke(member, "handle",
        "{\"method\":\"publish\",\"kind\":\"audio\",\"codec\":\"opus\",\"source\":\"microphone\"}");
    return member->voice != 0;
}

/* Sends a frame of sound, and says once when enough was heard; whether this one may go. */
static int turn(struct member *member, unsigned frame)
{
    /* Silence in Opus. */
    static const uint8_t silence[] = {0xf8, 0xff, 0xfe};
    int say, done;
    /* Loud, so that it is taken for somebody who speaks. Before it is published there is nobody to send it to. */
    int32_t code = strait_send(member->client, member->voice, 0, silence, sizeof silence, frame * FRAME_TICKS, frame == 0,
                               STRAIT_SPEECH + 20);
    if (code != STRAIT_OK && code != STRAIT_NOT_JOINED && code != STRAIT_ENDED)
        fprintf(stderr, "%s: cannot send: %s\n", member->name, strait_code_name(code));
    pthread_mutex_lock(&member->lock);
    say = member->packets >= ENOUGH && member->messages > 0 && !member->said_heard;
    member->said_heard |= say;
    done = (member->said_heard && member->was_heard) || member->ended;
    pthread_mutex_unlock(&member->lock);
    if (say)
        invoke(member, "number", "{\"method\":\"send_message\",\"text\":\"heard\"}");
    return done;
}

/* Leaves, and says how it was; whether it was good. */
static int end(struct member *member)
{
    char *answer = NULL;
    const char *request = "{\"method\":\"statistics\"}";
    int good, ended;
    pthread_mutex_lock(&member->lock);
    ended = member->ended;
    pthread_mutex_unlock(&member->lock);
    if (!ended) {
        strait_invoke(member->client, request, strlen(request), &answer);
        invoke(member, "none", "{\"method\":\"unpublish\",\"handle\":%" PRIu32 "}", member->voice);
    }
    strait_destroy(member->client);
    /* No callback any more: nothing to lock. */
    good = member->said_heard && member->was_heard;
    printf("%s: %s: %u packets, %lu bytes and %u messages received\n%s\n", member->name, good ? "good" : "NOT GOOD",
           member->packets, member->bytes, member->messages, answer ? answer : "");
    strait_free(answer);
    pthread_mutex_destroy(&member->lock);
    return good;
}

int main(int count, char **arguments)
{
    static struct member members[NAMES_MAX];
    int names = count - 6, good = 1, done = 0, n;
    unsigned frame;

    if (names < 1 || names > NAMES_MAX) {
        fprintf(stderr, "call HOST PORT CERTIFICATE TOKEN SCOPE NAME [NAME...]\n");
        return 2;
    }
    if (strait_interface() != STRAIT_INTERFACE) {
        fprintf(stderr, "strait.h and libstrait %s do not fit\n", strait_version());
        return 2;
    }
    for (n = 0; n < names; n++)
        good &= begin(&members[n], arguments[6 + n], arguments + 1);
    for (frame = 0; good && !done && frame < FRAMES_MAX; frame++) {
        struct timespec pause = {0, 20 * 1000 * 1000};
        done = 1;
        for (n = 0; n < names; n++)
            done &= turn(&members[n], frame);
        nanosleep(&pause, NULL);
    }
    for (n = 0; n < names; n++)
        good &= end(&members[n]);
    return good ? 0 : 1;
}

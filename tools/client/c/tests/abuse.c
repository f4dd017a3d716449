/*
 * What a program may do wrong, each with the code that it gets: nothing of it is worse. Exits with the number of what went
 * wrong after saying which line.
 */
#define _POSIX_C_SOURCE 200809L

#include "strait.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int failures;

#define CHECK(is) ((is) ? (void)0 : (void)(failures++, fprintf(stderr, "line %d: %s\n", __LINE__, #is)))
#define CODE(call, wanted) check_code(__LINE__, #call, (call), (wanted))

static void check_code(int line, const char *call, int32_t got, int32_t wanted)
{
    if (got != wanted) {
        failures++;
        fprintf(stderr, "line %d: %s is %s, not %s\n", line, call, strait_code_name(got), strait_code_name(wanted));
    }
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

struct told {
    unsigned events;
    unsigned lost;
    unsigned ended;
    /* Destroy the client from its own callback. */
    int destroy;
    int32_t destroyed;
    pthread_t thread;
    int other_thread;
};

static void on_event(void *user_data, strait_client client, const char *event)
{
    struct told *told = user_data;
    pthread_mutex_lock(&lock);
    if (told->events++ == 0)
        told->thread = pthread_self();
    else
        told->other_thread |= !pthread_equal(told->thread, pthread_self());
    told->lost += strstr(event, "\"event\":\"link_lost\"") != NULL;
    told->ended += strstr(event, "\"event\":\"ended\"") != NULL;
    if (told->destroy)
        told->destroyed = strait_destroy(client);
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

/* Waits until a count is there, for 30 s. */
static int wait_for(const unsigned *count)
{
    struct timespec until;
    int there;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 30;
    pthread_mutex_lock(&lock);
    while (*count == 0 && pthread_cond_timedwait(&changed, &lock, &until) == 0)
        ;
    there = *count > 0;
    pthread_mutex_unlock(&lock);
    return there;
}

static int32_t invoke(strait_client client, const char *request)
{
    return strait_invoke(client, request, strlen(request), NULL);
}

/* Nobody listens there: port 1 of this host. */
static const char connect_request[] =
    "{\"method\":\"connect\",\"host\":\"127.0.0.1\",\"port\":1,\"scope_id\":\"s\",\"token\":\"t\",\"fingerprint\":"
    "\"00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\"}";

static void wrong_arguments(void)
{
    struct told told = {0};
    strait_client client = 0;
    const uint8_t payload[1] = {0};
    char *answer = NULL, *large;
    size_t size = (512 << 10) + 1;

    CODE(strait_create(NULL, NULL, NULL, &client), STRAIT_BAD_ARGUMENT);
    CODE(strait_create(on_event, NULL, &told, NULL), STRAIT_BAD_ARGUMENT);
    CODE(strait_create(on_event, NULL, &told, &client), STRAIT_OK);
    CHECK(client != 0);

    CODE(strait_invoke(client, NULL, 7, &answer), STRAIT_BAD_ARGUMENT);
    CHECK(answer && strstr(answer, "\"code\":\"BAD_ARGUMENT\""));
    strait_free(answer);
    strait_free(NULL);
    CODE(strait_invoke(client, "\xff\xfe", 2, NULL), STRAIT_BAD_UTF8);
    CODE(strait_invoke(client, "", 0, NULL), STRAIT_MALFORMED);
    CODE(strait_invoke(client, "{\"method\":\"leave\"}", 5, NULL), STRAIT_MALFORMED);
    CODE(invoke(client, "{\"method\":\"fly\"}"), STRAIT_UNKNOWN_METHOD);
    CODE(invoke(client, "{\"method\":\"publish\",\"kind\":\"audio\",\"codec\":\"opus\"}"), STRAIT_NOT_JOINED);
    large = malloc(size);
    if (large) {
        memset(large, ' ', size);
        CODE(strait_invoke(client, large, size, NULL), STRAIT_TOO_LARGE);
        CODE(strait_invoke(client, large, size - 1, NULL), STRAIT_MALFORMED);
        memset(large, '[', size);
        CODE(strait_invoke(client, large, size - 1, NULL), STRAIT_MALFORMED);
        free(large);
    }

    CODE(strait_send(client, 1, 0, payload, 1, 0, 0, STRAIT_NO_LEVEL), STRAIT_NOT_JOINED);
    CODE(strait_send(client, 1, 0, NULL, 1, 0, 0, STRAIT_NO_LEVEL), STRAIT_BAD_ARGUMENT);
    CODE(strait_send(client, 1, 0, payload, (size_t)-1, 0, 0, STRAIT_NO_LEVEL), STRAIT_BAD_ARGUMENT);
    CODE(strait_send(client, 1, 0, payload, 1, 0, 0, 256), STRAIT_BAD_ARGUMENT);
    CODE(strait_send(client, 1, 0, payload, 1, 0, 0, -2), STRAIT_BAD_ARGUMENT);

    CODE(strait_destroy(client), STRAIT_OK);
    CODE(strait_destroy(client), STRAIT_BAD_CLIENT);
    CODE(strait_destroy(0), STRAIT_BAD_CLIENT);
    answer = NULL;
    CODE(strait_invoke(client, "{}", 2, &answer), STRAIT_BAD_CLIENT);
    CHECK(answer && strstr(answer, "\"code\":\"BAD_CLIENT\""));
    strait_free(answer);
    CODE(strait_send(client, 1, 0, payload, 1, 0, 0, 0), STRAIT_BAD_CLIENT);
    CODE(strait_send(UINT64_MAX, 1, 0, payload, 1, 0, 0, 0), STRAIT_BAD_CLIENT);
    CHECK(told.events == 0);
    CHECK(strcmp(strait_code_name(STRAIT_NOT_JOINED), "NOT_JOINED") == 0);
    CHECK(strcmp(strait_code_name(-5), "UNKNOWN_CODE") == 0);
    CHECK(strait_interface() == STRAIT_INTERFACE);
    CHECK(strlen(strait_version()) >= 5);
}

static void connected(void)
{
    static uint8_t payload[2000];
    struct told told = {0};
    strait_client client = 0;
    CODE(strait_create(on_event, NULL, &told, &client), STRAIT_OK);
    CODE(invoke(client, connect_request), STRAIT_OK);
    CODE(invoke(client, connect_request), STRAIT_ALREADY_CONNECTED);
    CHECK(wait_for(&told.lost));
    CODE(invoke(client, "{\"method\":\"subscribe\",\"publication_id\":\"x\"}"), STRAIT_NOT_JOINED);
    CODE(invoke(client, "{\"method\":\"unpublish\",\"handle\":77}"), STRAIT_UNKNOWN);
    CODE(invoke(client, "{\"method\":\"statistics\"}"), STRAIT_OK);
    CODE(strait_send(client, 77, 0, payload, 1, 0, 0, 0), STRAIT_UNKNOWN);
    CODE(strait_send(client, 77, 0, payload, sizeof payload, 0, 0, 0), STRAIT_TOO_LARGE);
    CODE(invoke(client, "{\"method\":\"leave\"}"), STRAIT_OK);
    CHECK(wait_for(&told.ended));
    CODE(invoke(client, "{\"method\":\"statistics\"}"), STRAIT_ENDED);
    CODE(strait_destroy(client), STRAIT_OK);
    CHECK(!told.other_thread && !pthread_equal(told.thread, pthread_self()));
}

/* After it was destroyed nothing calls back: valgrind would see a callback's write to what was freed. */
static void destroyed_within_and_without(void)
{
    /* Its callback may not have returned when this has, and nothing says when. */
    static struct told of_within;
    int within;
    for (within = 0; within < 2; within++) {
        struct told *told = within ? &of_within : calloc(1, sizeof *told);
        strait_client client = 0;
        unsigned events;
        if (!told)
            return;
        told->destroy = within;
        told->destroyed = -1;
        CODE(strait_create(on_event, NULL, told, &client), STRAIT_OK);
        CODE(invoke(client, connect_request), STRAIT_OK);
        CHECK(wait_for(&told->events));
        CODE(strait_destroy(client), within ? STRAIT_BAD_CLIENT : STRAIT_OK);
        pthread_mutex_lock(&lock);
        events = told->events;
        CHECK(!within || (events == 1 && told->destroyed == STRAIT_OK));
        pthread_mutex_unlock(&lock);
        if (!within)
            free(told);
    }
}

static void *hammer(void *of)
{
    const strait_client *client = of;
    const uint8_t payload[1] = {0};
    for (;;) {
        int32_t code = invoke(*client, connect_request);
        strait_send(*client, 1, 0, payload, 1, 0, 0, 0);
        if (code == STRAIT_BAD_CLIENT)
            return NULL;
    }
}

/* Threads that use a client while it is destroyed. */
static void destroyed_while_used(void)
{
    unsigned round, n;
    for (round = 0; round < 20; round++) {
        struct told *told = calloc(1, sizeof *told);
        strait_client client = 0;
        pthread_t threads[3];
        if (!told)
            return;
        CODE(strait_create(on_event, NULL, told, &client), STRAIT_OK);
        for (n = 0; n < 3; n++)
            pthread_create(&threads[n], NULL, hammer, &client);
        CODE(strait_destroy(client), STRAIT_OK);
        free(told);
        for (n = 0; n < 3; n++)
            pthread_join(threads[n], NULL);
    }
}

/* Many at a time, and no more than are named. */
static void many(void)
{
    static strait_client clients[1024];
    static struct told told[8];
    strait_client more;
    unsigned n;
    for (n = 0; n < 1024; n++)
        CODE(strait_create(on_event, NULL, &told[n % 8], &clients[n]), STRAIT_OK);
    CODE(strait_create(on_event, NULL, NULL, &more), STRAIT_TOO_MANY);
    for (n = 0; n < 8; n++)
        CODE(invoke(clients[n], connect_request), STRAIT_OK);
    for (n = 0; n < 8; n++)
        CHECK(wait_for(&told[n].lost));
    for (n = 0; n < 1024; n++)
        CODE(strait_destroy(clients[n]), STRAIT_OK);
}

int main(void)
{
    wrong_arguments();
    connected();
    destroyed_within_and_without();
    destroyed_while_used();
    many();
    return failures;
}

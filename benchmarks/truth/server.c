/* A server that knows exactly when it wrote what, fast enough to be no part of a measurement.
 *
 *     cc -O2 -Wall -Wextra -Werror -o truth server.c -lm && ./truth TTFT_US GAP_US
 *
 * It prints its port, speaks the streaming completions and chat APIs on 127.0.0.1, and ends when its stdin closes.
 * A request is received when the kernel has it, and every token has a due instant from there: due instants never drift,
 * and a late write is followed by writes in time. CLOCK_MONOTONIC is taken right before and after each send(). GET /log
 * answers all of it, binary (see struct entry), GET /clear forgets it; ask for neither while streams run.
 *
 * The model selects what is streamed:
 *   truth    one token an event, every GAP              stalls   1 % of the gaps are 300 ms instead
 *   two      two tokens an event, every GAP             aligned  all streams write at the multiples of GAP
 *   random   exponential gaps of mean GAP
 * Draws depend on nothing but the request's id and the event's number. One thread: due streams lie in a heap, and
 * the kernel is asked for news every few writes, so that a burst of writes does not delay whoever arrives.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "heap.h"
#include "read.h"

enum { WRITES_BEFORE_NEWS = 8, NEWS = 64, ID_MAX = 128, EVENT_MAX = 2048, REQUEST_MAX = 16 << 20 };
enum model { TRUTH, STALLS, TWO, ALIGNED, RANDOM, MODELS };
static const char *const MODEL[MODELS] = {"truth", "stalls", "two", "aligned", "random"};
static const int64_t STALL_NS = 300000000;

/* As in the log, in the machine's byte order: an entry, its id padded with zeros to 8 bytes, its writes. */
struct write { int64_t due_ns, before_ns; uint32_t spent_ns, tokens; };
struct entry { int64_t received_ns; uint32_t id_bytes, writes, prompt_tokens, max_tokens, blocked, model; };

struct request {
    struct entry entry;
    struct write *writes;
    struct request *older;
    char id[ID_MAX];
    bool chat, usage, continuous;
    uint32_t emitted;
    uint64_t seed;
};

static int64_t ttft_ns, gap_ns;
static int epoll_fd, listener;
static struct request *newest;
static struct peer *graveyard[1 << 16];
static int graves;

/* ---- when a token is due */

static uint64_t mixed(uint64_t x) { /* splitmix64 */
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

static uint64_t seed_of(const char *id) { /* FNV-1a */
    uint64_t hash = 14695981039346656037u;
    for (; *id; id++) hash = (hash ^ (unsigned char)*id) * 1099511628211u;
    return hash;
}

static int64_t next_due(const struct request *r, int64_t last_ns) {
    if (r->entry.model == ALIGNED) return (last_ns / gap_ns + 1) * gap_ns;
    uint64_t draw = mixed(r->seed + r->entry.writes);
    if (r->entry.model == STALLS && draw % 100 == 0) return last_ns + STALL_NS;
    if (r->entry.model == RANDOM) return last_ns + llround(-log1p(-(double)(draw >> 11) * 0x1p-53) * (double)gap_ns);
    return last_ns + gap_ns;
}

/* ---- writing */

static void watch(struct peer *peer, uint32_t events, int how) {
    struct epoll_event event = {.events = events, .data.ptr = peer};
    if (epoll_ctl(epoll_fd, how, peer->fd, &event)) fail("epoll_ctl");
}

static void bury(struct peer *peer) { /* freed when no news can name it any more */
    if (peer->dead) return;
    peer->dead = true;
    unschedule(peer);
    close(peer->fd);
    graveyard[graves++] = peer;
}

static void flush_out(struct peer *peer) {
    ssize_t sent = send(peer->fd, peer->out, peer->out_len, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && errno != EAGAIN) { bury(peer); return; }
    if (sent > 0) memmove(peer->out, peer->out + sent, peer->out_len -= (size_t)sent);
    watch(peer, EPOLLIN | (peer->out_len ? EPOLLOUT : 0), EPOLL_CTL_MOD);
}

/* True if the socket took all of it at once. */
static bool write_out(struct peer *peer, const char *data, size_t len) {
    ssize_t sent = peer->out_len ? 0 : send(peer->fd, data, len, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent == (ssize_t)len) return true;
    if (sent < 0 && errno != EAGAIN) { bury(peer); return false; }
    size_t rest = len - (size_t)(sent > 0 ? sent : 0);
    peer->out = grown(peer->out, peer->out_len + rest);
    memcpy(peer->out + peer->out_len, data + len - rest, rest);
    peer->out_len += rest;
    watch(peer, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
    return false;
}

static void answer(struct peer *peer, const char *status, const char *type, const void *body, size_t len) {
    char head[256];
    int n = snprintf(head, sizeof head, "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n", status, type, len);
    if (write_out(peer, head, (size_t)n) || peer->out_len) write_out(peer, body, len);
}

static void answer_json(struct peer *peer, const char *status, const char *body) {
    answer(peer, status, "application/json", body, strlen(body));
}

static int usage_json(const struct request *r, uint32_t tokens, char *to, size_t room) {
    uint32_t prompt = r->entry.prompt_tokens;
    return snprintf(to, room, "\"usage\":{\"prompt_tokens\":%u,\"completion_tokens\":%u,\"total_tokens\":%u}", prompt,
                    tokens, prompt + tokens);
}

/* One event as a chunk of the body; the length of the chunk has three hex digits. */
static size_t framed(char *to, int head, int payload) {
    char size[6];
    snprintf(size, sizeof size, "%03x\r\n", (unsigned)payload & 0xFFF);
    memcpy(to + head, size, 5);
    memcpy(to + head + 5 + payload, "\r\n", 3);
    return (size_t)(head + 5 + payload + 2);
}

static size_t token_event(const struct request *r, uint32_t tokens, char *to) {
    static const char HEAD[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
                               "Transfer-Encoding: chunked\r\n\r\n";
    int head = r->entry.writes ? 0 : snprintf(to, EVENT_MAX, "%s", HEAD);
    char text[64], usage[128] = ",";
    const char *model = MODEL[r->entry.model];
    int at = snprintf(text, sizeof text, " tok%u", r->emitted);
    if (tokens > 1) snprintf(text + at, sizeof text - (size_t)at, " tok%u", r->emitted + 1);
    const char *finish = r->emitted + tokens >= r->entry.max_tokens ? "\"length\"" : "null";
    if (r->continuous) usage_json(r, r->emitted + tokens, usage + 1, sizeof usage - 1);
    else usage[0] = 0;
    const char *form = r->chat
        ? "data: {\"id\":\"chatcmpl-%s\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"%s\","
          "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"%s\"},\"logprobs\":null,\"finish_reason\":%s,"
          "\"stop_reason\":null,\"token_ids\":null}]%s}\n\n"
        : "data: {\"id\":\"cmpl-%s\",\"object\":\"text_completion\",\"created\":1700000000,\"model\":\"%s\","
          "\"choices\":[{\"index\":0,\"text\":\"%s\",\"logprobs\":null,\"finish_reason\":%s,\"stop_reason\":null,"
          "\"prompt_logprobs\":null,\"token_ids\":null,\"prompt_token_ids\":null}]%s}\n\n";
    return framed(to, head, sprintf(to + head + 5, form, r->id, model, text, finish, usage));
}

static void end_stream(struct peer *peer) {
    struct request *r = peer->request;
    char usage[128], to[EVENT_MAX];
    size_t n = 0;
    if (r->usage) {
        usage_json(r, r->emitted, usage, sizeof usage);
        n = framed(to, 0, sprintf(to + 5, "data: {\"id\":\"%s\",\"model\":\"%s\",\"choices\":[],%s}\n\n", r->id,
                                  MODEL[r->entry.model], usage));
    }
    n += (size_t)sprintf(to + n, "00e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n");
    peer->request = NULL;
    write_out(peer, to, n);
}

static void emit(struct peer *peer) {
    struct request *r = peer->request;
    uint32_t left = r->entry.max_tokens - r->emitted;
    uint32_t tokens = r->entry.model == TWO && left > 1 ? 2 : 1;
    char to[EVENT_MAX];
    size_t len = token_event(r, tokens, to);
    struct write *w = &r->writes[r->entry.writes++];
    w->due_ns = peer->due_ns;
    w->tokens = tokens;
    r->emitted += tokens;
    w->before_ns = now_ns();
    bool taken = write_out(peer, to, len);
    w->spent_ns = (uint32_t)(now_ns() - w->before_ns);
    r->entry.blocked += !taken;
    if (peer->dead) return;
    if (r->emitted < r->entry.max_tokens) { schedule(peer, next_due(r, peer->due_ns)); return; }
    unschedule(peer);
    end_stream(peer);
}

/* ---- reading */

static int model_of(const char *body) {
    const char *name = value_of(body, "\"model\"");
    for (int i = 0; name && i < MODELS; i++) {
        size_t n = strlen(MODEL[i]);
        if (!strncmp(name, MODEL[i], n) && name[n] == '"') return i;
    }
    return -1;
}

static void begin_stream(struct peer *peer, struct request *r, int64_t now) {
    r->writes = grown(NULL, r->entry.max_tokens * sizeof *r->writes);
    r->older = newest;
    newest = peer->request = r;
    int64_t due_ns = now + ttft_ns;
    schedule(peer, r->entry.model == ALIGNED ? next_due(r, due_ns) : due_ns);
}

static void complete(struct peer *peer, const char *head, const char *body, int64_t now) {
    int model = model_of(body);
    if (model < 0) { answer_json(peer, "404 Not Found", "{\"error\":{\"message\":\"no such model\"}}"); return; }
    struct request *r = grown(NULL, sizeof *r);
    memset(r, 0, sizeof *r);
    r->chat = strncmp(head, "POST /v1/chat/", 14) == 0;
    const char *limit = value_of(body, r->chat && strstr(body, "\"max_completion_tokens\"") ? "\"max_completion_tokens\"" : "\"max_tokens\"");
    const char *id = strcasestr(head, "\r\nX-Request-Id:");
    size_t id_len = 0;
    if (id) id += 15 + strspn(id + 15, " ");
    if (id) id_len = strcspn(id, "\r");
    if (id_len >= ID_MAX) id_len = ID_MAX - 1;
    memcpy(r->id, id ? id : "", id_len);
    int asked = limit ? atoi(limit) : 16;
    r->entry = (struct entry){.received_ns = now, .id_bytes = (uint32_t)id_len, .model = (uint32_t)model,
                              .max_tokens = (uint32_t)(asked > 0 ? asked : 1),
                              .prompt_tokens = words(value_of(body, r->chat ? "\"content\"" : "\"prompt\""))};
    r->seed = seed_of(r->id);
    r->usage = is_true(body, "\"include_usage\"");
    r->continuous = is_true(body, "\"continuous_usage_stats\"");
    if (is_true(body, "\"stream\"")) { begin_stream(peer, r, now); return; }
    char usage[128], all[512]; /* all at once, and not in the log: a client that asks what this server can do */
    usage_json(r, r->entry.max_tokens, usage, sizeof usage);
    snprintf(all, sizeof all, "{\"id\":\"cmpl-0\",\"model\":\"%s\",\"choices\":[{\"index\":0,\"text\":\" tok\",\"message\":"
             "{\"role\":\"assistant\",\"content\":\" tok\"},\"finish_reason\":\"length\"}],%s}", MODEL[model], usage);
    free(r);
    answer_json(peer, "200 OK", all);
}

static void send_log(struct peer *peer) {
    char *log = NULL;
    size_t len = 0;
    FILE *to = open_memstream(&log, &len);
    for (struct request *r = newest; to && r; r = r->older) {
        fwrite(&r->entry, sizeof r->entry, 1, to);
        fwrite(r->id, 1, (r->entry.id_bytes + 7) & ~7u, to);
        fwrite(r->writes, sizeof *r->writes, r->entry.writes, to);
    }
    if (!to || fclose(to)) fail("log");
    answer(peer, "200 OK", "application/octet-stream", log, len);
    free(log);
}

static void clear_log(struct peer *peer) {
    if (heap_len) { answer_json(peer, "409 Conflict", "{\"error\":{\"message\":\"streams are running\"}}"); return; }
    while (newest) {
        struct request *gone = newest;
        newest = gone->older;
        free(gone->writes);
        free(gone);
    }
    answer_json(peer, "200 OK", "{\"status\":\"ok\"}");
}

static void list_models(struct peer *peer) {
    char all[1024] = "{\"object\":\"list\",\"data\":[";
    for (int i = 0; i < MODELS; i++)
        sprintf(all + strlen(all), "%s{\"id\":\"%s\",\"object\":\"model\",\"max_model_len\":131072}", i ? "," : "", MODEL[i]);
    answer_json(peer, "200 OK", strcat(all, "]}"));
}

static void take_request(struct peer *peer, const char *head, const char *body, int64_t now) {
    if (!strncmp(head, "POST /v1/completions ", 21) || !strncmp(head, "POST /v1/chat/completions ", 26))
        complete(peer, head, body, now);
    else if (!strncmp(head, "GET /v1/models", 14)) list_models(peer);
    else if (!strncmp(head, "GET /log ", 9)) send_log(peer);
    else if (!strncmp(head, "GET /clear ", 11)) clear_log(peer);
    else if (!strncmp(head, "GET /health ", 12)) answer_json(peer, "200 OK", "{\"status\":\"ok\"}");
    else answer_json(peer, "404 Not Found", "{\"error\":{\"message\":\"no such path\"}}");
}

static void readable(struct peer *peer) {
    if (peer->in_cap - peer->in_len < 65536) peer->in = grown(peer->in, peer->in_cap = 2 * peer->in_cap + 131072);
    int64_t now;
    ssize_t got = stamped_read(peer->fd, peer->in + peer->in_len, peer->in_cap - peer->in_len - 1, &now);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0 || peer->in_len > REQUEST_MAX) { bury(peer); return; }
    peer->in[peer->in_len += (size_t)got] = 0;
    while (!peer->dead && !peer->request) {
        char *blank = strstr(peer->in, "\r\n\r\n");
        if (!blank) return;
        *blank = 0; /* the head alone is searched for headers */
        const char *length = strcasestr(peer->in, "\r\nContent-Length:");
        size_t body_len = length ? strtoul(length + 17, NULL, 10) : 0, whole = (size_t)(blank + 4 - peer->in) + body_len;
        if (peer->in_len < whole) { *blank = '\r'; return; }
        char after = peer->in[whole];
        peer->in[whole] = 0;
        take_request(peer, peer->in, blank + 4, now);
        peer->in[whole] = after;
        memmove(peer->in, peer->in + whole, (peer->in_len -= whole) + 1);
    }
}

static void accept_all(void) {
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        struct peer *peer = grown(NULL, sizeof *peer);
        *peer = (struct peer){.fd = fd, .place = -1};
        watch(peer, EPOLLIN, EPOLL_CTL_ADD);
    }
}

static void bury_for_good(void) {
    while (graves) {
        struct peer *gone = graveyard[--graves];
        free(gone->in);
        free(gone->out);
        free(gone);
    }
}

static void take_news(int64_t wait_ns) {
    struct timespec wait = {wait_ns / 1000000000, wait_ns % 1000000000};
    struct epoll_event news[NEWS];
    int n = epoll_pwait2(epoll_fd, news, NEWS, wait_ns < 0 ? NULL : &wait, NULL);
    for (int i = 0; i < n; i++) {
        struct peer *peer = news[i].data.ptr;
        if (peer == (void *)&listener) accept_all();
        else if (peer == NULL) { char byte; if (read(0, &byte, 1) <= 0) exit(0); }
        else {
            if (!peer->dead && news[i].events & EPOLLOUT) flush_out(peer);
            if (!peer->dead && news[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) readable(peer);
        }
    }
    bury_for_good();
}

int main(int argc, char **argv) {
    if (argc != 3 || (ttft_ns = atoll(argv[1]) * 1000) < 0 || (gap_ns = atoll(argv[2]) * 1000) < 1) {
        fprintf(stderr, "usage: %s TTFT_US GAP_US\n", argv[0]);
        return 2;
    }
    prctl(PR_SET_TIMERSLACK, 1UL); /* else the kernel may wake us 50 us late */
    struct rlimit files;
    if (!getrlimit(RLIMIT_NOFILE, &files)) { files.rlim_cur = files.rlim_max; setrlimit(RLIMIT_NOFILE, &files); }
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof here;
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (setsockopt(listener, SOL_SOCKET, SO_TIMESTAMPNS, &(int){1}, sizeof(int))) fail("SO_TIMESTAMPNS"); /* inherited */
    if (bind(listener, (struct sockaddr *)&here, size) || listen(listener, 4096)) fail("listen");
    if (getsockname(listener, (struct sockaddr *)&here, &size)) fail("getsockname");
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event on_accept = {.events = EPOLLIN, .data.ptr = &listener}, on_stdin = {.events = EPOLLIN};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &on_accept)) fail("epoll_ctl");
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, 0, &on_stdin)) fail("stdin must be a pipe");
    printf("%d\n", ntohs(here.sin_port));
    fflush(stdout);
    for (;;) {
        int64_t wait_ns = heap_len ? heap[0]->due_ns - now_ns() : -1;
        take_news(heap_len && wait_ns < 0 ? 0 : wait_ns);
        for (int i = 0; i < WRITES_BEFORE_NEWS && heap_len && heap[0]->due_ns <= now_ns(); i++) emit(heap[0]);
    }
}

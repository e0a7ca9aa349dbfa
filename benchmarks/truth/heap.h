/* The connections with something due, the earliest on top: a binary heap in which each knows its place. */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

struct peer {
    int fd;
    int place;         /* in the heap, -1: nothing is due */
    int64_t due_ns;
    struct request *request;
    char *in, *out;    /* what came and is not answered; what the socket did not take */
    size_t in_len, in_cap, out_len;
    bool dead;
};

static struct peer **heap;
static int heap_len, heap_cap;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void *grown(void *old, size_t size) {
    void *got = realloc(old, size);
    if (!got) fail("memory");
    return got;
}

static void put(struct peer *peer, int at) {
    heap[at] = peer;
    peer->place = at;
}

static void settle(int at) {
    struct peer *peer = heap[at];
    for (int up; at > 0 && heap[up = (at - 1) / 2]->due_ns > peer->due_ns; at = up) put(heap[up], at);
    for (int down; (down = 2 * at + 1) < heap_len; at = down) {
        if (down + 1 < heap_len && heap[down + 1]->due_ns < heap[down]->due_ns) down++;
        if (heap[down]->due_ns >= peer->due_ns) break;
        put(heap[down], at);
    }
    put(peer, at);
}

static void schedule(struct peer *peer, int64_t due_ns) {
    peer->due_ns = due_ns;
    if (peer->place < 0) {
        if (heap_len == heap_cap) heap = grown(heap, (heap_cap = 2 * heap_cap + 64) * sizeof *heap);
        put(peer, heap_len++);
    }
    settle(peer->place);
}

static void unschedule(struct peer *peer) {
    int at = peer->place;
    if (at < 0) return;
    peer->place = -1;
    if (at == --heap_len) return;
    put(heap[heap_len], at);
    settle(at);
}

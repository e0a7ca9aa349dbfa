/* Instants, and what is read: bytes with the kernel's receive stamp, and the few fields of a JSON body that matter. */
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* Reads, and says when the kernel got it: a request counts from there, however late this process comes to read it. */
static ssize_t stamped_read(int fd, char *to, size_t room, int64_t *at_ns) {
    char space[CMSG_SPACE(sizeof(struct timespec))];
    struct iovec part = {to, room};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    ssize_t got = recvmsg(fd, &message, MSG_DONTWAIT);
    struct timespec wall, stamp;
    clock_gettime(CLOCK_REALTIME, &wall);
    *at_ns = now_ns();
    struct cmsghdr *found = got > 0 ? CMSG_FIRSTHDR(&message) : NULL;
    if (!found || found->cmsg_type != SO_TIMESTAMPNS) return got;
    memcpy(&stamp, CMSG_DATA(found), sizeof stamp);
    *at_ns -= (wall.tv_sec - stamp.tv_sec) * 1000000000LL + wall.tv_nsec - stamp.tv_nsec;
    return got;
}

static const char *value_of(const char *json, const char *key) { /* what follows "key": */
    const char *at = strstr(json, key);
    if (!at) return NULL;
    return at + strlen(key) + strspn(at + strlen(key), " :\"");
}

static bool is_true(const char *json, const char *key) {
    const char *value = value_of(json, key);
    return value && *value == 't';
}

static uint32_t words(const char *at) { /* in a JSON string */
    uint32_t count = 0;
    bool inside = false;
    for (; at && *at && *at != '"'; at++) {
        if (*at == '\\' && at[1]) at++;
        count += *at != ' ' && !inside;
        inside = *at != ' ';
    }
    return count;
}

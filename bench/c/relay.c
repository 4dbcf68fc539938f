/* relay PORT: the floor. Bytes from each client to loopback's PORT and back, by epoll, without looking at them.
 *
 * One receive and one send for whatever has come, and a share of one epoll_wait: a process between two others cannot
 * do with less. What a slow side does not take is kept, and until it is taken the other side is not read.
 */
#include "common.h"

#define READ (64 << 10)

struct end {
    int fd;
    struct end *other;
    char *kept; /* what this side has not taken yet */
    size_t kept_at, kept_size;
    bool said_all; /* this side has sent its last byte */
    bool gone;
    struct end *next_gone;
};

static int epoll;
static struct end *graves; /* freed when the events at hand are done with: they may still name them */

static void listen_to(struct end *end) {
    bool reads = !end->said_all && !end->other->kept_size;
    watch_fd(epoll, EPOLL_CTL_MOD, end->fd, (reads ? EPOLLIN : 0) | (end->kept_size ? EPOLLOUT : 0), end);
}

static void leave(struct end *end) {
    struct end *both[] = {end, end->other};
    for (int i = 0; i < 2; i++) {
        if (both[i]->gone) continue;
        both[i]->gone = true;
        close(both[i]->fd);
        both[i]->next_gone = graves;
        graves = both[i];
    }
}

/* Send to a side. What it does not take is kept. False: it is gone. */
static bool give(struct end *end, const char *data, size_t size) {
    ssize_t took = send(end->fd, data, size, MSG_NOSIGNAL);
    if (took < 0 && errno != EAGAIN) return false;
    size_t rest = size - (size_t)(took > 0 ? took : 0);
    if (rest) {
        end->kept = need(malloc(rest));
        memcpy(end->kept, data + size - rest, rest);
        end->kept_at = 0;
        end->kept_size = rest;
        listen_to(end);
        listen_to(end->other);
    }
    return true;
}

static bool give_kept(struct end *end) {
    ssize_t took = send(end->fd, end->kept + end->kept_at, end->kept_size, MSG_NOSIGNAL);
    if (took < 0) return errno == EAGAIN;
    end->kept_at += (size_t)took;
    end->kept_size -= (size_t)took;
    if (!end->kept_size) {
        free(end->kept);
        end->kept = NULL;
        if (end->other->said_all) shutdown(end->fd, SHUT_WR);
        listen_to(end);
        listen_to(end->other);
    }
    return true;
}

static bool relay(struct end *end) {
    static char buffer[READ];
    ssize_t got = recv(end->fd, buffer, sizeof buffer, 0);
    if (got < 0) return errno == EAGAIN;
    if (got > 0) return give(end->other, buffer, (size_t)got);
    end->said_all = true;
    if (end->other->said_all) return false;
    if (!end->other->kept_size) shutdown(end->other->fd, SHUT_WR);
    listen_to(end);
    return true;
}

static void accept_all(int listener, int port) {
    for (;;) {
        int near = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (near < 0) return;
        struct sockaddr_in address = loopback(port);
        int far = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (far < 0 || connect(far, (struct sockaddr *)&address, sizeof address)) {
            close(near);
            if (far >= 0) close(far);
            continue;
        }
        fcntl(far, F_SETFL, O_NONBLOCK);
        struct end *ends[] = {need(calloc(1, sizeof(struct end))), need(calloc(1, sizeof(struct end)))};
        for (int i = 0; i < 2; i++) {
            ends[i]->fd = i ? far : near;
            ends[i]->other = ends[!i];
            no_delay(ends[i]->fd);
            watch_fd(epoll, EPOLL_CTL_ADD, ends[i]->fd, EPOLLIN, ends[i]);
        }
    }
}

int main(int count, char **words) {
    if (count != 2) die("usage: relay PORT");
    raise_file_limit();
    epoll = epoll_create1(EPOLL_CLOEXEC);
    int listener = listen_and_say(0);
    watch_fd(epoll, EPOLL_CTL_ADD, listener, EPOLLIN, NULL);
    for (;;) {
        struct epoll_event events[256];
        int ready = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < ready; i++) {
            struct end *end = events[i].data.ptr;
            if (!end) {
                accept_all(listener, atoi(words[1]));
                continue;
            }
            if (end->gone) continue;
            bool well = !(events[i].events & EPOLLERR);
            if (well && events[i].events & EPOLLOUT && end->kept_size) well = give_kept(end);
            if (well && events[i].events & EPOLLIN) well = relay(end);
            if (well && events[i].events == EPOLLHUP) well = false;
            if (!well) leave(end);
        }
        while (graves) {
            struct end *end = graves;
            graves = end->next_gone;
            free(end->kept);
            free(end);
        }
    }
}

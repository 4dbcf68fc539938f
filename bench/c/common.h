/* What the three programs share: the clock, sockets of loopback, and how they give up.
 *
 * Linux only (epoll, process CPU clocks); bench/compiled.py says so elsewhere.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000ull

/* A token's text: '@', six digits of its number, ':', twelve digits of the clock, ' '. Twelve digits of nanoseconds
 * are 1,000 seconds: enough to tell how long a token was under way, whatever the machine's uptime. */
#define TOKEN_SIZE 21
#define NUMBER_DIGITS 6
#define STAMP_DIGITS 12
#define STAMP_MODULUS 1000000000000ull

__attribute__((noreturn, format(printf, 1, 2))) static inline void die(const char *words, ...) {
    va_list rest;
    va_start(rest, words);
    vfprintf(stderr, words, rest);
    va_end(rest);
    fputc('\n', stderr);
    exit(2);
}

/* CLOCK_MONOTONIC in nanoseconds: the same clock in every process of a machine. */
static inline uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

static inline void *need(void *memory) {
    if (!memory) die("out of memory");
    return memory;
}

static inline void no_delay(int fd) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static inline struct sockaddr_in loopback(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

/* Listen on a port (0: one that the system chooses), and say which on stdout. */
static inline int listen_and_say(int port) {
    struct sockaddr_in address = loopback(port);
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) || listen(fd, 4096)) die("listen: %s", strerror(errno));
    if (getsockname(fd, (struct sockaddr *)&address, &size)) die("getsockname: %s", strerror(errno));
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

/* As many open files as the system lets us have. */
static inline void raise_file_limit(void) {
    struct rlimit limit;
    if (!getrlimit(RLIMIT_NOFILE, &limit)) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static inline void watch_fd(int epoll, int how, int fd, uint32_t events, void *what) {
    struct epoll_event event = {.events = events, .data.ptr = what};
    if (epoll_ctl(epoll, how, fd, &event)) die("epoll_ctl: %s", strerror(errno));
}

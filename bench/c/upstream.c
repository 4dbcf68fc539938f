/* upstream ROUTES PORT [CERTIFICATE]: an HTTP/1.1 upstream that replays prepared bytes by the clock.
 *
 * ROUTES (written by bench/scripts.py) says what is answered: whole answers, and streams made of a beginning, a token
 * that is repeated, and an end, all framed already. A request for a stream says in its body how many tokens it wants
 * and how many microseconds lie between two: "[[bench:COUNT,PERIOD]]". In each token its number and the clock are
 * written, and, where it is a frame of an event stream, its checksum. Tokens without a pause are written out once and
 * remembered: they then cost one send a buffer.
 *
 * A token is due PERIOD after the one before it, whatever happened to that: who is late does not slow the pace. What
 * is due at one time goes out at once, and how late that was is told by "GET /bench/late".
 *
 * With a certificate (PEM, its key in the same file) it speaks TLS, one record a send.
 */
#include "common.h"
#include <poll.h>
#include <sys/prctl.h>
#ifdef WITH_TLS
#include <openssl/err.h>
#include <openssl/ssl.h>
#else
typedef void SSL;
#endif

#define READ (64 << 10)
#define MOST_REQUEST (16 << 20)
#define MOST_DUE 64 /* tokens of one stream in one send */

/* --- what is answered --------------------------------------------------------------------------------------------- */

struct text {
    char *data;
    size_t size;
};

struct route {
    uint32_t stream;     /* 0: `begin` is the whole answer */
    uint32_t number_at;  /* where in `token` the number stands; ':' and the clock follow it */
    uint32_t summed_at;  /* where in `token` the checksummed bytes begin */
    uint32_t sum_at;     /* where the checksum stands, which is where they end; 0: there is none */
    struct text what;    /* "POST /path" */
    struct text begin, token, end;
};

static struct route *routes;
static size_t route_count;

static uint32_t read_number(FILE *file) {
    unsigned char b[4];
    if (fread(b, 1, 4, file) != 4) die("the routes break off");
    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static struct text read_text(FILE *file) {
    struct text text = {.size = read_number(file)};
    text.data = need(malloc(text.size + 1));
    if (fread(text.data, 1, text.size, file) != text.size) die("the routes break off");
    text.data[text.size] = 0;
    return text;
}

static void read_routes(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) die("%s: %s", path, strerror(errno));
    route_count = read_number(file);
    routes = need(calloc(route_count, sizeof *routes));
    for (size_t i = 0; i < route_count; i++) {
        struct route *route = &routes[i];
        route->stream = read_number(file);
        route->number_at = read_number(file);
        route->summed_at = read_number(file);
        route->sum_at = read_number(file);
        route->what = read_text(file);
        route->begin = read_text(file);
        route->token = read_text(file);
        route->end = read_text(file);
    }
    fclose(file);
}

static const struct route *route_of(const char *head, size_t size) {
    for (size_t i = 0; i < route_count; i++) {
        size_t length = routes[i].what.size;
        if (size > length && !memcmp(head, routes[i].what.data, length) && strchr(" ?", head[length])) return &routes[i];
    }
    return NULL;
}

/* --- tokens ------------------------------------------------------------------------------------------------------- */

static uint32_t crc_table[8][256];

static void make_crc_table(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
        crc_table[0][i] = crc;
    }
    for (uint32_t i = 0; i < 256; i++)
        for (int k = 1; k < 8; k++) crc_table[k][i] = crc_table[k - 1][i] >> 8 ^ crc_table[0][crc_table[k - 1][i] & 255];
}

/* CRC-32 as in zlib, eight bytes a step. */
static uint32_t crc32_of(const unsigned char *data, size_t size) {
    uint32_t crc = ~0u;
    for (; size >= 8; data += 8, size -= 8) {
        uint32_t low = crc ^ ((uint32_t)data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16 | (uint32_t)data[3] << 24);
        crc = crc_table[7][low & 255] ^ crc_table[6][low >> 8 & 255] ^ crc_table[5][low >> 16 & 255] ^
              crc_table[4][low >> 24] ^ crc_table[3][data[4]] ^ crc_table[2][data[5]] ^ crc_table[1][data[6]] ^
              crc_table[0][data[7]];
    }
    while (size--) crc = crc >> 8 ^ crc_table[0][(crc ^ *data++) & 255];
    return ~crc;
}

static void write_digits(char *end, int digits, uint64_t number) {
    for (; digits--; number /= 10) *--end = (char)('0' + number % 10);
}

/* Write a token where there is room for it. */
static void write_token(char *out, const struct route *route, uint64_t number, uint64_t stamp) {
    memcpy(out, route->token.data, route->token.size);
    char *at = out + route->number_at;
    write_digits(at + NUMBER_DIGITS, NUMBER_DIGITS, number);
    write_digits(at + NUMBER_DIGITS + 1 + STAMP_DIGITS, STAMP_DIGITS, stamp % STAMP_MODULUS);
    if (route->sum_at) {
        uint32_t crc = crc32_of((unsigned char *)out + route->summed_at, route->sum_at - route->summed_at);
        for (int i = 0; i < 4; i++) out[route->sum_at + i] = (char)(crc >> (24 - 8 * i));
    }
}

struct answer {
    const struct route *route;
    uint64_t count;
    struct text text;
    struct answer *next;
};

/* A whole answer without pauses, written out once. */
static const struct text *answer_of(const struct route *route, uint64_t count) {
    static struct answer *known;
    for (struct answer *each = known; each; each = each->next)
        if (each->route == route && each->count == count) return &each->text;
    struct answer *made = need(calloc(1, sizeof *made));
    made->route = route;
    made->count = count;
    made->text.size = route->begin.size + count * route->token.size + route->end.size;
    char *out = made->text.data = need(malloc(made->text.size));
    out = mempcpy(out, route->begin.data, route->begin.size);
    for (uint64_t n = 0; n < count; n++, out += route->token.size) write_token(out, route, n, 0);
    memcpy(out, route->end.data, route->end.size);
    made->next = known;
    known = made;
    return &made->text;
}

/* --- connections -------------------------------------------------------------------------------------------------- */

struct connection {
    int fd;
    SSL *ssl;
    bool gone, closing;
    struct connection *next_gone;
    char *in;
    size_t in_size, in_room;
    const struct route *route; /* of the stream under way */
    uint64_t count, sent, period, due;
    size_t heap_at; /* 1-based; 0: not waiting for its time */
    const char *out; /* what the client has not taken yet */
    char *out_owned;
    size_t out_size;
};

static int epoll;
static struct connection *graves;
static struct {
    uint64_t sends, tokens, late_sum, late_max;
} late;

/* The connections whose next token is not due yet, the next one first: a binary heap. */
static struct connection **heap;
static size_t heap_size, heap_room;

static void heap_put(size_t at, struct connection *it) {
    heap[at] = it;
    it->heap_at = at;
}

static void heap_sift(size_t at) {
    struct connection *it = heap[at];
    for (; at > 1 && heap[at / 2]->due > it->due; at /= 2) heap_put(at, heap[at / 2]);
    for (;;) {
        size_t child = at * 2;
        if (child > heap_size) break;
        if (child < heap_size && heap[child + 1]->due < heap[child]->due) child++;
        if (heap[child]->due >= it->due) break;
        heap_put(at, heap[child]);
        at = child;
    }
    heap_put(at, it);
}

static void heap_add(struct connection *it) {
    if (heap_size + 2 > heap_room) {
        heap_room = heap_room ? heap_room * 2 : 1024;
        heap = need(realloc(heap, heap_room * sizeof *heap));
    }
    heap_put(++heap_size, it);
    heap_sift(heap_size);
}

static void heap_remove(struct connection *it) {
    size_t at = it->heap_at;
    if (!at) return;
    it->heap_at = 0;
    struct connection *last = heap[heap_size--];
    if (last != it) {
        heap_put(at, last);
        heap_sift(at);
    }
}

static void leave(struct connection *it) {
    if (it->gone) return;
    it->gone = true;
    heap_remove(it);
#ifdef WITH_TLS
    if (it->ssl) SSL_free(it->ssl);
#endif
    close(it->fd);
    it->next_gone = graves;
    graves = it;
}

enum { WOULD_BLOCK = -1, BROKEN = -2 };

#ifdef WITH_TLS
static ssize_t tls_result(struct connection *it, int got) {
    if (got > 0) return got;
    int why = SSL_get_error(it->ssl, got);
    ERR_clear_error();
    if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE) return WOULD_BLOCK;
    return why == SSL_ERROR_ZERO_RETURN ? 0 : BROKEN;
}
#endif

static ssize_t take(struct connection *it, char *data, size_t size) {
#ifdef WITH_TLS
    if (it->ssl) return tls_result(it, SSL_read(it->ssl, data, (int)size));
#endif
    ssize_t got = recv(it->fd, data, size, 0);
    return got >= 0 ? got : errno == EAGAIN ? WOULD_BLOCK : BROKEN;
}

static ssize_t give(struct connection *it, const char *data, size_t size) {
#ifdef WITH_TLS
    if (it->ssl) return tls_result(it, SSL_write(it->ssl, data, (int)(size > (1 << 30) ? 1 << 30 : size)));
#endif
    ssize_t took = send(it->fd, data, size, MSG_NOSIGNAL);
    return took >= 0 ? took : errno == EAGAIN ? WOULD_BLOCK : BROKEN;
}

/* Send as much as goes. False: the connection is gone. */
static bool push(struct connection *it) {
    while (it->out_size) {
        ssize_t took = give(it, it->out, it->out_size);
        if (took == WOULD_BLOCK) break;
        if (took <= 0) return false;
        it->out += took;
        it->out_size -= (size_t)took;
    }
    if (!it->out_size && it->out_owned) {
        free(it->out_owned);
        it->out_owned = NULL;
    }
    return true;
}

/* Send bytes that last (`owned` false) or that have to be copied if they are not taken at once. */
static bool send_all(struct connection *it, const char *data, size_t size, bool lasting) {
    if (it->out_size) { /* behind what waits already */
        char *both = need(malloc(it->out_size + size));
        memcpy(mempcpy(both, it->out, it->out_size), data, size);
        free(it->out_owned);
        it->out = it->out_owned = both;
        it->out_size += size;
        return true;
    }
    it->out = data;
    it->out_size = size;
    if (!push(it)) return false;
    if (it->out_size) {
        if (!lasting) {
            it->out_owned = need(malloc(it->out_size));
            it->out = memcpy(it->out_owned, it->out, it->out_size);
        }
        watch_fd(epoll, EPOLL_CTL_MOD, it->fd, EPOLLIN | EPOLLOUT, it);
    }
    return true;
}

/* --- requests ----------------------------------------------------------------------------------------------------- */

static bool say(struct connection *it, int status, const char *body) {
    char answer[1024];
    int size = snprintf(answer, sizeof answer, "HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n%s",
                        status, status == 200 ? "OK" : "Refused", strlen(body), body);
    return send_all(it, answer, (size_t)size, false);
}

static bool say_late(struct connection *it) {
    char body[256];
    snprintf(body, sizeof body, "{\"sends\":%llu,\"tokens\":%llu,\"late_mean_us\":%.3f,\"late_max_us\":%.3f}",
             (unsigned long long)late.sends, (unsigned long long)late.tokens,
             late.sends ? (double)late.late_sum / (double)late.sends / 1e3 : 0.0, (double)late.late_max / 1e3);
    memset(&late, 0, sizeof late);
    return say(it, 200, body);
}

/* The last "[[bench:COUNT,PERIOD]]" of a body. */
static bool read_directive(const char *body, size_t size, uint64_t *count, uint64_t *period) {
    static const char opens[] = "[[bench:";
    const char *found = NULL, *at = body;
    while ((at = memmem(at, size - (size_t)(at - body), opens, sizeof opens - 1))) found = at++;
    unsigned long long wanted, pause;
    if (!found || sscanf(found + sizeof opens - 1, "%llu,%llu]]", &wanted, &pause) != 2 || wanted > 999999) return false;
    *count = wanted;
    *period = pause * 1000;
    return true;
}

/* The request whose bytes are `head` and `body`. False: the connection is gone. */
static bool answer(struct connection *it, const char *head, size_t head_size, const char *body, size_t body_size) {
    if (!strncmp(head, "GET /bench/late ", 16)) return say_late(it);
    const struct route *route = route_of(head, head_size);
    if (!route) return say(it, 404, "{\"message\":\"the bench's upstream knows no such path\"}");
    if (!route->stream) return send_all(it, route->begin.data, route->begin.size, true);
    uint64_t count, period;
    if (!read_directive(body, body_size, &count, &period))
        return say(it, 400, "{\"message\":\"the body has to say [[bench:COUNT,PERIOD]]\"}");
    if (!period) {
        const struct text *whole = answer_of(route, count);
        return send_all(it, whole->data, whole->size, true);
    }
    it->route = route;
    it->count = count;
    it->period = period;
    it->sent = 0;
    it->due = now_ns();
    if (!send_all(it, route->begin.data, route->begin.size, true)) return false;
    heap_add(it);
    return true;
}

/* As many requests as are whole, one after the other. False: the connection is gone. */
static bool answer_all(struct connection *it) {
    while (!it->route && it->in_size) {
        char *end = memmem(it->in, it->in_size, "\r\n\r\n", 4);
        if (!end) break;
        *end = 0; /* a string, for strcasestr */
        size_t head_size = (size_t)(end - it->in) + 4, body_size = 0;
        const char *length = strcasestr(it->in, "\r\ncontent-length:");
        if (length) body_size = strtoul(length + 17, NULL, 10);
        bool chunked = strcasestr(it->in, "\r\ntransfer-encoding:") != NULL;
        it->closing = strcasestr(it->in, "\r\nconnection: close") != NULL;
        *end = '\r';
        if (chunked) return false; /* no client of ours sends one */
        if (it->in_size < head_size + body_size) break;
        if (!answer(it, it->in, head_size, it->in + head_size, body_size)) return false;
        it->in_size -= head_size + body_size;
        memmove(it->in, it->in + head_size + body_size, it->in_size);
        if (it->closing && !it->route && !it->out_size) return false;
    }
    return true;
}

static bool hear(struct connection *it) {
    for (;;) {
        if (it->in_room - it->in_size < READ) {
            if (it->in_size > MOST_REQUEST) return false;
            it->in_room = it->in_size + 2 * READ;
            it->in = need(realloc(it->in, it->in_room));
        }
        ssize_t got = take(it, it->in + it->in_size, READ);
        if (got == WOULD_BLOCK) break;
        if (got <= 0) return false;
        it->in_size += (size_t)got;
    }
    if (!answer_all(it)) return false;
    if (!it->in_size && it->in_room > 4 * READ) {
        free(it->in);
        it->in = NULL;
        it->in_room = 0;
    }
    return true;
}

/* Send what is due on one connection. */
static bool tick(struct connection *it) {
    static char *batch;
    static size_t batch_room;
    const struct route *route = it->route;
    size_t room = MOST_DUE * route->token.size + route->end.size;
    if (batch_room < room) batch = need(realloc(batch, batch_room = room));
    uint64_t now = now_ns(), lag = now - it->due;
    late.sends++;
    late.late_sum += lag;
    if (lag > late.late_max) late.late_max = lag;
    char *out = batch;
    for (int n = 0; n < MOST_DUE && it->sent < it->count && it->due <= now; n++) {
        write_token(out, route, it->sent++, now);
        out += route->token.size;
        it->due += it->period;
        late.tokens++;
    }
    if (it->sent == it->count) {
        out = mempcpy(out, route->end.data, route->end.size);
        heap_remove(it);
        it->route = NULL;
    } else {
        heap_sift(it->heap_at);
    }
    if (!send_all(it, batch, (size_t)(out - batch), false)) return false;
    if (it->route) return true;
    if (it->closing && !it->out_size) return false;
    return answer_all(it);
}

/* --- the loop ----------------------------------------------------------------------------------------------------- */

#ifdef WITH_TLS
static SSL_CTX *context;

static void read_certificate(const char *path) {
    context = SSL_CTX_new(TLS_server_method());
    if (!context || SSL_CTX_use_certificate_chain_file(context, path) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, path, SSL_FILETYPE_PEM) != 1)
        die("%s: %s", path, ERR_error_string(ERR_get_error(), NULL));
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
}
#endif

static void accept_all(int listener) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) return;
        no_delay(fd);
        struct connection *it = need(calloc(1, sizeof *it));
        it->fd = fd;
#ifdef WITH_TLS
        if (context) {
            it->ssl = need(SSL_new(context));
            SSL_set_fd(it->ssl, fd);
            SSL_set_accept_state(it->ssl);
        }
#endif
        watch_fd(epoll, EPOLL_CTL_ADD, fd, EPOLLIN, it);
    }
}

static void serve(struct connection *it, uint32_t events) {
    bool well = !(events & EPOLLERR);
    if (well && events & EPOLLOUT && it->out_size) {
        well = push(it);
        if (well && !it->out_size) {
            watch_fd(epoll, EPOLL_CTL_MOD, it->fd, EPOLLIN, it);
            well = !(it->closing && !it->route) && answer_all(it);
        }
    }
    if (well && events & (EPOLLIN | EPOLLHUP)) well = hear(it);
    if (!well) leave(it);
}

/* Wait until something is ready or the next token is due, to the microsecond: epoll_wait alone knows milliseconds. */
static int wait_for(struct epoll_event *events, int most) {
    uint64_t now = heap_size ? now_ns() : 0;
    if (!heap_size) return epoll_wait(epoll, events, most, -1);
    if (heap[1]->due > now) {
        uint64_t rest = heap[1]->due - now;
        struct timespec pause = {.tv_sec = (time_t)(rest / SECOND), .tv_nsec = (long)(rest % SECOND)};
        struct pollfd one = {.fd = epoll, .events = POLLIN};
        if (ppoll(&one, 1, &pause, NULL) <= 0) return 0;
    }
    return epoll_wait(epoll, events, most, 0);
}

int main(int count, char **words) {
    if (count != 3 && count != 4) die("usage: upstream ROUTES PORT [CERTIFICATE]");
    make_crc_table();
    read_routes(words[1]);
    if (count == 4) {
#ifdef WITH_TLS
        read_certificate(words[3]);
#else
        die("compiled without TLS");
#endif
    }
    raise_file_limit();
    prctl(PR_SET_TIMERSLACK, 1);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    int listener = listen_and_say(atoi(words[2]));
    watch_fd(epoll, EPOLL_CTL_ADD, listener, EPOLLIN, NULL);
    for (;;) {
        struct epoll_event events[256];
        int ready = wait_for(events, 256);
        for (int i = 0; i < ready; i++) {
            struct connection *it = events[i].data.ptr;
            if (!it) accept_all(listener);
            else if (!it->gone) serve(it, events[i].events);
        }
        /* A bounded number of ticks, so that what is ready is looked at in between. */
        uint64_t now = heap_size ? now_ns() : 0;
        for (int n = 0; n < 256 && heap_size && heap[1]->due <= now; n++) {
            struct connection *it = heap[1];
            if (!tick(it)) leave(it);
        }
        while (graves) {
            struct connection *it = graves;
            graves = it->next_gone;
            free(it->out_owned);
            free(it->in);
            free(it);
        }
    }
}

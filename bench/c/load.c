/* load: the clients. One process, one epoll; it reads just enough of each answer to find the tokens.
 *
 *   load crowd --port P --dialect D --request FILE --tokens N --streams S --spread US --open US --last US [--grace US] [...]
 *   load loop  --port P --dialect D --request FILE --tokens N --streams S --count C --warm-up W [--fresh] [...]
 *
 * `crowd`: S streams at once, which begin at times drawn by --seed within --spread. What arrives in the window (--open
 * after the first, for --last) is measured; with --last 0 everything is, from the first request to the last byte. With
 * --grace, streams that are not whole so long after the window are left, and counted as "cut".
 * `loop`: S clients, each of which asks again as soon as it has its answer, C times together, after W that are not
 * measured; on one connection each, or on a new one for each request.
 *
 * FILE is a whole HTTP request. Each token has its number and the time it was sent (common.h); every answer is checked:
 * status 200, all tokens, in order, each once, the dialect's last event after them, and the end of the HTTP message. The
 * first wrong one ends the run with {"error": ...}. Tokens are found by their '@' behind the dialect's member name, in
 * the body with HTTP's chunks undone, so it does not matter how a gateway cuts its events, or writes its JSON.
 *
 * --watch NAME=PID,PID (repeatable): CPU time of these processes in the window, by their CPU clocks.
 */
#include "common.h"
#include <getopt.h>

#define READ (256 << 10)
#define LOOK_BACK 64 /* enough for `"content": "@` and for the longest last event */
#define HEAD_ROOM 8192

/* --- what is asked for -------------------------------------------------------------------------------------------- */

struct dialect {
    const char *name;
    const char *member; /* whose string the token is */
    const char *last;   /* in the last event */
};

static const struct dialect dialects[] = {
    {"kiro", "content", "meteringEvent"},
    {"messages", "text", "message_stop"},
    {"chat", "content", "[DONE]"},
    {"responses", "delta", "response.completed"},
};

static struct {
    int port;
    const struct dialect *dialect;
    char *request;
    size_t request_size;
    uint64_t tokens, streams, spread, opens, lasts, grace, count, warm_up, seed, deadline;
    bool loop, fresh;
} job = {.streams = 1, .count = 1, .seed = 1, .deadline = 60 * SECOND};

/* --- who is watched ----------------------------------------------------------------------------------------------- */

#define MOST_WATCHED 16
#define MOST_PIDS 64

static struct {
    const char *name;
    clockid_t clocks[MOST_PIDS];
    int count;
} watched[MOST_WATCHED];
static int watched_count;

static void watch(char *words) {
    if (watched_count == MOST_WATCHED) die("too many to watch");
    char *pids = strchr(words, '=');
    if (!pids) die("--watch needs NAME=PID");
    *pids++ = 0;
    watched[watched_count].name = words;
    for (char *pid = strtok(pids, ","); pid; pid = strtok(NULL, ",")) {
        int n = watched[watched_count].count++;
        if (n == MOST_PIDS) die("too many processes of %s", words);
        if (clock_getcpuclockid(atoi(pid), &watched[watched_count].clocks[n])) die("no process %s", pid);
    }
    watched_count++;
}

struct sample {
    uint64_t at, own, busy, cpu[MOST_WATCHED];
};

/* What all cores together have worked since boot: every process of the machine, to the tick. */
static uint64_t read_busy(void) {
    unsigned long long user = 0, nice = 0, system = 0, idle, wait, irq = 0, soft = 0;
    FILE *file = fopen("/proc/stat", "r");
    if (!file) return 0;
    if (fscanf(file, "cpu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &system, &idle, &wait, &irq, &soft) != 7) user = 0;
    fclose(file);
    return (user + nice + system + irq + soft) * (SECOND / (uint64_t)sysconf(_SC_CLK_TCK));
}

static uint64_t read_clock(clockid_t clock) {
    struct timespec t;
    return clock_gettime(clock, &t) ? 0 : (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

static struct sample take_sample(void) {
    struct sample sample = {.own = read_clock(CLOCK_PROCESS_CPUTIME_ID), .busy = read_busy()};
    for (int i = 0; i < watched_count; i++)
        for (int n = 0; n < watched[i].count; n++) sample.cpu[i] += read_clock(watched[i].clocks[n]);
    sample.at = now_ns();
    return sample;
}

/* --- figures ------------------------------------------------------------------------------------------------------ */

struct figures {
    uint64_t *values;
    size_t size, room;
};

static void note(struct figures *figures, uint64_t value) {
    if (figures->size == figures->room) {
        figures->room = figures->room ? figures->room * 2 : 4096;
        figures->values = need(realloc(figures->values, figures->room * sizeof *figures->values));
    }
    figures->values[figures->size++] = value;
}

static int by_size(const void *a, const void *b) {
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

static void print_figures(const char *name, struct figures *figures) {
    if (!figures->size) {
        printf(",\"%s\":null", name);
        return;
    }
    qsort(figures->values, figures->size, sizeof *figures->values, by_size);
    static const struct {
        const char *name;
        double share;
    } cuts[] = {{"p50", .5}, {"p99", .99}, {"p999", .999}, {"max", 1.0}};
    printf(",\"%s\":{\"count\":%zu", name, figures->size);
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        size_t at = (size_t)((double)figures->size * cuts[i].share);
        if (at >= figures->size) at = figures->size - 1;
        printf(",\"%s\":%.3f", cuts[i].name, (double)figures->values[at] / 1e3);
    }
    printf("}");
}

static struct sample first_sample, last_sample;
static struct figures latencies, firsts, wholes;
static uint64_t tokens_in_window, reads_in_window;
static bool window_open;

/* --- streams ------------------------------------------------------------------------------------------------------ */

enum framing { HEAD, CHUNK_SIZE, CHUNK, CHUNK_END, TRAILER, LENGTH, UNTIL_END, DONE };

struct stream {
    int fd;
    uint64_t number, starts, asked, first;
    size_t sent; /* of the request */
    bool measured, ended_early;
    enum framing framing;
    uint64_t left;  /* of the chunk, or of the body */
    uint64_t count; /* tokens so far */
    bool last_seen;
    size_t kept;        /* bytes of the body that are looked at again, in `keep` */
    size_t after;       /* where in them the search goes on */
    bool adjoining;     /* whether the last token ended exactly there */
    char keep[LOOK_BACK + TOKEN_SIZE];
    char *head; /* while it is not whole, and of a refusal */
    size_t head_size;
    char line[24]; /* a chunk's size */
    size_t line_size;
};

static int epoll;
static uint64_t unfinished, asked_count, done_count;

__attribute__((noreturn, format(printf, 2, 3))) static void wrong(const struct stream *it, const char *words, ...) {
    char said[2048];
    va_list rest;
    va_start(rest, words);
    vsnprintf(said, sizeof said, words, rest);
    va_end(rest);
    printf("{\"error\":\"stream %llu of %llu, after %llu of %llu tokens: ", (unsigned long long)it->number + 1,
           (unsigned long long)job.streams, (unsigned long long)it->count, (unsigned long long)job.tokens);
    for (unsigned char *c = (unsigned char *)said; *c; c++) {
        if (*c == '"' || *c == '\\') printf("\\%c", *c);
        else if (*c < 32 || *c > 126) printf("\\u%04x", *c);
        else putchar(*c);
    }
    printf("\"}\n");
    exit(1);
}

static bool is_space(char c) {
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* Whether the string that begins at `at` (behind its quote) is the value of the dialect's member. */
static bool is_member(const char *body, size_t at) {
    size_t size = strlen(job.dialect->member);
    if (at < size + 4 || body[at - 1] != '"') return false;
    at--;
    while (at && is_space(body[at - 1])) at--;
    if (!at || body[--at] != ':') return false;
    while (at && is_space(body[at - 1])) at--;
    return at > size + 1 && body[at - 1] == '"' && body[at - 2 - size] == '"' && !memcmp(body + at - 1 - size, job.dialect->member, size);
}

static uint64_t read_digits(const struct stream *it, const char *at, int digits) {
    uint64_t number = 0;
    while (digits--) {
        if (*at < '0' || *at > '9') wrong(it, "a token is not as it was sent: %.21s", at);
        number = number * 10 + (uint64_t)(*at++ - '0');
    }
    return number;
}

static void arrived(struct stream *it, const char *token, uint64_t now) {
    if (it->count == job.tokens) wrong(it, "one token more than there are: %.21s", token);
    if (read_digits(it, token + 1, NUMBER_DIGITS) != it->count) wrong(it, "a token is not the next one: %.21s", token);
    uint64_t stamp = read_digits(it, token + 2 + NUMBER_DIGITS, STAMP_DIGITS);
    if (!it->count++) it->first = now;
    if (window_open) {
        tokens_in_window++;
        if (stamp) note(&latencies, (now % STAMP_MODULUS + STAMP_MODULUS - stamp) % STAMP_MODULUS);
    }
}

/* The tokens in `size` bytes of body, of which the first `it->kept` were there before. What may be needed again is
 * kept. */
static void search(struct stream *it, const char *body, size_t size, uint64_t now) {
    size_t at = it->after, last_end = it->adjoining ? it->after : SIZE_MAX, again = size;
    const char *found;
    while (at < size && (found = memchr(body + at, '@', size - at))) {
        at = (size_t)(found - body);
        if (at + TOKEN_SIZE > size) {
            again = at;
            break;
        }
        if (at == last_end || is_member(body, at)) {
            arrived(it, found, now);
            at += TOKEN_SIZE;
            last_end = at;
        } else {
            at++;
        }
    }
    if (it->count == job.tokens && !it->last_seen)
        it->last_seen = memmem(body, size, job.dialect->last, strlen(job.dialect->last)) != NULL;
    size_t from = again > LOOK_BACK ? again - LOOK_BACK : 0;
    it->kept = size - from;
    memmove(it->keep, body + from, it->kept);
    it->after = again - from;
    it->adjoining = last_end == again;
}

/* Undo HTTP's framing of what was read, into `body`. Returns the end of what was written there. */
static char *unframe(struct stream *it, const char *data, size_t size, char *body) {
    const char *end = data + size;
    while (data < end && it->framing != DONE) {
        size_t rest = (size_t)(end - data);
        switch (it->framing) {
        case CHUNK:
        case LENGTH:
            if (rest > it->left) rest = it->left;
            body = mempcpy(body, data, rest);
            data += rest;
            it->left -= rest;
            if (!it->left) it->framing = it->framing == CHUNK ? CHUNK_END : DONE;
            break;
        case UNTIL_END:
            body = mempcpy(body, data, rest);
            data = end;
            break;
        case CHUNK_SIZE:
        case CHUNK_END:
        case TRAILER:
            if (*data != '\n') {
                if (*data != '\r') {
                    if (it->line_size + 1 == sizeof it->line) wrong(it, "a line of HTTP's framing is too long");
                    it->line[it->line_size++] = *data;
                }
                data++;
                break;
            }
            data++;
            it->line[it->line_size] = 0;
            if (it->framing == CHUNK_SIZE) {
                char *bad;
                it->left = strtoull(it->line, &bad, 16);
                if (!it->line_size || (*bad && *bad != ';')) wrong(it, "a chunk's size is %s", it->line);
                it->framing = it->left ? CHUNK : TRAILER;
            } else if (it->framing == CHUNK_END) {
                if (it->line_size) wrong(it, "a chunk does not end where it should");
                it->framing = CHUNK_SIZE;
            } else if (!it->line_size) {
                it->framing = DONE;
            }
            it->line_size = 0;
            break;
        default:
            return body;
        }
    }
    return body;
}

/* Take in the head. Returns how much of `data` it was; the head is whole when the framing is no longer HEAD. */
static size_t hear_head(struct stream *it, const char *data, size_t size) {
    if (!it->head) it->head = need(malloc(HEAD_ROOM + 1));
    size_t before = it->head_size, room = HEAD_ROOM - before;
    if (!room) wrong(it, "the answer's head is too long: %.500s", it->head);
    if (size > room) size = room;
    memcpy(it->head + before, data, size);
    it->head_size += size;
    it->head[it->head_size] = 0;
    if (it->head_size > 12 && memcmp(it->head + 8, " 200", 4)) wrong(it, "%.1500s", it->head);
    char *end = strstr(it->head, "\r\n\r\n");
    if (!end) return size;
    *end = 0;
    const char *length = strcasestr(it->head, "\r\ncontent-length:");
    if (strcasestr(it->head, "\r\ntransfer-encoding: chunked")) it->framing = CHUNK_SIZE;
    else if (length) it->framing = (it->left = strtoull(length + 17, NULL, 10)) ? LENGTH : DONE;
    else it->framing = UNTIL_END;
    size_t used = (size_t)(end - it->head) + 4 - before;
    free(it->head);
    it->head = NULL;
    it->head_size = 0;
    return used;
}

static void ask(struct stream *it) {
    if (it->fd < 0) {
        struct sockaddr_in address = loopback(job.port);
        it->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (it->fd < 0) wrong(it, "socket: %s", strerror(errno));
        no_delay(it->fd);
        it->asked = now_ns();
        if (connect(it->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS)
            wrong(it, "connect: %s", strerror(errno));
        watch_fd(epoll, EPOLL_CTL_ADD, it->fd, EPOLLIN | EPOLLOUT, it);
    } else {
        it->asked = now_ns();
    }
    if (job.loop && asked_count == job.warm_up) first_sample = take_sample();
    it->measured = asked_count++ >= job.warm_up;
    it->sent = 0;
    it->framing = HEAD;
    it->count = it->kept = it->after = it->line_size = 0;
    it->last_seen = it->adjoining = false;
}

static void say(struct stream *it) {
    while (it->sent < job.request_size) {
        ssize_t took = send(it->fd, job.request + it->sent, job.request_size - it->sent, MSG_NOSIGNAL);
        if (took < 0 && errno == EAGAIN) {
            watch_fd(epoll, EPOLL_CTL_MOD, it->fd, EPOLLIN | EPOLLOUT, it);
            return;
        }
        if (took < 0) wrong(it, "send: %s", strerror(errno));
        it->sent += (size_t)took;
    }
}

static void close_stream(struct stream *it) {
    close(it->fd);
    it->fd = -1;
}

/* An answer is whole. */
static void finish(struct stream *it, uint64_t now, bool closed) {
    if (it->count != job.tokens) wrong(it, "the answer is over: %.*s", (int)it->kept, it->keep);
    if (!it->last_seen) wrong(it, "the answer ends without %s", job.dialect->last);
    if (!job.loop) {
        close_stream(it);
        unfinished--;
        return;
    }
    if (it->measured) {
        note(&firsts, it->first - it->asked);
        note(&wholes, now - it->asked);
        done_count++;
    }
    if (job.fresh || closed) close_stream(it);
    if (asked_count >= job.warm_up + job.count) {
        if (it->fd >= 0) close_stream(it);
        unfinished--;
        return;
    }
    ask(it);
    if (!job.fresh && !closed) say(it); /* a new connection says it when it stands */
}

static void hear(struct stream *it) {
    static char data[READ], body[LOOK_BACK + TOKEN_SIZE + READ];
    ssize_t got = recv(it->fd, data, sizeof data, 0);
    uint64_t now = now_ns();
    if (got < 0 && errno == EAGAIN) return;
    if (got < 0) wrong(it, "recv: %s", strerror(errno));
    if (window_open) reads_in_window++;
    if (!got) {
        if (it->framing != UNTIL_END) wrong(it, "the connection ends before the answer does");
        it->framing = DONE;
    }
    size_t at = 0;
    if (it->framing == HEAD) at = hear_head(it, data, (size_t)got);
    if (it->framing == HEAD) return;
    memcpy(body, it->keep, it->kept);
    char *end = unframe(it, data + at, (size_t)got - at, body + it->kept);
    search(it, body, (size_t)(end - body), now);
    if (it->framing == DONE) finish(it, now, !got);
}

/* --- the run ------------------------------------------------------------------------------------------------------ */

static uint64_t draw(uint64_t *state) { /* splitmix64 */
    uint64_t z = *state += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

static int by_start(const void *a, const void *b) {
    uint64_t left = ((const struct stream *)a)->starts, right = ((const struct stream *)b)->starts;
    return left < right ? -1 : left > right;
}

static void run(void) {
    struct stream *streams = need(calloc(job.streams, sizeof *streams));
    uint64_t dice = job.seed;
    for (uint64_t n = 0; n < job.streams; n++) {
        streams[n].fd = -1;
        streams[n].starts = n && job.spread ? draw(&dice) % job.spread : 0;
    }
    qsort(streams, job.streams, sizeof *streams, by_start);
    for (uint64_t n = 0; n < job.streams; n++) streams[n].number = n;
    bool whole = !job.loop && !job.lasts;
    uint64_t begin = now_ns(), next = 0, limit = begin + job.deadline;
    unfinished = job.streams;
    if (whole) first_sample = take_sample();
    window_open = whole;
    enum { BEFORE, DURING, AFTER } window = whole || job.loop ? AFTER : BEFORE;
    while (unfinished) {
        uint64_t now = now_ns(), at = limit;
        if (now > limit) {
            for (uint64_t n = 0; n < job.streams; n++)
                if (n >= next || streams[n].fd >= 0) wrong(&streams[n], "%llu streams are not whole after %.0f s", (unsigned long long)unfinished, (double)job.deadline / 1e9);
        }
        if (window == BEFORE && now >= begin + job.opens) {
            first_sample = take_sample();
            window = DURING;
            window_open = true;
        }
        if (window == DURING && now >= begin + job.opens + job.lasts) {
            last_sample = take_sample();
            window = AFTER;
            window_open = false;
        }
        for (; next < job.streams && now >= begin + streams[next].starts; next++) ask(&streams[next]);
        uint64_t cut = begin + job.opens + job.lasts + job.grace;
        if (job.grace && window == AFTER) {
            if (now >= cut) break;
            if (cut < at) at = cut;
        }
        if (next < job.streams && begin + streams[next].starts < at) at = begin + streams[next].starts;
        uint64_t mark = window == BEFORE ? begin + job.opens : window == DURING ? begin + job.opens + job.lasts : limit;
        if (mark < at) at = mark;
        struct epoll_event events[256];
        int ready = epoll_wait(epoll, events, 256, at > now ? (int)((at - now) / 1000000) + 1 : 0);
        for (int i = 0; i < ready; i++) {
            struct stream *it = events[i].data.ptr;
            if (events[i].events & EPOLLOUT) {
                watch_fd(epoll, EPOLL_CTL_MOD, it->fd, EPOLLIN, it);
                say(it);
            }
            if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) hear(it);
        }
    }
    if (window == DURING) {
        printf("{\"error\":\"the streams ended before the window was over\"}\n");
        exit(1);
    }
    if (whole || job.loop) last_sample = take_sample();
    free(streams);
}

static void report(void) {
    double seconds = (double)(last_sample.at - first_sample.at) / 1e9;
    printf("{\"seconds\":%.6f,\"tokens\":%llu,\"requests\":%llu,\"reads\":%llu,\"own_cpu_ns\":%llu,\"busy_ns\":%llu,\"cut\":%llu,\"cpu_ns\":{", seconds,
           (unsigned long long)tokens_in_window, (unsigned long long)done_count, (unsigned long long)reads_in_window,
           (unsigned long long)(last_sample.own - first_sample.own), (unsigned long long)(last_sample.busy - first_sample.busy),
           (unsigned long long)unfinished);
    for (int i = 0; i < watched_count; i++)
        printf("%s\"%s\":%llu", i ? "," : "", watched[i].name, (unsigned long long)(last_sample.cpu[i] - first_sample.cpu[i]));
    printf("}");
    print_figures("latency_us", &latencies);
    print_figures("first_us", &firsts);
    print_figures("whole_us", &wholes);
    printf("}\n");
}

static void read_request(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) die("%s: %s", path, strerror(errno));
    job.request = need(malloc(16 << 20));
    job.request_size = fread(job.request, 1, 16 << 20, file);
    fclose(file);
}

int main(int count, char **words) {
    static const struct option options[] = {
        {"port", 1, 0, 'p'},   {"dialect", 1, 0, 'd'}, {"request", 1, 0, 'r'}, {"tokens", 1, 0, 't'},
        {"streams", 1, 0, 's'}, {"spread", 1, 0, 'S'},  {"open", 1, 0, 'o'},    {"last", 1, 0, 'l'},    {"grace", 1, 0, 'g'},
        {"count", 1, 0, 'c'},  {"warm-up", 1, 0, 'w'}, {"fresh", 0, 0, 'f'},   {"seed", 1, 0, 'e'},
        {"deadline", 1, 0, 'D'}, {"watch", 1, 0, 'W'},   {0, 0, 0, 0},
    };
    if (count < 2 || (strcmp(words[1], "crowd") && strcmp(words[1], "loop"))) die("usage: load crowd|loop OPTIONS");
    job.loop = !strcmp(words[1], "loop");
    for (int option; (option = getopt_long(count - 1, words + 1, "", options, NULL)) != -1;) {
        uint64_t number = optarg ? strtoull(optarg, NULL, 10) : 0;
        switch (option) {
        case 'p': job.port = (int)number; break;
        case 'd':
            for (size_t i = 0; i < sizeof dialects / sizeof *dialects; i++)
                if (!strcmp(optarg, dialects[i].name)) job.dialect = &dialects[i];
            break;
        case 'r': read_request(optarg); break;
        case 't': job.tokens = number; break;
        case 's': job.streams = number; break;
        case 'S': job.spread = number * 1000; break;
        case 'o': job.opens = number * 1000; break;
        case 'l': job.lasts = number * 1000; break;
        case 'g': job.grace = number * 1000; break;
        case 'c': job.count = number; break;
        case 'w': job.warm_up = number; break;
        case 'f': job.fresh = true; break;
        case 'e': job.seed = number; break;
        case 'D': job.deadline = number * 1000; break;
        case 'W': watch(optarg); break;
        default: return 2;
        }
    }
    if (!job.port || !job.dialect || !job.request || !job.streams) die("a port, a dialect, a request and streams are needed");
    raise_file_limit();
    epoll = epoll_create1(EPOLL_CLOEXEC);
    run();
    report();
}

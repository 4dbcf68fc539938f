/* JSON text (RFC 8259) in UTF-8 (RFC 3629), looked through and not decoded.
 *
 * Everything here takes text that ends with a NUL, as a bytes object of Python does: a NUL is valid nowhere in JSON, so
 * a byte is read only where the one before it was valid, and no length has to be asked for. A function gives the place
 * behind what it went over, NULL where that is not valid.
 *
 * Strings are gone over 32 bytes a step on x86-64, 8 on other little-endian machines that are built for by GCC or
 * Clang, and byte by byte elsewhere. Characters beyond ASCII are looked at one by one; so are escapes, but on x86-64
 * only the rare ones.
 */
#ifndef KIROSTREAM_JSON_H
#define KIROSTREAM_JSON_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define JSON_SSE2 1
#include <emmintrin.h>
#elif (defined(__GNUC__) || defined(__clang__)) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define JSON_WORDS 1
#endif

/* What a string holds. */
#define JSON_ESCAPES 1 /* a backslash */
#define JSON_FOREIGN 2 /* an escape that our own writer would not have written so */

static inline const uint8_t *json_space(const uint8_t *at) {
    while (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t')
        at++;
    return at;
}

#if defined(JSON_SSE2)
/* Of 16 bytes a bit each: those that are no plain ASCII of a string. */
static inline unsigned json_stops(const uint8_t *at) {
    const __m128i text = _mm_loadu_si128((const __m128i *)at);
    const __m128i ends =
        _mm_or_si128(_mm_cmpeq_epi8(text, _mm_set1_epi8('"')), _mm_cmpeq_epi8(text, _mm_set1_epi8('\\')));
    const __m128i control = _mm_cmpeq_epi8(_mm_min_epu8(text, _mm_set1_epi8(0x1F)), text);
    return (unsigned)_mm_movemask_epi8(_mm_or_si128(_mm_or_si128(ends, control), text)); /* the top bit: not ASCII */
}
#endif

/* The first byte from `at` that is no plain ASCII of a string: a quote, a backslash, a control character, a byte above
 * 0x7F. It may also stop before one: where less than a step is left. */
static inline const uint8_t *json_plain(const uint8_t *at, const uint8_t *end) {
#if defined(JSON_SSE2)
    while (end - at >= 16) {
        unsigned stops = json_stops(at);
        if (stops)
            return at + __builtin_ctz(stops);
        at += 16;
    }
#elif defined(JSON_WORDS)
    const uint64_t ones = 0x0101010101010101u;
    while (end - at >= 8) {
        uint64_t text, mask;
        memcpy(&text, at, 8);
        /* A borrow can only set bits above one that is set rightly: the lowest is exact. */
        mask = ((text - ones * 0x20) | ((text ^ ones * '"') - ones) | ((text ^ ones * '\\') - ones) | text) &
               (ones * 0x80);
        if (mask)
            return at + (__builtin_ctzll(mask) >> 3);
        at += 8;
    }
#endif
    (void)end;
    return at;
}

static inline int json_hex(uint8_t c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The code unit of the four digits at `at`, -1 if they are none. */
static inline int json_unit(const uint8_t *at) {
    int unit = 0;
    for (int i = 0; i < 4; i++) {
        int digit = json_hex(at[i]);
        if (digit < 0)
            return -1;
        unit = unit << 4 | digit;
    }
    return unit;
}

/* What stands behind the backslash of an escape of two characters that is written so by us too. */
static const uint8_t json_short[256] = {
    ['"'] = 1, ['\\'] = 1, ['b'] = 1, ['f'] = 1, ['n'] = 1, ['r'] = 1, ['t'] = 1,
};

/* Past the escape at `at`. Half of a surrogate pair is not valid. */
static const uint8_t *json_escape(const uint8_t *at, unsigned *holds) {
    int unit;
    if (json_short[at[1]])
        return at + 2;
    if (at[1] == '/') {
        *holds |= JSON_FOREIGN;
        return at + 2;
    }
    if (at[1] != 'u')
        return NULL;
    unit = json_unit(at + 2);
    if (unit < 0)
        return NULL;
    /* Ours: control characters without a letter of their own, in lower case. */
    if (unit >= 0x20 || unit == '\b' || unit == '\f' || unit == '\n' || unit == '\r' || unit == '\t' ||
        (at[5] >= 'A' && at[5] <= 'F'))
        *holds |= JSON_FOREIGN;
    if (unit < 0xD800 || unit > 0xDFFF)
        return at + 6;
    if (unit > 0xDBFF || at[6] != '\\' || at[7] != 'u')
        return NULL;
    unit = json_unit(at + 8);
    return unit >= 0xDC00 && unit <= 0xDFFF ? at + 12 : NULL;
}

/* Past the character of two to four bytes at `at`. */
static inline const uint8_t *json_wide(const uint8_t *at) {
    uint8_t first = at[0], second = at[1];
    if (first >= 0xC2 && first <= 0xDF)
        return (second & 0xC0) == 0x80 ? at + 2 : NULL;
    if (first >= 0xE0 && first <= 0xEF) {
        uint8_t least = first == 0xE0 ? 0xA0 : 0x80, most = first == 0xED ? 0x9F : 0xBF;
        return second >= least && second <= most && (at[2] & 0xC0) == 0x80 ? at + 3 : NULL;
    }
    if (first >= 0xF0 && first <= 0xF4) {
        uint8_t least = first == 0xF0 ? 0x90 : 0x80, most = first == 0xF4 ? 0x8F : 0xBF;
        return second >= least && second <= most && (at[2] & 0xC0) == 0x80 && (at[3] & 0xC0) == 0x80 ? at + 4 : NULL;
    }
    return NULL;
}

#if defined(JSON_SSE2)
/* Of 32 bytes a bit each: those that are set in the top bit of `low` and `high`. */
static inline uint64_t json_bits(__m128i low, __m128i high) {
    return (unsigned)_mm_movemask_epi8(low) | (uint64_t)(unsigned)_mm_movemask_epi8(high) << 16;
}

/* Goes on from `at` within a string as long as it takes no second look: past all characters of ASCII, and past those
 * escapes that code and logs have every ten bytes. To the closing quote, or what takes one, or near the end. */
static inline const uint8_t *json_usual(const uint8_t *at, const uint8_t *end, unsigned *holds) {
    const __m128i quote = _mm_set1_epi8('"'), backslash = _mm_set1_epi8('\\'), control = _mm_set1_epi8(0x1F);
    const __m128i n = _mm_set1_epi8('n'), r = _mm_set1_epi8('r'), t = _mm_set1_epi8('t');
    const uint64_t all = 0xFFFFFFFFu, even = 0x5555555555555555u, odd = ~even;
    while (end - at >= 32) {
        const __m128i low = _mm_loadu_si128((const __m128i *)at), high = _mm_loadu_si128((const __m128i *)(at + 16));
        const __m128i low_quotes = _mm_cmpeq_epi8(low, quote), high_quotes = _mm_cmpeq_epi8(high, quote);
        const uint64_t slashes = json_bits(_mm_cmpeq_epi8(low, backslash), _mm_cmpeq_epi8(high, backslash));
        const uint64_t quotes = json_bits(low_quotes, high_quotes);
        uint64_t escaped = 0;
        uint64_t stops = json_bits(_mm_or_si128(_mm_cmpeq_epi8(_mm_min_epu8(low, control), low), low),
                                   _mm_or_si128(_mm_cmpeq_epi8(_mm_min_epu8(high, control), high), high));
        if (slashes) {
            const uint64_t usual = json_bits(
                _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(low, n), _mm_cmpeq_epi8(low, r)), _mm_cmpeq_epi8(low, t)),
                _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(high, n), _mm_cmpeq_epi8(high, r)), _mm_cmpeq_epi8(high, t)));
            /* Of a run of backslashes the last stands before something else where the run is odd: then it begins at an
             * even place and ends before an odd one, or the other way round. */
            const uint64_t starts = slashes & ~(slashes << 1);
            escaped = (((slashes + (starts & even)) & odd) | ((slashes + (starts & odd)) & even)) & ~slashes;
            stops |= escaped & all & ~(usual | quotes);
        }
        stops |= quotes & ~escaped;
        const uint64_t passed = (stops ^ (stops - 1)) & all;
        *holds |= slashes & passed ? JSON_ESCAPES : 0;
        if (stops) {
            at += __builtin_ctzll(stops);
            return at - ((escaped & stops & -stops) != 0);
        }
        at += 32;
        if (__builtin_expect(escaped >> 32, 0)) /* a branch: the next step need not wait for what was found here */
            at--;
    }
    return at;
}
#else
#define json_usual(at, end, holds) json_plain(at, end)
#endif

/* From behind the opening quote to behind the closing one. What it holds is added to `holds`. */
static const uint8_t *json_string(const uint8_t *at, const uint8_t *end, unsigned *holds) {
    unsigned these = 0;
#if defined(JSON_SSE2)
    if (end - at >= 16) { /* most strings are keys, and short */
        unsigned stops = json_stops(at);
        at += stops ? __builtin_ctz(stops) : 16;
        if (*at == '"' && stops)
            return at + 1;
    }
#endif
    while (at) {
        at = json_usual(at, end, &these);
        if (*at == '"') {
            *holds |= these;
            return at + 1;
        } else if (*at == '\\') {
            these |= JSON_ESCAPES;
            at = json_short[at[1]] ? at + 2 : json_escape(at, &these);
        } else if (*at >= 0x80) {
            do
                at = json_wide(at);
            while (at && *at >= 0x80);
        } else if (*at < 0x20)
            return NULL;
        else
            at++;
    }
    return NULL;
}

/* Where the long strings of a text are, and the long arrays and objects near its root: noted by who goes over it first,
 * so that nobody has to look for their ends again. They stand in the order in which they begin. */
#define JSON_LONG 64

typedef struct {
    const uint8_t *at; /* behind the opening quote or bracket */
    const uint8_t *end; /* behind the closing one */
    unsigned holds;
} json_long;

typedef struct {
    json_long *notes;
    size_t count, room;
    int failed; /* no memory: what is noted is not all */
} json_notes;

static int json_note(json_notes *notes, const uint8_t *at, const uint8_t *end, unsigned holds) {
    if (notes->count == notes->room) {
        size_t room = notes->room ? 2 * notes->room : 64;
        json_long *grown = notes->failed ? NULL : realloc(notes->notes, room * sizeof(json_long));
        if (!grown) {
            notes->failed = 1;
            return 0;
        }
        notes->notes = grown;
        notes->room = room;
    }
    notes->notes[notes->count++] = (json_long){at, end, holds};
    return 1;
}

/* The text that is gone over, and what is known of it. */
typedef struct {
    const uint8_t *end;
    json_notes *taken; /* where notes go; NULL: nowhere */
    int shallow; /* arrays and objects with room for more levels than this are noted too */
    const json_long *next, *last; /* those that were noted before, from the next one on; the same: none */
} json_text;

/* Whether what begins at `at` was noted; then it is the next. */
static inline int json_noted(json_text *text, const uint8_t *at) {
    while (text->next != text->last && text->next->at < at)
        text->next++;
    return text->next != text->last && text->next->at == at;
}

/* The same as `json_string`. */
static inline const uint8_t *json_known_string(json_text *text, const uint8_t *at, unsigned *holds) {
    const uint8_t *behind;
    unsigned these = 0;
    if (json_noted(text, at)) {
        *holds |= text->next->holds;
        return text->next->end;
    }
    behind = json_string(at, text->end, &these);
    *holds |= these;
    if (text->taken && behind && behind - at > JSON_LONG)
        json_note(text->taken, at, behind, these);
    return behind;
}

static inline const uint8_t *json_digits(const uint8_t *at) {
    if (*at < '0' || *at > '9')
        return NULL;
    while (*at >= '0' && *at <= '9')
        at++;
    return at;
}

static const uint8_t *json_number(const uint8_t *at) {
    if (*at == '-')
        at++;
    at = *at == '0' ? at + 1 : json_digits(at);
    if (at && *at == '.')
        at = json_digits(at + 1);
    if (at && (*at == 'e' || *at == 'E'))
        at = json_digits(at + 1 + (at[1] == '+' || at[1] == '-'));
    return at;
}

static inline const uint8_t *json_word(const uint8_t *at, const char *word) {
    for (; *word; word++, at++)
        if (*at != (uint8_t)*word)
            return NULL;
    return at;
}

/* The same of a number that every reader takes for the same: short, and without an exponent. */
static const uint8_t *json_modest_number(const uint8_t *at) {
    const uint8_t *behind = json_number(at);
    return behind && behind - at <= 15 && !memchr(at, 'e', behind - at) && !memchr(at, 'E', behind - at) ? behind : NULL;
}

/* Past the array or object at `at`, whose members are nested no deeper than `depth`. */
static const uint8_t *json_value(json_text *text, const uint8_t *at, int depth, int modest);

static const uint8_t *json_members(json_text *text, const uint8_t *at, int depth, int modest) {
    unsigned holds = 0;
    uint8_t close = *at == '{' ? '}' : ']';
    at = json_space(at + 1);
    if (*at == close)
        return at + 1;
    for (;;) {
        if (close == '}') {
            if (*at != '"' || !(at = json_known_string(text, at + 1, &holds)))
                return NULL;
            at = json_space(at);
            if (*at != ':')
                return NULL;
            at = json_space(at + 1);
        }
        if (!(at = json_value(text, at, depth, modest)))
            return NULL;
        at = json_space(at);
        if (*at == close)
            return at + 1;
        if (*at != ',')
            return NULL;
        at = json_space(at + 1);
    }
}

/* The same, noted where it is long. */
static const uint8_t *json_noted_members(json_text *text, const uint8_t *at, int depth) {
    json_notes *taken = text->taken;
    size_t note = taken->count;
    const uint8_t *behind;
    if (!json_note(taken, at + 1, NULL, 0))
        return json_members(text, at, depth, 0);
    behind = json_members(text, at, depth, 0);
    if (behind && behind - at > JSON_LONG)
        taken->notes[note].end = behind;
    else
        taken->count = note; /* nothing in it is long either */
    return behind;
}

/* Past a value of any kind, which is nested no deeper than `depth`, with no number but `modest` ones. */
static const uint8_t *json_value(json_text *text, const uint8_t *at, int depth, int modest) {
    unsigned holds = 0;
    switch (*at) {
    case '"':
        return json_known_string(text, at + 1, &holds);
    case 't':
        return json_word(at, "true");
    case 'f':
        return json_word(at, "false");
    case 'n':
        return json_word(at, "null");
    case '{': case '[':
        break;
    default:
        return modest ? json_modest_number(at) : json_number(at);
    }
    if (depth <= 0)
        return NULL;
    if (!modest && json_noted(text, at + 1))
        return text->next->end;
    if (text->taken && depth > text->shallow)
        return json_noted_members(text, at, depth - 1);
    return json_members(text, at, depth - 1, modest);
}

#endif

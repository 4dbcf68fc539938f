/* CRC-32 (IEEE 802.3, the zlib polynomial) for the compiled core, two ways.
 *
 * "slicing": sixteen tables, sixteen bytes a step. Portable C; assumes nothing of byte order or alignment.
 *
 * "pclmulqdq": carry-less multiplication, on x86-64 processors that have it (asked at run time). A message is a
 * polynomial over GF(2), its CRC the remainder modulo P. A block of 16 bytes that stands d bytes before the end may be
 * replaced by its product with x^(8d) mod P, placed at the end: "folding". Messages of up to 256 bytes (nearly every
 * frame) fold each block straight to the end, independent of each other, so the multiplier's latency is paid once and
 * not per block; longer ones first go through four lanes. What is left, 16 bytes, is reduced by Barrett's method.
 * Bits are reflected throughout, as in the table method.
 *
 * All tables are derived from the polynomial in crc32_init(), which must run once before anything else.
 */
#ifndef KIROSTREAM_CRC32_H
#define KIROSTREAM_CRC32_H

#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define CRC32_PCLMULQDQ 1
#include <immintrin.h>
#endif

#define CRC32_POLYNOMIAL 0xEDB88320u /* reflected */

static uint32_t crc32_table[16][256]; /* [k][b]: byte b followed by k zero bytes */

static void crc32_init_slicing(void) {
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t crc = b;
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (CRC32_POLYNOMIAL & (0u - (crc & 1u)));
        crc32_table[0][b] = crc;
    }
    for (int k = 1; k < 16; k++)
        for (int b = 0; b < 256; b++) {
            uint32_t before = crc32_table[k - 1][b];
            crc32_table[k][b] = (before >> 8) ^ crc32_table[0][before & 0xFF];
        }
}

/* Both methods work on the inverted register; crc32_slicing(0xFFFFFFFF, ...) inverted is the CRC. */
static uint32_t crc32_slicing(uint32_t crc, const uint8_t *at, size_t size) {
    const uint32_t(*t)[256] = (const uint32_t(*)[256])crc32_table;
    for (; size >= 16; at += 16, size -= 16)
        crc = t[15][at[0] ^ (crc & 0xFF)] ^ t[14][at[1] ^ ((crc >> 8) & 0xFF)] ^ t[13][at[2] ^ ((crc >> 16) & 0xFF)] ^
              t[12][at[3] ^ (crc >> 24)] ^ t[11][at[4]] ^ t[10][at[5]] ^ t[9][at[6]] ^ t[8][at[7]] ^ t[7][at[8]] ^
              t[6][at[9]] ^ t[5][at[10]] ^ t[4][at[11]] ^ t[3][at[12]] ^ t[2][at[13]] ^ t[1][at[14]] ^ t[0][at[15]];
    if (size >= 8) {
        crc = t[7][at[0] ^ (crc & 0xFF)] ^ t[6][at[1] ^ ((crc >> 8) & 0xFF)] ^ t[5][at[2] ^ ((crc >> 16) & 0xFF)] ^
              t[4][at[3] ^ (crc >> 24)] ^ t[3][at[4]] ^ t[2][at[5]] ^ t[1][at[6]] ^ t[0][at[7]];
        at += 8;
        size -= 8;
    }
    for (; size; at++, size--)
        crc = (crc >> 8) ^ t[0][*at ^ (crc & 0xFF)];
    return crc;
}

#ifdef CRC32_PCLMULQDQ

#define CRC32_TARGET __attribute__((target("pclmul,sse4.1")))
#define CRC32_LONG 256 /* bytes; from here on, four lanes */

static uint64_t crc32_fold_by[16][2];    /* [j]: moves 16 bytes j blocks on; low half, high half */
static const uint8_t crc32_shift[48] = { /* shuffles: an offset into it moves a block left or right by bytes */
    0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
    0,    1,    2,    3,    4,    5,    6,    7,    8,    9,    10,   11,   12,   13,   14,   15,
    0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
};

/* x^n mod P; the shift by one makes up for the product of two reflected numbers, which is one bit short. */
static uint64_t crc32_power(unsigned n) {
    uint32_t power = 0x80000000u;
    while (n--)
        power = (power >> 1) ^ (CRC32_POLYNOMIAL & (0u - (power & 1u)));
    return (uint64_t)power << 1;
}

static void crc32_init_pclmulqdq(void) {
    for (unsigned j = 1; j < 16; j++) {
        crc32_fold_by[j][0] = crc32_power(128 * j + 32);
        crc32_fold_by[j][1] = crc32_power(128 * j - 32);
    }
}

CRC32_TARGET static inline __m128i crc32_load(const void *at) { return _mm_loadu_si128((const __m128i *)at); }

CRC32_TARGET static inline __m128i crc32_fold(__m128i block, size_t blocks_on) {
    __m128i by = crc32_load(crc32_fold_by[blocks_on]);
    return _mm_xor_si128(_mm_clmulepi64_si128(block, by, 0x00), _mm_clmulepi64_si128(block, by, 0x11));
}

/* Needs 16 bytes or more. */
CRC32_TARGET static uint32_t crc32_pclmulqdq_long(uint32_t crc, const uint8_t *at, size_t size) {
    size_t blocks = size >> 4, tail = size & 15;
    __m128i sum = _mm_xor_si128(crc32_load(at), _mm_cvtsi32_si128((int)crc));
    at += 16;
    blocks--;
    if (size >= CRC32_LONG) {
        __m128i b = crc32_load(at), c = crc32_load(at + 16), d = crc32_load(at + 32);
        at += 48;
        blocks -= 3;
        for (; blocks >= 4; at += 64, blocks -= 4) {
            sum = _mm_xor_si128(crc32_fold(sum, 4), crc32_load(at));
            b = _mm_xor_si128(crc32_fold(b, 4), crc32_load(at + 16));
            c = _mm_xor_si128(crc32_fold(c, 4), crc32_load(at + 32));
            d = _mm_xor_si128(crc32_fold(d, 4), crc32_load(at + 48));
        }
        sum = _mm_xor_si128(_mm_xor_si128(crc32_fold(sum, 3), crc32_fold(b, 2)), _mm_xor_si128(crc32_fold(c, 1), d));
    }
    if (blocks) {
        sum = crc32_fold(sum, blocks);
        for (; blocks > 1; at += 16, blocks--)
            sum = _mm_xor_si128(sum, crc32_fold(crc32_load(at), blocks - 1));
        sum = _mm_xor_si128(sum, crc32_load(at));
        at += 16;
    }
    if (tail) { /* sum, then `tail` bytes: cut anew, so that the last block is full and the first begins with zeros */
        __m128i first = _mm_shuffle_epi8(sum, crc32_load(crc32_shift + tail));
        __m128i last = _mm_shuffle_epi8(sum, crc32_load(crc32_shift + 16 + tail));
        __m128i keep = _mm_cmplt_epi8(crc32_load(crc32_shift + 16 + tail), _mm_setzero_si128());
        __m128i bytes = _mm_and_si128(keep, crc32_load(at + tail - 16));
        sum = _mm_xor_si128(crc32_fold(first, 1), _mm_or_si128(last, bytes));
    }
    /* 128 bits to 96 and to 64 (times x^32 on the way), then Barrett: x^64 div P, and P, reflected. */
    const __m128i low32 = _mm_set_epi32(0, -1, 0, -1);
    const __m128i by_one = crc32_load(crc32_fold_by[1]);
    const __m128i x64 = _mm_set_epi64x(0, 0x163cd6124);
    const __m128i barrett = _mm_set_epi64x(0x1f7011641, 0x1db710641);
    sum = _mm_xor_si128(_mm_srli_si128(sum, 8), _mm_clmulepi64_si128(sum, by_one, 0x10));
    sum = _mm_xor_si128(_mm_srli_si128(sum, 4), _mm_clmulepi64_si128(_mm_and_si128(sum, low32), x64, 0x00));
    __m128i quotient = _mm_and_si128(_mm_clmulepi64_si128(_mm_and_si128(sum, low32), barrett, 0x10), low32);
    return (uint32_t)_mm_extract_epi32(_mm_xor_si128(sum, _mm_clmulepi64_si128(quotient, barrett, 0x00)), 1);
}

static uint32_t crc32_pclmulqdq(uint32_t crc, const uint8_t *at, size_t size) {
    return size < 16 ? crc32_slicing(crc, at, size) : crc32_pclmulqdq_long(crc, at, size);
}

#endif

static uint32_t (*crc32_best)(uint32_t, const uint8_t *, size_t) = crc32_slicing;

/* Returns the name of the way that crc32_best goes. */
static const char *crc32_init(void) {
    crc32_init_slicing();
#ifdef CRC32_PCLMULQDQ
    __builtin_cpu_init();
    if (__builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1")) {
        crc32_init_pclmulqdq();
        crc32_best = crc32_pclmulqdq;
        return "pclmulqdq";
    }
#endif
    return "slicing";
}

/* The CRC of `size` bytes, after bytes whose CRC is `crc` (0 at the start), as zlib.crc32 counts. */
static inline uint32_t crc32_of(const uint8_t *at, size_t size, uint32_t crc) {
    return ~crc32_best(~crc, at, size);
}

static inline uint32_t crc32_of_portable(const uint8_t *at, size_t size, uint32_t crc) {
    return ~crc32_slicing(~crc, at, size);
}

#endif

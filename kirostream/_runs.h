/* How compiled code asks a decoder for the pieces of a run, without knowing the decoder, and without the interpreter.
 *
 * `look` says what some bytes hold, if all messages that they complete are one run: how many pieces, and where they
 * are; -1 if not, or if there are more than `most`, or over `room` bytes of them. It changes nothing that counts. The
 * pieces, and the bytes they were found in, have to stay until `keep` says that they are taken: then the decoder stands
 * behind them. `keep` gives -1 where there is no memory to hold what was left over; the decoder is of no use then.
 *
 * A decoder hands the table out in a capsule of this name, which keeps the decoder alive.
 */
#ifndef KIROSTREAM_RUNS_H
#define KIROSTREAM_RUNS_H

#include <stddef.h>
#include <stdint.h>

#define KIROSTREAM_RUNS "kirostream.runs"

typedef struct {
    const uint8_t *at;
    size_t size;
} ks_piece;

typedef struct {
    void *decoder;
    ptrdiff_t (*look)(void *decoder, const uint8_t *data, size_t size, size_t room, ks_piece *pieces, size_t most);
    int (*keep)(void *decoder);
} ks_runs;

#endif

/* Where callgrind counts, and under which name: called from Python (bench/guard_work.py) by ctypes. */
#include <valgrind/callgrind.h>

/* Whether this process runs under valgrind. */
int counted(void) {
    return RUNNING_ON_VALGRIND != 0;
}

void begin(void) {
    CALLGRIND_START_INSTRUMENTATION;
    CALLGRIND_ZERO_STATS;
}

void end(const char *name) {
    CALLGRIND_DUMP_STATS_AT(name);
    CALLGRIND_STOP_INSTRUMENTATION;
}

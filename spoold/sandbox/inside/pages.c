/* The memory of one phase, to within a mebibyte: its anonymous, shared and tmpfs pages, now and at their most.
 *
 * Theory of operation. The kernel counts the container's use of memory exactly, and remembers its peak. But that is of
 * everything that is charged to the container: also the cache of files, the kernel's own memory for its processes, and
 * what the supervisor holds. So each look takes the peak since the look before, and takes off the most that cache and
 * kernel had in that time. The rest is the supervisor's share, which is known from before the phase, and the job's. The
 * most is taken off, so that nobody else's memory ever counts as a job's. In this way a look can miss something: as
 * much as the cache or the kernel's own memory grew by in the same milliseconds in which the job reached its peak and
 * left it.
 *
 * The kernel counts memory ahead of its use, at most 256 KiB on each CPU on which the container runs (AHEAD is that of
 * two CPUs). Half of AHEAD is what is assumed.
 *
 * A peak that cannot begin anew tells something only where it has risen. A lower one between two looks is not seen.
 */

#include "inside.h"
#include "facts.h"

#define COARSE MIB  /* bytes; a smaller change of the files in memory may be an older one that is counted late */

static int64_t most(int64_t one, int64_t other)
{
    return one > other ? one : other;
}

void pages_begin(struct pages *pages)
{
    peaks_take(&pages->top, &pages->kernel_top);
    struct memory now = pages->last = memory_now();
    pages->files = now.files;
    int64_t held = now.usage - now.cache - now.kernel, ahead = most(0, held - now.heap - now.files);
    pages->own = held - (ahead < AHEAD ? ahead : AHEAD) + AHEAD / 2;
}

/* Set what the phase holds, and return the most since the last look. `kept` bytes more are the supervisor's. */
int64_t pages_look(struct pages *pages, int64_t kept, int64_t *held)
{
    int64_t top, kernel, peak = 0;
    peaks_take(&top, &kernel);
    struct memory before = pages->last, now = pages->last = memory_now();
    if (counters.resets || top > pages->top) {
        int64_t of_kernel = counters.resets || kernel > pages->kernel_top ? kernel : 0;
        of_kernel = most(most(before.kernel, now.kernel), of_kernel);
        peak = top - most(before.cache, now.cache) - of_kernel - pages->own;
    }
    pages->top = top;
    pages->kernel_top = kernel;
    if (now.files < pages->files - COARSE) {  /* deleting files of an earlier phase makes no room for more */
        pages->own -= pages->files - now.files;
        pages->files = now.files;
    }
    *held = now.usage - now.cache - now.kernel - pages->own - kept;
    peak = most(*held, peak - kept);
    *held = most(0, *held);
    return most(0, peak);
}

/* Return the files in memory, and what is shared, that the phase held at the last look. */
int64_t pages_files(const struct pages *pages)
{
    return most(0, pages->last.files - pages->files);
}

/* Return how much a later phase may hold for a moment without being seen, 0 where all is seen. */
int64_t pages_unseen(const struct pages *pages)
{
    if (counters.resets)
        return 0;
    return most(0, pages->top - pages->last.cache - pages->last.kernel - pages->own);
}

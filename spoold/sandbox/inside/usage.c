/* What a phase has used so far, and which of its limits that passes: time, CPU, and memory.
 *
 * Theory of operation. The kernel counts for the whole container, so everything is told from what was counted before
 * the phase. The looks decide, some milliseconds apart, and one look after the end. The supervisor's share is taken
 * off: the output that it keeps, and its own CPU time. But reading the output counts as the job's, since it is the
 * job's output. pages.c tells of memory, and what sockets hold is added. The sum is exact to a mebibyte, so a phase is
 * over its limit from a mebibyte above it.
 */

#include "inside.h"
#include "facts.h"

#include <time.h>

int64_t now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * 1000000000LL + at.tv_nsec;
}

void usage_begin(struct usage *usage, const struct bounds *limits)
{
    *usage = (struct usage){.limits = limits, .most_memory = limits->memory + EXACT};
    usage->cpu_before = cpu_total();
    usage->oom_before = oom_kills();
    pages_begin(&usage->pages);
    sockets_begin(&usage->sockets);
    usage->started = now();
}

/* Count our own CPU time since the watch began, except that of the looks. Return our CPU time in all. */
int64_t usage_count_draining(struct usage *usage)
{
    int64_t own = own_cpu();
    usage->draining_cpu = own - usage->watching_since - usage->looking_cpu;
    return own;
}

int64_t usage_cpu(const struct usage *usage)
{
    int64_t total = usage->cpu_before < 0 ? -1 : cpu_total(), used = total - usage->cpu_before;
    return (total < 0 ? usage->reaped_cpu : used > 0 ? used : 0) + usage->draining_cpu;
}

/* Look at what is held now; return the most since the last look, without sockets. */
static int64_t memory_used(struct usage *usage)
{
    int64_t most = pages_look(&usage->pages, usage->kept, &usage->held), files = pages_files(&usage->pages);
    if (files > usage->files_at_most)
        usage->files_at_most = files;
    return most;
}

bool usage_oom(const struct usage *usage)
{
    return oom_kills() > usage->oom_before;
}

/* Look at memory, time and CPU, and set which limit is passed. */
void usage_look(struct usage *usage, int64_t now)
{
    int64_t began = usage_count_draining(usage), used = memory_used(usage), seen = sockets_held(&usage->sockets, false);
    if (used <= usage->most_memory && used + seen > usage->most_memory)
        seen = sockets_held(&usage->sockets, true);
    used += seen;
    if (used > usage->memory_peak)
        usage->memory_peak = used;
    room_look(&usage->room);
    usage->elapsed = now - usage->started;
    if (usage->memory_peak > usage->most_memory || usage_oom(usage))
        usage->hit = HIT_MEMORY;
    else if (usage->elapsed >= usage->limits->time)
        usage->hit = HIT_TIME;
    else if (usage_cpu(usage) > usage->limits->cpu_time)
        usage->hit = HIT_CPU;
    usage->looking_cpu += own_cpu() - began;
}

int64_t usage_account(struct usage *usage)
{
    int64_t used = memory_used(usage);
    if (used > usage->memory_peak)
        usage->memory_peak = used;
    room_look(&usage->room);
    int64_t cpu = usage_cpu(usage);
    if (usage->memory_peak > usage->most_memory)
        usage->hit = HIT_MEMORY;
    else if (!usage->hit && usage->elapsed > usage->limits->time)
        usage->hit = HIT_TIME;
    else if (!usage->hit && cpu > usage->limits->cpu_time)
        usage->hit = HIT_CPU;
    return cpu;
}

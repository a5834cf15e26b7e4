/* What the kernel counts for the whole container: CPU, memory, kills for want of memory; cgroup v1 or v2.
 *
 * A peak counts from the start of the container. Where peaks.c could open its file for writing, the peak can begin
 * anew. A counter that the host does not have reads as zero.
 */

#include "inside.h"

#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <time.h>

struct counters counters;

/* The parts that "kernel" sums since Linux 5.18. */
static const char *const of_kernel[] = {"kernel_stack ", "pagetables ", "sec_pagetables ", "percpu ", "slab "};

static int counter(const char *root, const char *name)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", root, name);
    return open_quietly(path, O_RDONLY);
}

void counters_open(const char *root)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/cgroup.controllers", root);
    bool v2 = !access(path, F_OK);
    counters = (struct counters){
        .unified = v2,
        .cpu = counter(root, v2 ? "cpu.stat" : "cpuacct/cpuacct.usage"),
        .stat = counter(root, v2 ? "memory.stat" : "memory/memory.stat"),
        .events = counter(root, v2 ? "memory.events" : "memory/memory.oom_control"),
        .usage = counter(root, v2 ? "memory.current" : "memory/memory.usage_in_bytes"),
        .kernel = v2 ? -1 : counter(root, "memory/memory.kmem.usage_in_bytes"),
        .peaks = v2 ? 1 : 2,
        .peak = {counter(root, v2 ? "memory.peak" : "memory/memory.max_usage_in_bytes"),
                 v2 ? -1 : counter(root, "memory/memory.kmem.max_usage_in_bytes")},
    };
}

static int64_t number_in(int file)
{
    char text[64];
    read_file(file, text, sizeof text);
    return strtoll(text, NULL, 10);
}

int64_t own_cpu(void)
{
    struct timespec used;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return used.tv_sec * 1000000000LL + used.tv_nsec;
}

int64_t cpu_total(void)
{
    char text[4096];
    int64_t total;
    if (counters.unified) {
        read_file(counters.cpu, text, sizeof text);
        total = number_after(text, "usage_usec ") * 1000;
    } else {
        total = number_in(counters.cpu);
    }
    return total ? total - own_cpu() : -1;
}

/* What the container holds now. Nothing but a kill can free `heap` and `files`, which are in memory. `cache` is of
 * files that are not in memory alone. `kernel` is the kernel's own memory for the container's processes. `usage` is all
 * of these. It is counted ahead of its use, by some pages on each CPU. The others may be a little late on many CPUs,
 * except `kernel` on v1.
 *
 * The exact counts come first, so what grows meanwhile is not in them.
 */
struct memory memory_now(void)
{
    char text[8192];
    struct memory now = {.usage = number_in(counters.usage), .kernel = counters.unified ? 0 : number_in(counters.kernel)};
    read_file(counters.stat, text, sizeof text);
    now.files = number_after(text, "shmem ");
    if (counters.unified) {
        now.heap = number_after(text, "anon ");
        now.cache = number_after(text, "file ") - now.files;
        now.kernel = number_after(text, "kernel ");
        for (size_t number = 0; number < COUNT(of_kernel) && !strstr(text, "\nkernel "); number++)
            now.kernel += number_after(text, of_kernel[number]);
        now.kernel += number_after(text, "sock ");
    } else {
        now.heap = number_after(text, "rss ");
        now.cache = number_after(text, "cache ") - now.files;
    }
    if (!now.usage)
        now.usage = now.heap + now.files + now.cache + now.kernel;
    return now;
}

static bool reset(int file)
{
    return pwrite(file, "0", 1, 0) > 0;
}

/* Read the peaks from files that were opened for writing, where writing resets them. */
void peaks_begin(struct opened opened)
{
    if (counters.resets || !opened.count)
        return;
    for (int number = 0; number < opened.count; number++)
        if (!reset(opened.file[number]))
            return;
    for (int number = 0; number < opened.count; number++)
        counters.peak[number] = opened.file[number];
    counters.peaks = opened.count;
    counters.resets = true;
}

/* Set the highest usage, and the highest of the kernel's own, 0 where nobody tells. They count since the last call
 * where they can be reset, else since the container began. */
void peaks_take(int64_t *usage, int64_t *kernel)
{
    *usage = number_in(counters.peak[0]);
    *kernel = counters.peaks > 1 ? number_in(counters.peak[1]) : 0;
    for (int number = 0; number < counters.peaks && counters.resets; number++)
        reset(counters.peak[number]);
}

int64_t oom_kills(void)
{
    char text[4096];
    read_file(counters.events, text, sizeof text);
    return number_after(text, "oom_kill ");
}

/* Return the container's limit in bytes, a large number where there is none. `known` is false where it cannot be read.
 */
uint64_t memory_limit(bool *known)
{
    static const char *const names[] = {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"};
    char text[64];
    for (size_t number = 0; number < COUNT(names); number++) {
        int file = open_quietly(names[number], O_RDONLY);
        if (file < 0)
            continue;
        *known = read_file(file, text, sizeof text) > 0;
        close(file);
        return strncmp(text, "max", 3) ? strtoull(text, NULL, 10) : 1ULL << 63;
    }
    *known = false;
    return 0;
}

/* Return the container's share of the CPU on cgroup v2, -1 where there is none. */
int64_t cpu_weight(void)
{
    char text[64];
    int file = open_quietly("/sys/fs/cgroup/cpu.weight", O_RDONLY);
    if (file < 0)
        return -1;
    bool known = read_file(file, text, sizeof text) > 0;
    close(file);
    return known ? strtoll(text, NULL, 10) : -1;
}

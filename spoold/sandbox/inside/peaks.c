/* The kernel's peaks of memory as files that can be written to, so that a peak can begin anew.
 *
 * Theory of operation. The engine mounts a container's control group read-only. The files belong to root, which the
 * supervisor is. So it lacks nothing but a mount of them that can be written to. A container of many jobs may make a
 * process in a user namespace of its own, and this process gets such a mount (peaks_by_namespace). In a container of
 * one job the porter leaves such a mount of each file behind the masks, in a directory that no job can enter
 * (peaks_leave, peaks_left). Files opened in this way stay open in each cell, and are closed in the job. There are only
 * these files, so no limit can be changed with them.
 *
 * Where none of this works, peaks count from the start of the container, and the looks have to do. On version 2, a file
 * can be reset since Linux 6.12, but not from within a control group namespace where the hierarchy is mounted with
 * nsdelegate.
 */

#include "inside.h"

#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define GROUP "/sys/fs/cgroup"
#define PLACE "/tmp"  /* where the other process mounts the group, for itself alone */

static const char *const v1[] = {"memory.max_usage_in_bytes", "memory.kmem.max_usage_in_bytes", NULL};
static const char *const v2[] = {"memory.peak", NULL};

static bool unified(void)
{
    return !access(GROUP "/cgroup.controllers", F_OK);
}

/* Leave the files in a new directory in `place`, to be written to. Where that fails, not all of them are there. */
int peaks_leave(const char *place)
{
    char directory[64], path[128], source[128];
    bool at_root = unified();
    snprintf(directory, sizeof directory, "%s" OWN, place);
    if (mkdir(directory, 0700))
        return failing(directory);
    for (const char *const *name = at_root ? v2 : v1; *name; name++) {
        snprintf(path, sizeof path, "%s/%s", directory, *name);
        snprintf(source, sizeof source, at_root ? GROUP "/%s" : GROUP "/memory/%s", *name);
        if (make_file(path, "", 0400))
            return -1;
        if (mount(source, path, NULL, MS_BIND, NULL) || mount(NULL, path, NULL, MS_REMOUNT | MS_BIND | CALM, NULL))
            return 0;
    }
    return 0;
}

static struct opened opened(const char *directory, const char *const *names)
{
    struct opened found = {0, {-1, -1}};
    char path[128];
    for (; *names; names++) {
        snprintf(path, sizeof path, "%s/%s", directory, *names);
        int file = open_quietly(path, O_RDWR);
        if (file < 0) {
            while (found.count)
                close(found.file[--found.count]);
            return found;
        }
        found.file[found.count++] = file;
    }
    return found;
}

/* Return descriptors of what the porter left, none unless it left all of it. */
struct opened peaks_left(void)
{
    struct opened found = opened("/sys" OWN, v1);
    return found.count ? found : opened("/sys" OWN, v2);
}

/* Set the controllers that are mounted together with that of memory, as the options of a mount. */
static void hierarchy(char *options, size_t room)
{
    char *text = contents("/proc/self/cgroup"), *rest = text, *line;
    snprintf(options, room, "memory");
    while ((line = strsep(&rest, "\n"))) {
        strsep(&line, ":");
        char *names = line ? strsep(&line, ":") : NULL;
        const char *found = names ? strstr(names, "memory") : NULL;
        if (found && (found == names || found[-1] == ',') && (found[6] == ',' || found[6] == '\0'))
            snprintf(options, room, "%s", names);
    }
    free(text);
}

/* Return descriptors of the peaks of this process's control group, got by another process; none where that fails. */
struct opened peaks_by_namespace(void)
{
    struct opened found = {0, {-1, -1}};
    char options[256], path[64], said;
    int told[2], go[2];
    const char *kind = unified() ? "cgroup2" : "cgroup";
    hierarchy(options, sizeof options);
    MUST(pipe2(told, O_CLOEXEC));
    MUST(pipe2(go, O_CLOEXEC));
    pid_t other = fork_into(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWCGROUP);
    if (other == 0) {
        if (!mount(kind, PLACE, kind, CALM, unified() ? NULL : options) && write(told[1], ".", 1) != 1)
            _exit(1);
        close(told[1]);
        close(go[1]);
        _exit(read(go[0], &said, 1) < 0);
    }
    close(told[1]);
    if (other > 0 && read(told[0], &said, 1) == 1) {
        snprintf(path, sizeof path, "/proc/%d/root" PLACE, other);
        found = opened(path, unified() ? v2 : v1);
    }
    close(told[0]);
    close(go[0]);
    close(go[1]);
    if (other > 0)
        waitpid(other, NULL, 0);
    return found;
}

/* What the kernel tells of the host, taken out of a job's sight: /sys, and what of /proc is not about processes.
 *
 * Theory of operation. These files tell one job of another, or of the host: how busy it is, what its disks do, how many
 * containers there are, how much memory the last job of this container took. masks_hide() empties files that no program
 * of a job needs. A cell does that in its own /proc. In a container of one job the engine does it. masks_cover() does
 * the rest, in the mount namespace that it is called in. The mother calls it for all cells, and the porter for a
 * container of one job. masks_cover() puts a small file system in the place of /sys. Where programs fail without a file
 * of /proc, it puts one there that says nothing of the host. Copies of the image's own files take the place of those
 * that the engine mounts into /etc from the host's disk. Programs need /proc/meminfo, /proc/uptime, and what sysinfo(2)
 * says, so these are left.
 *
 * In the new /sys are the numbers of the CPUs and the memory limits, by which some runtimes choose the size of their
 * heap. The limits are the kernel's own files, so they are right whenever a limit is changed. The control group's other
 * files are counters, and left out.
 */

#include "inside.h"
#include "facts.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>

#define CPUS "devices/system/cpu"
#define GROUP "fs/cgroup"
#define PLACE "/tmp"  /* where the new /sys is put together, before anything of a job is there */

static const char *const directories[] = {"devices", "devices/system", CPUS, "fs", GROUP, "proc", "proc/empty", "etc"};
static const char *const of_cpus[] = {"online", "possible", "present"};
static char *cpus[COUNT(of_cpus)], *etc[COUNT(ETC)];
static struct { const char *name; char *content; } files[] = {{"cgroups", 0}, {"loadavg", 0}, {"stat", 0}, {"vmstat", 0}};

/* Return a text with each line written anew by `change`, which makes it at most twice as long. */
static char *changed(char *from, void (*change)(struct text *to, char *line))
{
    struct text to = {NULL, 0, 2 * strlen(from) + 2};
    char *rest = from, *line;
    to.at = room_for(to.room);
    while ((line = strsep(&rest, "\n")))
        if (*line)
            change(&to, line);
    to.at[to.size] = '\0';
    free(from);
    return to.at;
}

/* Write a line of /proc/cgroups with one group. Programs ask this file for the controllers. */
static void alone(struct text *to, char *line)
{
    char name[64], hierarchy[32], enabled[32];
    if (*line != '#' && sscanf(line, "%63[^\t]\t%31[^\t]\t%*[^\t]\t%31[^\t]", name, hierarchy, enabled) == 3)
        put_format(to, "%s\t%s\t1\t%s\n", name, hierarchy, enabled);
    else
        put_format(to, "%s\n", line);
}

/* Write a line of /proc/stat of an idle host. Programs ask this file for the CPUs and the time of the host's start. */
static void idle(struct text *to, char *line)
{
    char *rest = line, *name = strsep(&rest, " ");
    if (!strcmp(name, "btime") && rest) {
        put_format(to, "btime %s\n", rest);
        return;
    }
    put_format(to, "%s", name);
    bool all = !strncmp(name, "cpu", 3), first = true;
    for (char *word; (word = strsep(&rest, " "));) {
        if (*word && (all || first)) {
            put_format(to, " 0");
            first = false;
        }
    }
    put_format(to, "\n");
}

static void nothing(struct text *to, char *line)
{
    put_format(to, "%.*s 0\n", (int)strcspn(line, " "), line);
}

/* Read from the host's own files what is put in their place, before anything of a job is here. */
void masks_read(void)
{
    char path[64];
    for (size_t number = 0; number < COUNT(of_cpus); number++) {
        snprintf(path, sizeof path, "/sys/" CPUS "/%s", of_cpus[number]);
        cpus[number] = contents(path);
    }
    for (size_t number = 0; number < COUNT(ETC); number++) {
        snprintf(path, sizeof path, KEPT "/%s", ETC[number]);
        etc[number] = contents(path);
    }
    files[0].content = changed(contents("/proc/cgroups"), alone);
    files[1].content = "0.00 0.00 0.00 1/1 1\n";
    files[2].content = changed(contents("/proc/stat"), idle);
    files[3].content = changed(contents("/proc/vmstat"), nothing);
}

/* Put `source` in the place of `target`; return 1 where one of them is not there, since no kernel has all of these. */
static int bind_to(const char *source, const char *target)
{
    if (!mount(source, target, NULL, MS_BIND, NULL))
        return 0;
    return errno == ENOENT ? 1 : failing(source);
}

static int put_all(const char *directory, const char *name, const char *content, const char *over)
{
    char path[128], target[128];
    snprintf(path, sizeof path, PLACE "/%s/%s", directory, name);
    snprintf(target, sizeof target, "%s/%s", over ? over : "", name);
    return make_file(path, content, 0444) || (over && bind_to(path, target) < 0) ? -1 : 0;
}

static int put_limits(void)
{
    static const char *const v2[] = {LIMITS_V2}, *const v1[] = {LIMITS_V1};
    bool unified = access("/sys/" GROUP "/cgroup.controllers", F_OK) == 0;
    if (!unified && mkdir(PLACE "/" GROUP "/memory", 0755))
        return failing(PLACE);
    for (size_t number = 0; number < (unified ? COUNT(v2) : COUNT(v1)); number++) {
        char path[128], source[128];
        snprintf(path, sizeof path, PLACE "/" GROUP "/%s", unified ? v2[number] : v1[number]);
        snprintf(source, sizeof source, "/sys/" GROUP "/%s", unified ? v2[number] : v1[number]);
        int bound = make_file(path, "", 0444) ? -1 : bind_to(source, path);
        if (bound < 0 || (bound && unlink(path)))
            return -1;
    }
    return 0;
}

/* Leave the whole store behind the new /sys, in a directory that nobody but this namespace's root can enter. */
static int put_store(void)
{
    if (mkdir(PLACE OWN, 0700) || mkdir(PLACE WHOLE_STORE, 0755))
        return failing(PLACE OWN);
    return mounted(STORE, PLACE WHOLE_STORE, NULL, MS_BIND, NULL);
}

/* Put the new /sys in its place in this mount namespace, unless it is there. Behind it is what peaks.c leaves, or the
 * store. */
int masks_cover(enum behind behind)
{
    if (!access(EMPTY, F_OK))
        return 0;
    if (mounted("tmpfs", PLACE, "tmpfs", CALM, "mode=0755,size=128k,nr_inodes=64"))
        return -1;
    for (size_t number = 0; number < COUNT(directories); number++) {
        char path[64];
        snprintf(path, sizeof path, PLACE "/%s", directories[number]);
        if (mkdir(path, 0755))
            return failing(path);
    }
    for (size_t number = 0; number < COUNT(of_cpus); number++)
        if (put_all(CPUS, of_cpus[number], cpus[number], NULL))
            return -1;
    if (put_limits() || (behind == PEAKS ? peaks_leave(PLACE) : put_store()))
        return -1;
    for (size_t number = 0; number < COUNT(files); number++)
        if (put_all("proc", files[number].name, files[number].content, NULL))
            return -1;
    for (size_t number = 0; number < COUNT(ETC); number++)
        if (put_all("etc", ETC[number], etc[number], "/etc"))
            return -1;
    if (mounted(PLACE, "/sys", NULL, MS_MOVE, NULL) || mounted(NULL, "/sys", NULL, MS_REMOUNT | MS_RDONLY | CALM, NULL))
        return -1;
    return behind == PEAKS ? masks_cover_proc() : 0;
}

/* Put its files into /proc, after masks_cover(). Each /proc that is mounted needs that. */
int masks_cover_proc(void)
{
    for (size_t number = 0; number < COUNT(files); number++) {
        char source[64], target[64];
        snprintf(source, sizeof source, "/sys/proc/%s", files[number].name);
        snprintf(target, sizeof target, "/proc/%s", files[number].name);
        if (bind_to(source, target) < 0)
            return -1;
    }
    return 0;
}

/* Empty what no program of a job needs, in this mount namespace, after masks_cover(). */
int masks_hide(void)
{
    for (size_t number = 0; number < COUNT(HIDDEN_FILES); number++)
        if (bind_to("/dev/null", HIDDEN_FILES[number]) < 0)
            return -1;
    for (size_t number = 0; number < COUNT(HIDDEN_DIRECTORIES); number++)
        if (bind_to(EMPTY, HIDDEN_DIRECTORIES[number]) < 0)
            return -1;
    return 0;
}

/* Cells: how one container serves many jobs, one after the other, none of which finds anything of another.
 *
 * Theory of operation. For each job there is a *cell*: a process in namespaces of its own, which takes the supervisor's
 * part for that one job. It is process 1 in there. So everything that the job leaves running dies with it, before the
 * next cell is made. A job can write only to file systems in memory that are the cell's own. /proc and System V IPC are
 * the cell's own too.
 *
 * The *mother* of all cells makes once what no job can change. She is a process between the supervisor and the cells,
 * in a user and a mount namespace of her own. Her mount namespace has the masks, the devices, and a view of the store
 * as the last job saw it. A cell whose job may see other entries tells her these entries and ends, before anything of
 * the job is there. She changes the view and makes another cell. A cell could only cover the view: what is mounted, and
 * so what other jobs saw, would still be listed in /proc/self/mountinfo. The mother has a network namespace too. She
 * keeps it for the next cell if no job asked for the network (see confine.c) and no Unix socket is left in it. Else she
 * takes a new one.
 *
 * A job that broke out of its cell by a hole in the kernel's namespaces would still be in the container. The supervisor
 * there holds no capability but SETUID, SETGID and KILL, so making a mother takes no privilege on the host. She is made
 * as the *holder*, a uid that is neither the job's nor root's. So the kernel's quotas per user (of inotify, message
 * queues, pipes...) count for this container alone and not for root. The two uids after the holder are that of the jobs
 * and that of the cells' root. A cell has its own user namespace below the mother's, so its root has no right to what
 * is hers. It drops the capabilities that it no longer needs before anything of a job is touched.
 *
 * The whole store is hidden in a directory that the mother alone can enter. A cell is made with that as its working
 * directory, so that it can check whether the view is what is there. Then it leaves the directory and covers it.
 *
 * See user_namespaces(7) for who may write which map.
 */

#include "inside.h"
#include "facts.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <net/if.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#define OF_MOTHER (CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET)
#define OF_CELL (CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS)
#define OF_SUPERVISOR (1ULL << CAP_SETUID | 1ULL << CAP_SETGID | 1ULL << CAP_KILL)
#define MOTHERS_OWN (OF_SUPERVISOR | 1ULL << CAP_SYS_ADMIN | 1ULL << CAP_NET_ADMIN)
#define CELL_ROOT 1                /* as the mother counts; in the container it is the uid after the job's */
#define STRAY (8 * MIB)            /* bytes; the kernel's counts are no more exact, and a container has room for it */
#define STRAY_TIMEOUT 3000000000LL /* nanoseconds to free what a job held; the kernel updates its counts every two s */
#define MOST_NAMES (4 * MIB)       /* bytes of names of a view */
/* How a cell or the mother ends: the job is done, an accident, the host has closed its side, another view is due. */
enum { ENDED, FAILED, GONE = 3, OTHER_VIEW };

/* Entries of the store, one after the other with a NUL after each; or all of it. The array takes no memory while
 * untouched. */
struct names {
    bool limited;
    size_t size;
    char of[MOST_NAMES];
};

/* What cells tell the mother. */
static struct told {
    bool network_used;
    struct names wanted;  /* what the job may see */
} *told;

static struct names view;  /* the mother's */
static struct identity { ino_t inode; struct timespec changed; } *identities;  /* of the entries of the view */

/* -- processes in new namespaces */

static void put_in_proc(pid_t pid, const char *name, const char *content)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    MUST(write_to(path, content));
}

/* Become root of the new namespaces, once their ids are mapped. */
static void begin(int made, int go)
{
    char said;
    /* Else its maps would be root's alone to write. This ends when the job's files are written. */
    MUST(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
    MUST(write(made, ".", 1));
    if (read(go, &said, 1) != 1)
        _exit(FAILED);
    MUST(setgroups(0, NULL));
    MUST(setresgid(0, 0, 0));
    MUST(setresuid(0, 0, 0));
}

/* Return the id of a process in new namespaces that `owner` owns and where `ids` are mapped. In that process, return 0.
 */
static pid_t make(unsigned long spaces, uid_t owner, uint64_t capabilities, const char *ids)
{
    int made[2], go[2];
    char said;
    MUST(pipe2(made, O_CLOEXEC));
    MUST(pipe2(go, O_CLOEXEC));
    MUST(setegid(owner));
    MUST(seteuid(owner));
    MUST(keep_capabilities(capabilities));
    pid_t pid = MUST(fork_into(spaces));
    if (pid == 0) {
        close(go[1]);
        begin(made[1], go[0]);
    } else {
        close(made[1]);
        if (read(made[0], &said, 1) == 1) {
            put_in_proc(pid, "gid_map", ids);
            put_in_proc(pid, "uid_map", ids);
            MUST(write(go[1], ".", 1));
        }
        as_root();
        close(go[1]);
    }
    close(made[0]);
    close(go[0]);
    if (pid == 0)
        close(made[1]);
    return pid;
}

/* -- the mother */

/* Set what no job may change of a new network namespace, and bring its loopback interface up. */
static void furnish_network(void)
{
    static const struct { const char *name, *value; } settings[] = {NETWORK};
    for (size_t number = 0; number < COUNT(settings); number++)
        MUST(write_to(settings[number].name, settings[number].value));
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int file = MUST(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    MUST(ioctl(file, SIOCSIFFLAGS, &request));
    close(file);
}

/* Make what all cells see alike, and enter the directory of the whole store. */
static void furnish_all(void)
{
    furnish_network();
    MUST(masks_cover(WHOLE));
    /* The devices of a read-only /dev work all the same. Nobody can set their times, which would tell the next job
     * something. */
    MUST(mounted(NULL, "/dev", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID, NULL));
    MUST(chdir("/sys" WHOLE_STORE));
}

/* Return whether a Unix socket is left. The kernel says that in a line for each. */
static bool has_sockets(void)
{
    char text[512];
    int file = MUST(open("/proc/self/net/unix", O_RDONLY | O_CLOEXEC));
    size_t size = read_file(file, text, sizeof text);
    close(file);
    const char *end = memchr(text, '\n', size);
    return !end || end[1];
}

/* Make sure that the next job finds a network namespace as it was made. */
static void renew_network(void)
{
    if (!told->network_used && !has_sockets())
        return;
    MUST(unshare(CLONE_NEWNET));
    furnish_network();
}

static size_t count_of(const struct names *names)
{
    size_t count = 0;
    for (size_t at = 0; at < names->size; at++)
        count += !names->of[at];
    return count;
}

static struct identity identity(const char *name)
{
    struct stat status;
    return lstat(name, &status) ? (struct identity){0} : (struct identity){status.st_ino, status.st_ctim};
}

/* Return whether the view shows what the store has now: an entry may have been collected, and made anew. */
static bool view_is_new(void)
{
    size_t number = 0;
    for (const char *name = view.of; name < view.of + view.size; name += strlen(name) + 1) {
        struct identity now = identity(name), then = identities[number++];
        if (!now.inode || now.inode != then.inode || now.changed.tv_sec != then.changed.tv_sec ||
            now.changed.tv_nsec != then.changed.tv_nsec)
            return false;
    }
    return true;
}

/* Take over the names that a cell told. They are not trusted, since the cell may be the job's by now. */
static void take_names(void)
{
    const struct names *from = &told->wanted;
    if (from->size > MOST_NAMES || (from->size && from->of[from->size - 1]))
        BROKEN("a cell told what are no names");
    view.limited = from->limited;
    memcpy(view.of, from->of, view.size = from->size);
}

/* Make the view that a cell asked for. */
static int change_view(void)
{
    if (view.limited)
        MUST(umount2(STORE, MNT_DETACH));
    take_names();
    struct list names = {count_of(&view), room_for(count_of(&view) * sizeof *names.of)};
    free(identities);
    identities = room_for(names.count * sizeof *identities);
    const char *at = view.of;
    for (size_t number = 0; number < names.count; number++, at += strlen(at) + 1) {
        names.of[number] = (struct string){at, strlen(at)};
        identities[number] = identity(at);
    }
    int result = view.limited ? mount_view(&names, OF_HERE) : 0, number = errno;
    free(names.of);
    errno = number;
    return result;
}

static void give_other_view(void)
{
    complain_to = -1;  /* from here on a failure is a bug again, or lies in the job's store */
    if (change_view()) {
        send_failed();
        refuse(NULL);
    }
    complain_to = 2;
}

static int64_t held(void)
{
    struct memory memory = memory_now();
    return memory.heap + memory.files;
}

/* Wait until no more than `most` bytes are held. The kernel frees System V shared memory, and descriptors under way in
 * sockets, some time after the last process died. Until then the next job would have that much less. */
static bool freed(int64_t most)
{
    const struct timespec pause = {0, 1000000};
    int64_t deadline = now() + STRAY_TIMEOUT;
    while (held() > most) {
        if (now() > deadline)
            return false;
        nanosleep(&pause, NULL);
    }
    return true;
}

static void furnish_cell(const char *space, const char *inodes);

/* Run one cell after the other, until one ends for another reason than the end of its job or another view. */
static _Noreturn void be_mother(const char *space, const char *inodes)
{
    char ids[64];
    snprintf(ids, sizeof ids, "0 %d 1\n%d %d 1\n", CELL_ROOT, JOB_UID, JOB_UID);
    furnish_all();
    keep_bounding_set(MOTHERS_OWN);
    MUST(keep_capabilities(MOTHERS_OWN));
    gone_code = GONE;
    int64_t own = held();
    for (enum stage stage = FIRST;;) {
        int status;
        told->network_used = true;
        pid_t cell = make(OF_CELL, CELL_ROOT, MOTHERS_OWN, ids);
        if (cell == 0) {
            furnish_cell(space, inodes);
            complain_to = -1;
            serve(stage, true);
        }
        MUST(waitpid(cell, &status, 0));
        if (WIFEXITED(status) && WEXITSTATUS(status) == OTHER_VIEW) {
            give_other_view();
            stage = VIEW_CHOSEN;
            continue;
        }
        if (status != 0)
            _exit(WIFEXITED(status) ? WEXITSTATUS(status) : FAILED);
        if (!freed(own + STRAY))
            _exit(FAILED);
        renew_network();
        stage = AGAIN;
    }
}

/* -- the cell */

/* Make the cell's own file systems. */
static void furnish_cell(const char *space, const char *inodes)
{
    char bounds[128], options[192];
    MUST(mounted("proc", "/proc", "proc", CALM, NULL));
    /* In a container of one job the engine did so. Here it must not: the kernel would refuse a /proc that shows more.
     */
    MUST(mounted("/proc/sys", "/proc/sys", NULL, MS_BIND, NULL));
    MUST(mounted(NULL, "/proc/sys", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | CALM, NULL));
    MUST(masks_cover_proc());
    MUST(masks_hide());
    snprintf(bounds, sizeof bounds, "size=%s,nr_inodes=%s", space, inodes);
    snprintf(options, sizeof options, "%s,mode=0755,uid=%d,gid=%d", bounds, JOB_UID, JOB_UID);
    MUST(mounted("tmpfs", WORK, "tmpfs", MS_NOSUID | MS_NODEV, options));
    snprintf(options, sizeof options, "%s,mode=1777", bounds);
    MUST(mounted("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, options));
    MUST(mounted("tmpfs", "/dev/shm", "tmpfs", CALM, options));
    MUST(mounted("mqueue", "/dev/mqueue", "mqueue", CALM, NULL));
}

/* Tell the mother which entries of the store the job may see. */
static int tell_names(const struct show *show)
{
    struct names *wanted = &told->wanted;
    wanted->limited = show->limited;
    wanted->size = 0;
    for (size_t number = 0; show->limited && number < show->store.count; number++) {
        size_t more = show->store.of[number].size + 1;
        if (more > MOST_NAMES - wanted->size) {
            errno = E2BIG;
            return failing(STORE);
        }
        memcpy(wanted->of + wanted->size, show->store.of[number].at, more);
        wanted->size += more;
    }
    return 0;
}

/* Go on where the mother's view is what the job may see, and shows what the store has now. Else leave the job to
 * another cell. */
void choose_view(const struct show *show)
{
    if (tell_names(show)) {
        send_failed();
        refuse(NULL);
    }
    const struct names *wanted = &told->wanted;
    if (wanted->limited != view.limited || wanted->size != view.size || memcmp(wanted->of, view.of, view.size) ||
        !view_is_new())
        _exit(OTHER_VIEW);
}

/* Drop everything that no job is to have. */
void settle(void)
{
    MUST(chdir("/"));
    MUST(mounted(EMPTY, "/sys" OWN, NULL, MS_BIND, NULL));
    watch_network();
    keep_bounding_set(0);
    MUST(keep_capabilities(OF_SUPERVISOR));
}

/* Give up the memory that is shared with the mother, since a process with the job's rights may say nothing to her. */
void share_nothing(void)
{
    if (told)
        MUST(munmap(told, sizeof *told));
}

/* Tell the mother whether a job of this cell asked for the network, and end. */
_Noreturn void leave(void)
{
    if (told)
        told->network_used = network_used;
    _exit(ENDED);
}

/* -- the supervisor */

/* Serve each job in a cell. `holder` is the uid of the mother, and the two after it are those of the jobs and the
 * cells. A job's directories hold `space` bytes and `inodes` files each. */
_Noreturn void serve_many(uid_t holder, const char *space, const char *inodes)
{
    char ids[96];
    int status;
    complain_to = 2;  /* what is refused here is no bug: this host does not allow it */
    keep_bounding_set(OF_SUPERVISOR);
    masks_read();
    peaks_begin(peaks_by_namespace());
    told = mmap(NULL, sizeof *told, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (told == MAP_FAILED)
        FAILED_AT("mmap");
    snprintf(ids, sizeof ids, "0 %d 1\n%d %d 1\n%d %d 1\n", holder, JOB_UID, holder + 1, CELL_ROOT, holder + 2);
    pid_t mother = make(OF_MOTHER, holder, OF_SUPERVISOR, ids);
    if (mother == 0)
        be_mother(space, inodes);
    MUST(waitpid(mother, &status, 0));
    _exit(WIFEXITED(status) && WEXITSTATUS(status) == GONE ? 0 : 1);
}

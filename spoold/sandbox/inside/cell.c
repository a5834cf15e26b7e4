/* Cells: how one container serves many jobs, one after the other, none of which finds anything of another.
 *
 * Theory of operation. For each job the supervisor makes a *cell*: a process in namespaces of its own (user, pid, mount,
 * IPC, UTS, network), which takes the supervisor's part for that one job. It is process 1 in there, so all that the job
 * leaves running dies with it, before the supervisor makes the next. What a job can write to are file systems in memory
 * that are the cell's own, as are /proc, the loopback interface, System V IPC and the view of the store.
 *
 * A job that broke out of its cell by a hole in the kernel's namespaces would still be in the container, whose supervisor
 * holds no capability but SETUID, SETGID and KILL: so making a cell takes no privilege on the host. The cell is made as
 * the *holder*, a uid that is neither the job's nor root's, so that the kernel's quotas per user (of inotify, message
 * queues, pipes...) are counted for this container alone and not for root. Inside, holder is 0 and has all capabilities
 * over the cell; it drops those that it needs no more before anything of a job is touched.
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
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#define SPACES (CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET)
#define OWN (1ULL << CAP_SETUID | 1ULL << CAP_SETGID | 1ULL << CAP_KILL)
#define STRAY (8 * MIB)            /* the kernel's counts are no more exact than this, and a container has room for it */
#define STRAY_TIMEOUT 3000000000LL /* nanoseconds to free what a job held; the kernel brings its counts up to date every two */
enum { ENDED, FAILED, GONE = 3 };  /* how a cell ends: its job is done, an accident, the host has closed its side */

static void put_in_proc(pid_t pid, const char *name, const char *content)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    MUST(write_to(path, content));
}

/* Be root of the new namespaces, once they are mapped. */
static void begin_cell(int made, int go)
{
    char said;
    /* Or its maps would be root's alone to write; this ends when the job's files are written. */
    MUST(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
    MUST(write(made, ".", 1));
    if (read(go, &said, 1) != 1)
        _exit(FAILED);
    MUST(setgroups(0, NULL));
    MUST(setresgid(0, 0, 0));
    MUST(setresuid(0, 0, 0));
}

/* Return the id of a process in new namespaces; in that process 0. */
static pid_t make_cell(uid_t holder)
{
    int made[2], go[2];
    char map[64], said;
    MUST(pipe2(made, O_CLOEXEC));
    MUST(pipe2(go, O_CLOEXEC));
    MUST(setegid(holder));
    MUST(seteuid(holder));
    MUST(keep_capabilities(OWN));
    pid_t cell = MUST(fork_into(SPACES));
    if (cell == 0) {
        close(go[1]);
        begin_cell(made[1], go[0]);
    } else {
        close(made[1]);
        if (read(made[0], &said, 1) == 1) {
            snprintf(map, sizeof map, "0 %d 1\n%d %d 1\n", holder, JOB_UID, holder + 1);
            put_in_proc(cell, "gid_map", map);
            put_in_proc(cell, "uid_map", map);
            MUST(write(go[1], ".", 1));
        }
        as_root();
        close(go[1]);
    }
    close(made[0]);
    close(go[0]);
    if (cell == 0)
        close(made[1]);
    return cell;
}

static void bring_loopback_up(void)
{
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int file = MUST(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    MUST(ioctl(file, SIOCSIFFLAGS, &request));
    close(file);
}

/* Make the cell's own file systems and bring its loopback interface up. */
static void furnish(const char *space, const char *inodes)
{
    static const struct { const char *name, *value; } buffers[] = {BUFFERS};
    char bounds[128], options[192];
    MUST(mounted("proc", "/proc", "proc", CALM, NULL));
    for (size_t number = 0; number < COUNT(buffers); number++)
        MUST(write_to(buffers[number].name, buffers[number].value));
    /* In a container of one job the engine did so; here it must not, or the kernel would refuse a /proc that shows more. */
    MUST(mounted("/proc/sys", "/proc/sys", NULL, MS_BIND, NULL));
    MUST(mounted(NULL, "/proc/sys", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | CALM, NULL));
    MUST(masks_cover(false));
    MUST(masks_hide());
    snprintf(bounds, sizeof bounds, "size=%s,nr_inodes=%s", space, inodes);
    snprintf(options, sizeof options, "%s,mode=0755,uid=%d,gid=%d", bounds, JOB_UID, JOB_UID);
    MUST(mounted("tmpfs", WORK, "tmpfs", MS_NOSUID | MS_NODEV, options));
    snprintf(options, sizeof options, "%s,mode=1777", bounds);
    MUST(mounted("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, options));
    MUST(mounted("tmpfs", "/dev/shm", "tmpfs", CALM, options));
    MUST(mounted("mqueue", "/dev/mqueue", "mqueue", CALM, NULL));
    /* Its devices work all the same, and their times, which anybody could set, tell the next job nothing. */
    MUST(mounted(NULL, "/dev", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID, NULL));
    bring_loopback_up();
}

static int64_t held(void)
{
    struct memory memory = memory_now();
    return memory.heap + memory.files;
}

/* Wait until no more than `most` bytes are held. The kernel frees System V shared memory and descriptors under way in
 * sockets some time after the last process died. Until then the next job would have that much less. */
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

/* Show the entries of the store only that the parcel names, or all of it, and drop the capabilities that this took. */
int settle(const struct parcel *parcel)
{
    if (parcel->viewed && mount_view(&parcel->store, false))
        return -1;
    keep_bounding_set(0);
    return keep_capabilities(OWN);
}

/* Serve in one cell after the other, until one ends in any other way than by the end of its job. `holder` and the uid
 * after it are the cell's. A job's directories hold `space` bytes and `inodes` files each. */
_Noreturn void serve_many(uid_t holder, const char *space, const char *inodes)
{
    complain_to = 2;  /* what is refused here is no bug: this host does not allow it */
    keep_bounding_set(OWN);
    masks_read();
    int64_t own = held();
    peaks_begin(peaks_by_namespace());
    for (bool first = true;; first = false) {
        int status;
        pid_t cell = make_cell(holder);
        if (cell == 0) {
            gone_code = GONE;
            furnish(space, inodes);
            complain_to = -1;
            serve(!first, true);
        }
        MUST(waitpid(cell, &status, 0));
        if (status != 0)
            _exit(WIFEXITED(status) && WEXITSTATUS(status) == GONE ? 0 : 1);
        if (!freed(own + STRAY))
            _exit(1);
    }
}

/* The porter: gives a waiting container a Nix store that holds only what its job may see.
 *
 * It also covers what the kernel tells of the host there, see masks.c. And it leaves the container's supervisor the
 * peaks of memory as files that can be written to, see peaks.c. On the host the engine has a `porter` as well, which
 * gives the orders.
 *
 * The porter is not the supervisor and sees no job. It runs in a container of its own, among the processes of the
 * engine's host and with the right to mount, and takes orders from the executor alone. An order names the first process
 * of a waiting container, the container, and store paths. Nothing of a job runs in that container yet, so nobody can
 * play tricks on the mounts.
 *
 * Theory of operation. The container was made with the whole store at /nix/store, read-only. The porter enters its
 * mount namespace, and puts a layer over the store. It clones a mount for each path out of the layer. Then it takes the
 * whole store away, puts a small tmpfs in its place, and moves the clones onto that. Paths that are not in the order
 * are then nowhere in the namespace, whatever becomes of the job.
 *
 * A process id may have been given to another process. So the id is turned into a descriptor once, and the process
 * behind that is checked to be in the container's control group.
 */

#include "inside.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>

static bool is_in(int process, const char *container)
{
    char text[65536];
    int group = openat(process, "cgroup", O_RDONLY | O_CLOEXEC);
    if (group < 0)
        return false;
    read_file(group, text, sizeof text);
    close(group);
    return strstr(text, container);
}

/* Return a descriptor of the mount namespace of `pid`, which must be in the container's control group; else set why
 * not. */
static int find(const struct view *order, int home, const char **why)
{
    char path[64];
    struct stat ours, theirs;
    snprintf(path, sizeof path, "/proc/%d", order->pid);
    int process = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), found = -1;
    if (process < 0) {
        *why = strerror(errno);
        return -1;
    }
    if (!is_in(process, order->container.at))
        *why = "the process is not the container's";
    else if ((found = openat(process, "ns/mnt", O_RDONLY | O_CLOEXEC)) < 0)
        *why = strerror(errno);
    close(process);
    if (found < 0)
        return -1;
    MUST(fstat(found, &theirs));
    MUST(fstat(home, &ours));
    if (theirs.st_ino == ours.st_ino) {
        *why = "the process has no mounts of its own";
        close(found);
        return -1;
    }
    return found;
}

static int carry_out(const struct view *order, int namespace, int home)
{
    if (setns(namespace, CLONE_NEWNS))
        return failing("setns");
    int result = masks_cover(PEAKS), number;
    if (!result && order->paths.count)
        result = mount_view(&order->paths, OF_THE_STORE);
    number = errno;
    MUST(setns(home, CLONE_NEWNS));
    errno = number;
    return result;
}

_Noreturn void porter(void)
{
    int home = MUST(open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC));
    masks_read();
    make_ready();
    send_ready();
    for (;;) {
        const struct view *order = &next_message(GIVE_VIEW)->view;
        const char *why = "";
        int namespace = find(order, home, &why);
        if (namespace < 0) {
            send_reason("Gone", why);
            continue;
        }
        if (carry_out(order, namespace, home))
            send_failed();
        else
            send_word("ViewGiven");
        close(namespace);
    }
}

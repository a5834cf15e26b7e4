/* The walls that neither a program of a job nor anything that comes of it can leave: Landlock's rules, the filter of
 * calls, the user.
 *
 * A job writes to its own directories and devices, and to nothing in /proc; see landlock(7). The kernel lets all
 * processes raise their own /proc/PID/oom_score_adj. They may also lower it again, down to what a process with
 * CAP_SYS_RESOURCE last left there. In a container that is 0, as for the host's own daemons, and the supervisor does
 * not have that capability. So the jobs stay the first to be killed where the host's memory is short only because no
 * job may write there. Nothing else in a job's /proc is worth writing to. Descriptors that are opened again by
 * /proc/PID/fd are not part of /proc here.
 *
 * sandbox/seccomp.py makes the filter, and says what it refuses and why.
 */

#include "inside.h"
#include "facts.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/utsname.h>

/* Without the right to REFER, files could no longer move from one directory to another. The right came with this
 * version. */
#define ENOUGH 2
#ifndef LANDLOCK_ACCESS_FS_REFER
#define LANDLOCK_ACCESS_FS_REFER (1ULL << 13)
#endif

static int rules = -1;
static const struct sock_filter filter[] = {FILTER};

static void allow(const char *path, uint64_t allowed)
{
    struct landlock_path_beneath_attr rule = {.allowed_access = allowed};
    rule.parent_fd = MUST(open(path, O_PATH | O_CLOEXEC));
    MUST(syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &rule, 0));
    close(rule.parent_fd);
}

/* Make the rules before the job comes. On a kernel that cannot do it, there are none. */
void confine_prepare(void)
{
    static const char *const own[] = {WORK, "/tmp", "/dev", "/dev/mqueue"};  /* mq_open(3) gets there without a path */
    struct landlock_ruleset_attr handled = {.handled_access_fs = LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REFER};
    if (syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION) < ENOUGH)
        return;
    rules = MUST(syscall(SYS_landlock_create_ruleset, &handled, sizeof handled.handled_access_fs, 0));
    allow("/", LANDLOCK_ACCESS_FS_REFER);
    for (size_t number = 0; number < COUNT(own); number++)
        allow(own[number], LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REFER);
}

/* This needs no right other than no-new-privileges. */
void confine(void)
{
    if (rules >= 0)
        MUST(syscall(SYS_landlock_restrict_self, rules, 0));
}

void filter_calls(void)
{
    struct sock_fprog program = {COUNT(filter), (struct sock_filter *)filter};
    MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    MUST(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0));
}

/* Make the kernel kill this process and its children before the supervisor, where memory is short. */
void be_killed_first(void)
{
    /* Now this process may write its own files in /proc until its uid changes. In a cell they would be somebody else's.
     */
    MUST(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
    MUST(write_to("/proc/self/oom_score_adj", "1000"));
}

void close_above(int last)
{
    if (!syscall(SYS_close_range, last + 1, ~0U, 0))
        return;
    for (int file = last + 1; file < 256; file++)
        close(file);
}

void give_up_rights(void)
{
    share_nothing();
    MUST(setgroups(0, NULL));
    MUST(setresgid(job_uid, job_uid, job_uid));
    MUST(setresuid(job_uid, job_uid, job_uid));
}

/* -- who asks for the network
 *
 * Theory of operation. The kernel counts much for a network namespace, and remembers more: routes, flow labels, what
 * TCP learnt of its peers. All of it begins with a socket that is not a Unix one. So the supervisor has a filter of its
 * own, which its jobs have too. By that filter, each call for such a socket waits until it is let go on. A namespace in
 * which there was no such call is as it was made. See seccomp_unotify(2).
 */

int network_calls = -1;
bool network_used = true;

/* Return whether a kernel of this `release` can let a call go on. Kernels could make a call wait before they could do
 * that. */
bool can_let_go_on(const char *release)
{
    int major = 0, minor = 0;
    return sscanf(release, "%d.%d", &major, &minor) == 2 && (major > 5 || (major == 5 && minor >= 5));
}

void watch_network(void)
{
    struct utsname kernel;
    if (uname(&kernel) || !can_let_go_on(kernel.release))
        return;
    static const struct sock_filter steps[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socketpair, 0, 4),  /* makes them before it says that there is no pair */
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_UNIX, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_NETLINK, 1, 0),  /* the supervisor's; a job gets none, see above */
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {COUNT(steps), (struct sock_filter *)steps};
    network_calls = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
    network_used = network_calls < 0;
}

void let_network_call(void)
{
    struct seccomp_notif call;
    struct seccomp_notif_resp answer = {0};
    memset(&call, 0, sizeof call);
    network_used = true;
    if (ioctl(network_calls, SECCOMP_IOCTL_NOTIF_RECV, &call))
        return;  /* the caller has ended meanwhile */
    answer.id = call.id;
    answer.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
    ioctl(network_calls, SECCOMP_IOCTL_NOTIF_SEND, &answer);
}

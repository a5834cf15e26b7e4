/* Calls of the kernel that the C library has no functions for: namespaces, capabilities. */

#include "inside.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

/* Fork into new namespaces. Only a program with one thread can do that. */
pid_t fork_into(unsigned long spaces)
{
    return syscall(SYS_clone, spaces | SIGCHLD, 0, 0, 0, 0);
}

/* Keep these capabilities, as permitted and effective, and no others. */
int keep_capabilities(uint64_t kept)
{
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct sets[2] = {{kept, kept, 0}, {kept >> 32, kept >> 32, 0}};
    return syscall(SYS_capset, &head, sets) ? failing("capset") : 0;
}

/* Let no program that is started from here on gain any other capability. */
void keep_bounding_set(uint64_t kept)
{
    for (int number = 0; number < 64; number++)
        if (!(kept >> number & 1) && prctl(PR_CAPBSET_DROP, number, 0, 0, 0) < 0)
            return;  /* the last one that the kernel knows was the one before */
}

int mounted(const char *from, const char *on, const char *kind, unsigned long flags, const char *options)
{
    return mount(from, on, kind, flags, options) ? failing(from && *from == '/' && !(flags & MS_MOVE) ? from : on) : 0;
}

int write_to(const char *path, const char *content)
{
    int file = open(path, O_WRONLY | O_CLOEXEC);
    if (file < 0)
        return failing(path);
    ssize_t size = write(file, content, strlen(content));
    close(file);
    return size < 0 ? failing(path) : 0;
}

int make_file(const char *path, const char *content, mode_t mode)
{
    int file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (file < 0)
        return failing(path);
    ssize_t size = write(file, content, strlen(content));
    close(file);
    return size < 0 ? failing(path) : 0;
}

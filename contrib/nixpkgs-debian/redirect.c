/*
 * Debian's programs look for their own files below /usr, /etc and /var, where a job has nothing. A program of a package that
 * is fetched on demand is linked to this library, which finds such a file in the store instead.
 *
 * Theory of operation. The library comes before libc in the order in which a program's symbols are looked up, so these
 * functions are called in the place of libc's. A path below one of Debian's directories is looked for below each of the
 * roots, the way unit.sh laid out what was there. The first that exists is taken; where none does, the path stays as it
 * is. unit.sh writes the roots into a copy of the library for each package. Programs that the program starts are not
 * linked to it, and nothing is in their environment.
 *
 * What libc opens by itself is not redirected, nor are programs that make system calls without libc.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PLACEHOLDER "@roots@"
#define ROOM 8192

/* Store paths with a space after each. Not a constant for the compiler: the file is changed later. */
static volatile char roots[ROOM] = PLACEHOLDER;

static int begins(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

/* Where below a root Debian's `path` is, as mapped() of unit.sh has it; NULL where it is none of Debian's. */
static const char *below_root(const char *path, const char **directory)
{
    static const char triplet[] = "lib/" TRIPLET "/";

    *directory = "";
    if (begins(path, "/usr/"))
        path += 5;
    else if (begins(path, "/etc/") || begins(path, "/bin/") || begins(path, "/sbin/") || begins(path, "/lib/") ||
             begins(path, "/lib64/") || begins(path, "/var/"))
        path += 1;
    else
        return NULL;
    if (begins(path, triplet))
        path += sizeof triplet - 1, *directory = "lib/";
    else if (begins(path, "lib64/"))
        path += 6, *directory = "lib/";
    else if (begins(path, "sbin/"))
        path += 5, *directory = "bin/";
    return path;
}

/* The path in the store, written into `found`, or `path` itself. */
static const char *in_store(const char *path, char found[PATH_MAX])
{
    const char *directory, *relative;
    int before = errno;

    if (path == NULL || path[0] != '/' || (relative = below_root(path, &directory)) == NULL)
        return path;
    for (size_t at = 0; roots[at] == '/';) {
        size_t length = 0;
        while (at < ROOM && roots[at] != ' ' && roots[at] != '\0' && length < PATH_MAX - 1)
            found[length++] = roots[at++];
        at += roots[at] == ' ';
        int rest = snprintf(found + length, PATH_MAX - length, "/%s%s", directory, relative);
        /* By number, since faccessat is one of the functions below. */
        if (rest > 0 && (size_t)rest < PATH_MAX - length && syscall(SYS_faccessat, AT_FDCWD, found, F_OK) == 0) {
            errno = before;
            return found;
        }
    }
    errno = before;
    return path;
}

#define NEXT(name) \
    static typeof(&name) next; \
    if (next == NULL) \
        next = (typeof(&name))dlsym(RTLD_NEXT, #name)

#define COMMA ,
/* A function whose path is its second argument, and below, its first. */
#define SECOND(result, name, type, rest_declared, rest) \
    result name(type first, const char *path rest_declared) \
    { \
        char found[PATH_MAX]; \
        NEXT(name); \
        return next(first, in_store(path, found) rest); \
    }
#define PATH_ONLY(result, name) \
    result name(const char *path) \
    { \
        char found[PATH_MAX]; \
        NEXT(name); \
        return next(in_store(path, found)); \
    }
#define PATH_AND(result, name, type) \
    result name(const char *path, type second) \
    { \
        char found[PATH_MAX]; \
        NEXT(name); \
        return next(in_store(path, found), second); \
    }

/* The mode is passed on also where there is none: then nobody reads it. */
#define OPEN(name) \
    int name(const char *path, int flags, ...) \
    { \
        char found[PATH_MAX]; \
        va_list more; \
        NEXT(name); \
        va_start(more, flags); \
        mode_t mode = va_arg(more, mode_t); \
        va_end(more); \
        return next(in_store(path, found), flags, mode); \
    }
#define OPENAT(name) \
    int name(int directory, const char *path, int flags, ...) \
    { \
        char found[PATH_MAX]; \
        va_list more; \
        NEXT(name); \
        va_start(more, flags); \
        mode_t mode = va_arg(more, mode_t); \
        va_end(more); \
        return next(directory, in_store(path, found), flags, mode); \
    }

/* What programs call that were compiled with _FORTIFY_SOURCE, or for a libc before 2.33. No header declares them. */
int __open_2(const char *, int);
int __open64_2(const char *, int);
int __openat_2(int, const char *, int);
int __openat64_2(int, const char *, int);
int __xstat(int, const char *, struct stat *);
int __xstat64(int, const char *, struct stat64 *);
int __lxstat(int, const char *, struct stat *);
int __lxstat64(int, const char *, struct stat64 *);
ssize_t __readlink_chk(const char *, char *, size_t, size_t);
char *__realpath_chk(const char *, char *, size_t);

OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)
PATH_AND(int, __open_2, int)
PATH_AND(int, __open64_2, int)
SECOND(int, __openat_2, int, COMMA int flags, COMMA flags)
SECOND(int, __openat64_2, int, COMMA int flags, COMMA flags)
PATH_AND(FILE *, fopen, const char *)
PATH_AND(FILE *, fopen64, const char *)
PATH_AND(int, stat, struct stat *)
PATH_AND(int, stat64, struct stat64 *)
PATH_AND(int, lstat, struct stat *)
PATH_AND(int, lstat64, struct stat64 *)
SECOND(int, fstatat, int, COMMA struct stat *status COMMA int flags, COMMA status COMMA flags)
SECOND(int, fstatat64, int, COMMA struct stat64 *status COMMA int flags, COMMA status COMMA flags)
SECOND(int, statx, int, COMMA int flags COMMA unsigned mask COMMA struct statx *status,
       COMMA flags COMMA mask COMMA status)
SECOND(int, __xstat, int, COMMA struct stat *status, COMMA status)
SECOND(int, __xstat64, int, COMMA struct stat64 *status, COMMA status)
SECOND(int, __lxstat, int, COMMA struct stat *status, COMMA status)
SECOND(int, __lxstat64, int, COMMA struct stat64 *status, COMMA status)
PATH_AND(int, access, int)
PATH_AND(int, eaccess, int)
PATH_AND(int, euidaccess, int)
SECOND(int, faccessat, int, COMMA int mode COMMA int flags, COMMA mode COMMA flags)
PATH_ONLY(DIR *, opendir)
PATH_ONLY(int, chdir)
PATH_ONLY(char *, canonicalize_file_name)
PATH_AND(char *, realpath, char *)

char *__realpath_chk(const char *path, char *resolved, size_t room)
{
    char found[PATH_MAX];
    NEXT(__realpath_chk);
    return next(in_store(path, found), resolved, room);
}

ssize_t readlink(const char *path, char *target, size_t room)
{
    char found[PATH_MAX];
    NEXT(readlink);
    return next(in_store(path, found), target, room);
}

ssize_t __readlink_chk(const char *path, char *target, size_t room, size_t known)
{
    char found[PATH_MAX];
    NEXT(__readlink_chk);
    return next(in_store(path, found), target, room, known);
}

int scandir(const char *path, struct dirent ***list, int (*wanted)(const struct dirent *),
            int (*order)(const struct dirent **, const struct dirent **))
{
    char found[PATH_MAX];
    NEXT(scandir);
    return next(in_store(path, found), list, wanted, order);
}

int scandir64(const char *path, struct dirent64 ***list, int (*wanted)(const struct dirent64 *),
              int (*order)(const struct dirent64 **, const struct dirent64 **))
{
    char found[PATH_MAX];
    NEXT(scandir64);
    return next(in_store(path, found), list, wanted, order);
}

int execve(const char *path, char *const arguments[], char *const environment[])
{
    char found[PATH_MAX];
    NEXT(execve);
    return next(in_store(path, found), arguments, environment);
}

int execv(const char *path, char *const arguments[])
{
    char found[PATH_MAX];
    NEXT(execv);
    return next(in_store(path, found), arguments);
}

int execvp(const char *path, char *const arguments[])
{
    char found[PATH_MAX];
    NEXT(execvp);
    return next(in_store(path, found), arguments);
}

int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attributes,
                char *const arguments[], char *const environment[])
{
    char found[PATH_MAX];
    NEXT(posix_spawn);
    return next(pid, in_store(path, found), actions, attributes, arguments, environment);
}

int posix_spawnp(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
                 const posix_spawnattr_t *attributes, char *const arguments[], char *const environment[])
{
    char found[PATH_MAX];
    NEXT(posix_spawnp);
    return next(pid, in_store(path, found), actions, attributes, arguments, environment);
}

/*
 * libc looks for a library without a directory the way the caller of dlopen is linked, and takes the return address for
 * the caller. So only a path may be opened from here, and anything else is a jump to libc's own.
 */
static void *open_library(const char *path, int mode)
{
    char found[PATH_MAX];
    NEXT(dlopen);
    return next(in_store(path, found), mode);
}

void *dlopen(const char *path, int mode)
{
    NEXT(dlopen);
    if (path != NULL && path[0] == '/')
        return open_library(path, mode);
    return next(path, mode);
}

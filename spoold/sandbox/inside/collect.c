/* The files that come back of a work directory. A process with the job's rights (apart.c) finds them by one walk
 * through the directory and reads them, when nothing of the job lives.
 *
 * There may be any names, and any number of them, so there is a bound on what is kept of the walk. The names that come
 * first are kept: those of the first pattern first, then in the order of their bytes, whatever the order in which they
 * are met. Links are not followed, and only regular files are opened. A directory or file that the job closed to itself
 * is made accessible first. All other names that match are counted.
 */

#include "inside.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define OFTEN 256 /* names between two looks at the clock */
#define PIECE 65536
#define BENEATH (RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV)

struct found {
    uint64_t size;
    uint32_t mode, matched;
    size_t name_size;
    char name[];  /* a path below the work directory, with a NUL after it */
};

static const struct wanted *wanted;
static struct left_out left_out;
static struct found **found;
static size_t found_count;
static char path[LONGEST_OUTPUT + NAME_MAX + 2];
static struct part names[DEEPEST_OUTPUT + 1];  /* the names in the path */
static size_t names_met;
static int64_t until;

/* -- what comes first */

static int in_order(const struct found *one, const struct found *other)
{
    int first = __builtin_ctz(one->matched), second = __builtin_ctz(other->matched);
    return first != second ? first - second : strcmp(one->name, other->name);
}

/* Remember a file, unless enough others come before it. A file that it pushes out is counted. */
static void remember(size_t size, const struct stat *status, uint32_t matched)
{
    struct found *made = room_for(sizeof *made + size + 1);
    *made = (struct found){status->st_size, status->st_mode & 07777, matched, size};
    memcpy(made->name, path, size + 1);
    size_t low = 0, high = found_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (in_order(found[middle], made) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    if (found_count == wanted->files) {
        left_out.many++;
        if (low == found_count) {
            free(made);
            return;
        }
        free(found[--found_count]);
    }
    memmove(&found[low + 1], &found[low], (found_count - low) * sizeof *found);
    found[low] = made;
    found_count++;
}

/* -- the walk */

/* No request has such a name, whatever the rest of its path is. The host knows the other rules. */
static bool is_unfit(const char *name)
{
    for (const char *at = name; *at; at++)
        if ((unsigned char)*at < ' ' || *at == '\x7f' || *at == '\\')
            return true;
    return *name == '-';
}

static bool is_over(void)
{
    return ++names_met % OFTEN == 0 && own_cpu() > until;
}

static void walk(int directory, size_t depth, size_t size, uint32_t alive);

static void enter(int parent, const char *name, const struct stat *status, size_t depth, size_t size, uint32_t alive)
{
    alive = patterns_below(alive, names, depth);
    if (!alive)
        return;
    if (is_unfit(name)) {
        left_out.names++;
        return;
    }
    if (depth > DEEPEST_OUTPUT || size >= LONGEST_OUTPUT) {
        left_out.deep++;
        return;
    }
    bool closed = (status->st_mode & 0700) != 0700 && fchmodat(parent, name, 0700, 0);
    int directory = closed ? -1 : openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (directory < 0)
        left_out.closed++;
    else
        walk(directory, depth, size, alive);
}

static void meet_file(const char *name, const struct stat *status, size_t depth, size_t size, uint32_t alive)
{
    uint32_t matched = patterns_of(alive, names, depth);
    if (!matched)
        return;
    if (!S_ISREG(status->st_mode))
        left_out.odd++;
    else if (is_unfit(name) || size > LONGEST_OUTPUT)
        left_out.names++;
    else if (status->st_size > wanted->file_size)
        left_out.large++;
    else
        remember(size, status, matched);
}

/* Go through a directory, and close it. `depth` names lead there. With their slashes they have `size` bytes. */
static void walk(int directory, size_t depth, size_t size, uint32_t alive)
{
    DIR *entries = fdopendir(directory);
    if (!entries)
        BROKEN("no memory is left");
    for (const struct dirent *entry; (entry = readdir(entries));) {
        struct stat status;
        size_t more = strlen(entry->d_name);
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        if (is_over()) {
            left_out.slow++;
            break;
        }
        memcpy(path + size, entry->d_name, more + 1);
        names[depth] = (struct part){path + size, more};
        if (fstatat(directory, entry->d_name, &status, AT_SYMLINK_NOFOLLOW)) {
            left_out.closed++;
        } else if (S_ISDIR(status.st_mode)) {
            path[size + more] = '/';
            enter(directory, entry->d_name, &status, depth + 1, size + more + 1, alive);
        } else {
            meet_file(entry->d_name, &status, depth + 1, size + more, alive);
        }
    }
    closedir(entries);
}

/* -- what is told */

static void tell(const void *from, size_t size)
{
    for (size_t at = 0; at < size;) {
        ssize_t got = write(ANSWER, (const char *)from + at, size - at);
        if (got <= 0)
            _exit(1);
        at += got;
    }
}

static int open_beneath(int work, const char *name)
{
    struct open_how how = {
        .flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC,
        .resolve = BENEATH,
    };
    return syscall(SYS_openat2, work, name, &how, sizeof how);
}

/* Return a descriptor of a file that is as it was met, -1 where it has changed or cannot be opened. */
static int open_found(int work, const struct found *this)
{
    struct stat status;
    int file = open_beneath(work, this->name);
    if (file < 0 && errno == EACCES && !fchmodat(work, this->name, 0600, 0))
        file = open_beneath(work, this->name);
    if (file >= 0 && (fstat(file, &status) || !S_ISREG(status.st_mode) || (uint64_t)status.st_size != this->size)) {
        close(file);
        return -1;
    }
    return file;
}

static void tell_file(int file, const struct found *this)
{
    static char piece[PIECE];
    struct collected head;
    memset(&head, 0, sizeof head);
    head.kind = A_FILE;
    head.mode = this->mode;
    head.matched = this->matched;
    head.name_size = this->name_size;
    head.size = this->size;
    tell(&head, sizeof head);
    tell(this->name, this->name_size);
    for (uint64_t left = this->size; left;) {
        ssize_t got = read(file, piece, left < PIECE ? left : PIECE);
        if (got <= 0)
            _exit(1);
        tell(piece, got);
        left -= got;
    }
}

static void tell_all(int work)
{
    int64_t total = wanted->total;
    for (size_t number = 0; number < found_count; number++) {
        const struct found *this = found[number];
        if ((int64_t)this->size > total) {
            left_out.total++;
            continue;
        }
        int file = open_found(work, this);
        if (file < 0) {
            left_out.closed++;
            continue;
        }
        tell_file(file, this);
        close(file);
        total -= this->size;
    }
    struct collected end;
    memset(&end, 0, sizeof end);
    end.kind = THE_END;
    end.left_out = left_out;
    tell(&end, sizeof end);
}

void collect(const void *about)
{
    struct stat status;
    wanted = about;
    until = own_cpu() + wanted->walking;
    patterns_begin(&wanted->patterns);
    found = room_for((wanted->files + 1) * sizeof *found);
    MUST(lstat(WORK, &status));
    if ((status.st_mode & 0700) != 0700)
        MUST(chmod(WORK, 0700));
    int work = MUST(open(WORK, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    walk(MUST(fcntl(work, F_DUPFD_CLOEXEC, 0)), 0, 0, patterns_all());
    tell_all(work);
}

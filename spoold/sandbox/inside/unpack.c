/* Unpacking an archive into the empty work directory, see archive.h. A process apart does it, with the job's rights.
 *
 * Each byte of the archive may have any value. A name is one name, everything is made anew in a directory that was made
 * here, and no link is followed. So nothing comes to lie elsewhere. Each step reads on, so unpacking ends where the
 * archive does.
 *
 * A directory gets its times when everything in it is there, and then its mode. A directory that is closed to its own
 * user gets its mode last of all, since hard links to what is in it may still come.
 */

#include "archive.h"

#include <fcntl.h>
#include <stdlib.h>

struct level {
    int directory;
    mode_t mode;
    struct timespec times[2];
    size_t before;  /* the size of its parent's path */
};

struct paths {
    size_t count, room;
    struct { char *path; mode_t mode; } *of;
};

static char buffer[PIECE];
static size_t at, have;     /* the next byte in the buffer, and the end of the last */
static uint64_t read_;      /* bytes of the archive that have come into the buffer */
static struct place place;
static struct snapshot told;
static struct level levels[DEEPEST + 1];
static int depth = -1;      /* of the current directory; that of the work directory is 0 */
static struct paths shared; /* files that may have more names, by number */
static struct paths closed; /* directories that will be closed, the deepest first */

static void refuse_if(bool failed)
{
    if (failed)
        give_up(&place, errno);
}

static void need(bool good)
{
    if (!good)
        give_up(&place, EBADMSG);
}

static int current(void)
{
    return levels[depth].directory;
}

static void remember(struct paths *paths, mode_t mode)
{
    if (paths->count == paths->room) {
        paths->room = paths->room ? 2 * paths->room : 64;
        paths->of = realloc(paths->of, paths->room * sizeof *paths->of);
        refuse_if(!paths->of);
    }
    char *path = strdup(place.path);
    refuse_if(!path);
    paths->of[paths->count].path = path;
    paths->of[paths->count++].mode = mode;
}

/* -- the archive */

/* Read on until `size` of the next bytes, or more, are in the buffer, which has room for them. */
static void fetch(size_t size)
{
    if (size <= have - at)
        return;
    memmove(buffer, buffer + at, have - at);
    have -= at;
    at = 0;
    while (have < size) {
        ssize_t got = pread(KEPT_APART, buffer + have, sizeof buffer - have, read_);
        refuse_if(got < 0);
        need(got > 0);
        have += got;
        read_ += got;
    }
}

static void take(void *to, size_t size)
{
    fetch(size);
    memcpy(to, buffer + at, size);
    at += size;
}

/* Take a text, which has no NUL. `to` has room for one after it. */
static void take_text(char *to, size_t size)
{
    take(to, size);
    to[size] = '\0';
    need(strlen(to) == size);
}

static void take_name(char *to, size_t size)
{
    need(size > 0 && size <= NAME_MAX);
    take_text(to, size);
    need(!strchr(to, '/') && strcmp(to, ".") && strcmp(to, ".."));
}

static struct record take_record(void)
{
    struct record record;
    take(&record, sizeof record);
    need(!(record.mode & ~OWN_BITS));
    for (int number = 0; number < 2; number++)
        need(record.times[number].tv_nsec >= 0 && record.times[number].tv_nsec < 1000000000);
    return record;
}

/* -- files */

static void take_piece(int file, struct extent extent)
{
    while (extent.size) {
        fetch(1);
        size_t size = have - at < extent.size ? have - at : extent.size;
        ssize_t got = pwrite(file, buffer + at, size, extent.at);
        refuse_if(got <= 0);
        at += got;
        extent.at += got;
        extent.size -= got;
    }
}

static void take_content(int file, uint64_t size)
{
    struct extent extent;
    uint64_t end = 0;
    need(size <= INT64_MAX);
    for (;;) {
        take(&extent, sizeof extent);
        if (!extent.size)
            break;
        need(extent.at >= end && extent.at < size && extent.size <= size - extent.at);
        take_piece(file, extent);
        end = extent.at + extent.size;
    }
    if (end < size)
        refuse_if(ftruncate(file, size));
}

static void lay_file(const char *name, const struct record *record)
{
    int file = openat(current(), name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, record->mode);
    refuse_if(file < 0);
    take_content(file, record->size);
    if (record->mode & ~0777)
        refuse_if(fchmod(file, record->mode));  /* writing took some of these bits away */
    refuse_if(futimens(file, record->times));
    close(file);
}

static void lay_link(const char *name, const struct record *record)
{
    need(record->size < shared.count);
    refuse_if(linkat(levels[0].directory, shared.of[record->size].path, current(), name, 0));
}

static void lay_symlink(const char *name, const struct record *record)
{
    char target[PATH_MAX];
    need(record->size > 0 && record->size < sizeof target);
    take_text(target, record->size);
    refuse_if(symlinkat(target, current(), name));
    refuse_if(utimensat(current(), name, record->times, AT_SYMLINK_NOFOLLOW));
}

/* -- directories */

static void descend(int parent, const char *name, const struct record *record, size_t before)
{
    need(depth < DEEPEST);
    int directory = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    refuse_if(directory < 0);
    levels[++depth] = (struct level){directory, record->mode, {record->times[0], record->times[1]}, before};
}

static void close_all(void)
{
    for (size_t number = 0; number < closed.count; number++)
        refuse_if(fchmodat(current(), closed.of[number].path, closed.of[number].mode, 0));
}

static void ascend(void)
{
    const struct level *level = &levels[depth];
    bool last = depth == 0;
    if (last)
        close_all();
    refuse_if(futimens(level->directory, level->times));
    if (last || level->mode & S_IXUSR)
        refuse_if(fchmod(level->directory, level->mode));
    else
        remember(&closed, level->mode);
    close(level->directory);
    leave_to(&place, level->before);
    depth--;
}

/* -- all of it */

static void lay(const struct record *record)
{
    char name[NAME_MAX + 1];
    take_name(name, record->name_size);
    size_t before = enter(&place, name);
    told.entries++;
    switch (record->kind) {
    case DIRECTORY:
        refuse_if(mkdirat(current(), name, 0700));
        descend(current(), name, record, before);
        return;
    case REGULAR:
        lay_file(name, record);
        break;
    case SYMLINK:
        lay_symlink(name, record);
        break;
    case LINK:
        lay_link(name, record);
        break;
    default:
        need(false);
    }
    if (record->shared && record->kind != LINK)
        remember(&shared, 0);
    leave_to(&place, before);
}

void unpack(const void *nothing)
{
    struct head head;
    struct stat status;
    (void)nothing;
    umask(0);
    refuse_if(fstat(KEPT_APART, &status));
    take(&head, sizeof head);
    need(head.magic == MAGIC && head.format == FORMAT && head.size == (uint64_t)status.st_size);
    struct record record = take_record();
    need(record.kind == DIRECTORY && record.name_size == 0);
    told.entries++;
    descend(AT_FDCWD, WORK, &record, 0);
    while (depth >= 0) {
        record = take_record();
        if (record.kind == LEAVE)
            ascend();
        else
            lay(&record);
    }
    need(read_ - (have - at) == head.size);
    answer(&told);
}

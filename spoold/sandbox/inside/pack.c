/* Packing the work directory into an archive, see archive.h. A process apart does it, with the job's rights.
 *
 * Everything is reached from the directory that it is in, by one name and without following links. A directory or file
 * that the job closed to itself is made accessible first. This changes modes, and packing empties files. That does no
 * harm: see snapshot.c.
 */

#include "archive.h"

#include <dirent.h>
#include <fcntl.h>
#include <search.h>
#include <stdlib.h>

#define OF_ENTRY 1024  /* bytes that the kernel keeps for a file, about, beside its content */
#define PAGE 4096ULL

struct known {
    ino_t inode;
    uint64_t number;
};

/* The names of a directory, each with a NUL after it. */
struct names {
    char *at;
    size_t size, room;
};

static char buffer[PIECE];
static size_t used;
static uint64_t written, most;
static struct place place;
static struct snapshot told;
static void *shared;           /* a tree of the files that have more than one name */
static uint64_t shared_count;

static void refuse_if(bool failed)
{
    if (failed)
        give_up(&place, errno);
}

/* -- the archive */

static void write_at(const void *from, size_t size, uint64_t at)
{
    for (size_t done = 0; done < size;) {
        ssize_t got = pwrite(KEPT_APART, (const char *)from + done, size - done, at + done);
        refuse_if(got <= 0);
        done += got;
    }
}

static void flush(void)
{
    if (used > most - written)
        give_up(&place, EFBIG);
    write_at(buffer, used, written);
    written += used;
    used = 0;
}

static void add(const void *from, size_t size)
{
    if (size > sizeof buffer - used)
        flush();
    memcpy(buffer + used, from, size);
    used += size;
}

/* Count memory that unpacking takes. */
static void count(uint64_t size)
{
    told.room += size;
    if (told.room > most)
        give_up(&place, EFBIG);
}

static bool is_shared(const struct stat *status)
{
    return status->st_nlink > 1 && !S_ISDIR(status->st_mode);
}

static void add_record(enum kind kind, const char *name, const struct stat *status, uint64_t size)
{
    struct record record;
    memset(&record, 0, sizeof record);
    record.kind = kind;
    record.shared = is_shared(status);
    record.name_size = strlen(name);
    record.mode = status->st_mode & OWN_BITS;
    record.size = size;
    record.times[0] = status->st_atim;
    record.times[1] = status->st_mtim;
    add(&record, sizeof record);
    add(name, record.name_size);
    told.entries++;
    bool in_mind = kind == DIRECTORY || (record.shared && kind != LINK);  /* unpack.c remembers its path */
    count(OF_ENTRY + (in_mind ? place.size : 0));
}

/* -- files */

static int by_inode(const void *one, const void *other)
{
    ino_t first = ((const struct known *)one)->inode, second = ((const struct known *)other)->inode;
    return (first > second) - (first < second);
}

/* Return whether another name of a file was met before, and set the number that the file got then. */
static bool was_met(const struct stat *status, uint64_t *number)
{
    if (!is_shared(status))
        return false;
    struct known *made = room_for(sizeof *made);
    *made = (struct known){status->st_ino, shared_count};
    struct known **found = tsearch(made, &shared, by_inode);
    refuse_if(!found);
    bool met = *found != made;
    if (met)
        free(made);
    else
        shared_count++;
    *number = (*found)->number;
    return met;
}

/* Add a piece of a file, and free the memory of the bytes that were added. */
static void add_piece(int file, struct extent extent)
{
    uint64_t done = 0, freed = 0;
    add(&extent, sizeof extent);
    while (done < extent.size) {
        uint64_t left = extent.size - done;
        if (used == sizeof buffer)
            flush();
        size_t room = sizeof buffer - used;
        ssize_t got = pread(file, buffer + used, left < room ? left : room, extent.at + done);
        if (got == 0)
            errno = EIO;
        refuse_if(got <= 0);
        used += got;
        done += got;
        if (done - freed < PIECE)
            continue;
        fallocate(file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, extent.at + freed, done - freed);
        freed = done;
    }
    count((extent.at + extent.size + PAGE - 1) / PAGE * PAGE - extent.at / PAGE * PAGE);
}

/* Return the next piece of a file that is no hole, one of no size where there is none. */
static struct extent next_piece(int file, uint64_t from, const struct stat *status)
{
    uint64_t size = status->st_size;
    if (from == size || (uint64_t)status->st_blocks * 512 >= size)
        return (struct extent){from, size - from};
    off_t at = lseek(file, from, SEEK_DATA);
    if (at < 0 && errno == ENXIO)
        return (struct extent){size, 0};
    off_t end = at < 0 ? -1 : lseek(file, at, SEEK_HOLE);
    refuse_if(end < 0);
    return (struct extent){at, end - at};
}

static void add_file(int parent, const char *name, const struct stat *status)
{
    static const struct extent none;
    add_record(REGULAR, name, status, status->st_size);
    if (status->st_size) {
        if ((status->st_mode & 0600) != 0600)
            refuse_if(fchmodat(parent, name, 0600, 0));
        int file = openat(parent, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        refuse_if(file < 0);
        struct extent piece = next_piece(file, 0, status);
        for (; piece.size; piece = next_piece(file, piece.at + piece.size, status))
            add_piece(file, piece);
        refuse_if(ftruncate(file, 0));
        close(file);
    }
    add(&none, sizeof none);
}

static void add_symlink(int parent, const char *name, const struct stat *status)
{
    char target[PATH_MAX];
    ssize_t size = readlinkat(parent, name, target, sizeof target);
    refuse_if(size < 0);
    add_record(SYMLINK, name, status, size);
    add(target, size);
}

/* -- directories */

static struct names names_of(int directory)
{
    static _Alignas(struct dirent64) char space[32768];
    struct names names = {NULL, 0, 0};
    ssize_t got;
    while ((got = getdents64(directory, space, sizeof space)) > 0) {
        for (ssize_t at = 0; at < got; at += ((const struct dirent64 *)(space + at))->d_reclen) {
            const char *name = ((const struct dirent64 *)(space + at))->d_name;
            size_t size = strlen(name) + 1;
            if (!strcmp(name, ".") || !strcmp(name, ".."))
                continue;
            if (size > names.room - names.size) {
                names.room = 2 * names.room + sizeof space;
                names.at = realloc(names.at, names.room);
                refuse_if(!names.at);
            }
            memcpy(names.at + names.size, name, size);
            names.size += size;
        }
    }
    refuse_if(got < 0);
    return names;
}

static void add_directory(int parent, const char *name, const struct stat *status, int depth);

static void add_any(int parent, const char *name, int depth)
{
    struct stat status;
    uint64_t number;
    size_t before = enter(&place, name);
    refuse_if(fstatat(parent, name, &status, AT_SYMLINK_NOFOLLOW));
    mode_t kind = status.st_mode & S_IFMT;
    if (kind == S_IFIFO)
        told.pipes++;
    else if (kind == S_IFSOCK)
        told.sockets++;
    else if (kind == S_IFDIR)
        add_directory(parent, name, &status, depth);
    else if (kind != S_IFREG && kind != S_IFLNK)
        told.devices++;
    else if (was_met(&status, &number))
        add_record(LINK, name, &status, number);
    else if (kind == S_IFREG)
        add_file(parent, name, &status);
    else
        add_symlink(parent, name, &status);
    leave_to(&place, before);
}

/* A file system in memory lists the newest entry first. So the last one is packed first, and the unpacked directory has
 * the same order. */
static void add_directory(int parent, const char *name, const struct stat *status, int depth)
{
    static const struct record leave = {.kind = LEAVE};
    if (depth > DEEPEST)
        give_up(&place, ENAMETOOLONG);
    if ((status->st_mode & 0700) != 0700)
        refuse_if(fchmodat(parent, name, 0700, 0));
    int directory = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    refuse_if(directory < 0);
    add_record(DIRECTORY, depth ? name : "", status, 0);
    struct names names = names_of(directory);
    for (size_t end = names.size; end;) {
        size_t begin = end - 1;
        while (begin && names.at[begin - 1])
            begin--;
        add_any(directory, names.at + begin, depth + 1);
        end = begin;
    }
    free(names.at);
    close(directory);
    add(&leave, sizeof leave);
}

void pack(const void *about)
{
    struct head head = {MAGIC, FORMAT, 0};
    struct stat status;
    most = *(const uint64_t *)about;
    add(&head, sizeof head);
    refuse_if(lstat(WORK, &status));
    add_directory(AT_FDCWD, WORK, &status, 0);
    flush();
    head.size = written;
    write_at(&head, sizeof head, 0);
    answer(&told);
}

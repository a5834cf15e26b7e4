/* The job's files: its own directory, written as the job's user before anything has run, and the large ones of them. */

#include "inside.h"
#include "facts.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define DEEPEST 64        /* directories below one another in which large files are looked for; all are open at once */
#define MOST_LARGE 16384  /* large files of an earlier phase that are remembered */

uid_t job_uid = JOB_UID;

void as_job(void)
{
    MUST(setegid(job_uid));
    MUST(seteuid(job_uid));
}

void as_root(void)
{
    MUST(seteuid(0));
    MUST(setegid(0));
}

/* -- what comes */

static bool full(void)
{
    return errno == ENOSPC || errno == EDQUOT || errno == ENOMEM;
}

static int fill(int file, size_t size)
{
    const char *piece;
    while (size) {
        size_t got = raw(&piece, size);
        size -= got;
        while (got) {
            ssize_t written = write(file, piece, got);
            if (written < 0)
                return -1;
            piece += written;
            got -= written;
        }
    }
    return 0;
}

/* Make the directories that a name is in. A name that ends with a slash is a directory, and is made too. Nothing of the
 * job runs yet. */
static int make_parents(const struct string *name)
{
    char path[PATH_MAX];
    if (name->size == 0 || name->size + sizeof WORK + 1 > sizeof path)
        BROKEN("bad file name");
    snprintf(path, sizeof path, WORK "/%s", name->at);
    char *part = path + sizeof WORK;
    for (char *end; *part; part = end + (*end == '/')) {
        end = part + strcspn(part, "/");
        if (end == part || !strncmp(part, "./", 2) || !strncmp(part, "../", 3) || !strcmp(part, ".") || !strcmp(part, ".."))
            BROKEN("bad file name");
        if (*end == '\0')
            return 0;
        *end = '\0';
        if (mkdir(path, 0755) && errno != EEXIST)
            return -1;
        *end = '/';
    }
    return 0;
}

static int write_file(const struct file *file)
{
    char path[PATH_MAX];
    if (make_parents(&file->name))
        return -1;
    if (file->name.at[file->name.size - 1] == '/')
        return 0;
    snprintf(path, sizeof path, WORK "/%s", file->name.at);
    int made = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, file->mode);
    if (made < 0 || fill(made, file->size) || fchmod(made, file->mode))
        return -1;
    return close(made);
}

/* Unpack what another container kept into the work directory. The memory that this takes on the way is freed. */
static int restore(size_t size)
{
    struct snapshot told;
    int archive = memfd_create("kept", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (archive < 0 || fill(archive, size))
        return -1;
    MUST(fcntl(archive, F_ADD_SEALS, SNAPSHOT_SEALS));
    int result = snapshot_restore(archive, &told), number = errno;
    close(archive);
    errno = number;
    return result;
}

/* Unpack the kept work directory, write the files that follow the parcel, and return a descriptor of the input after
 * them, -1 where there is no room. */
int receive(const struct parcel *parcel)
{
    char path[32];
    int input = -1, memory = -1;
    bool restored = !parcel->archive_size || !restore(parcel->archive_size);
    as_job();
    if (!restored)
        goto failed;
    for (size_t number = 0; number < parcel->count; number++)
        if (write_file(&parcel->files[number]))
            goto failed;
    memory = memfd_create("stdin", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (memory < 0 || fill(memory, parcel->stdin_size))
        goto failed;
    MUST(fcntl(memory, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK));
    snprintf(path, sizeof path, "/proc/self/fd/%d", memory);
    input = MUST(open(path, O_RDONLY | O_CLOEXEC));
    close(memory);
    as_root();
    return input;
failed:
    if (!full() && !(parcel->archive_size && restored))  /* compile.sh may have put something in its place */
        FAILED_AT("a file of the job cannot be written");  /* its name is good, so the job has no part in this */
    int number = errno;
    as_root();
    errno = number;
    return -1;
}

/* -- what goes */

static void send_kept(int archive, const struct snapshot *kept)
{
    char space[512], piece[32 * 1024];
    struct text body = {space, 0, sizeof space};
    put(&body, "d", 1);
    put_integer(&body, "bytes", kept->bytes);
    put_integer(&body, "devices", kept->devices);
    put_integer(&body, "entries", kept->entries);
    put_string(&body, "event", "Kept", 4);
    put_integer(&body, "pipes", kept->pipes);
    put_integer(&body, "room", kept->room);
    put_integer(&body, "sockets", kept->sockets);
    put(&body, "e", 1);
    send_frame(&body);
    for (uint64_t at = 0; at < kept->bytes;) {
        ssize_t size = pread(archive, piece, sizeof piece, at);
        if (size <= 0)
            FAILED_AT("an archive cannot be read");
        send_bytes(piece, size);
        at += size;
    }
}

void hand_over(uint64_t most)
{
    char reason[320];
    struct snapshot kept;
    int archive = MUST(memfd_create("kept", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (!snapshot_take(archive, most, &kept)) {
        send_kept(archive, &kept);
    } else if (errno == EFBIG || errno == ENAMETOOLONG || full()) {
        if (full())
            snprintf(reason, sizeof reason, "its limit leaves no memory for that");
        else if (errno == EFBIG)
            snprintf(reason, sizeof reason, "it takes more than %llu bytes", (unsigned long long)most);
        else
            snprintf(reason, sizeof reason, "%s: it lies too deep", trouble);
        send_reason("Refused", reason);
    } else {
        FAILED_AT("the work directory cannot be kept");
    }
    close(archive);
}

/* -- what is large: the files of more than `size` bytes that the job has by now. Nothing of the job may run meanwhile.
 *
 * Directories that the job closed even to itself are not looked into, nor those more than DEEPEST directories deep. So
 * a look takes little memory and one short lookup for each file, however many there are and however long their paths.
 */

static int by_number(const void *one, const void *other)
{
    return memcmp(one, other, sizeof(struct seen));
}

/* Call `each` for all large files, until it returns true. */
static bool walk(struct large *large, int parent, const char *name, int deeper,
                 bool (*each)(struct large *large, const struct seen *seen))
{
    int file = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *directory = file < 0 ? NULL : fdopendir(file);
    bool found = false;
    const struct dirent *entry;
    if (!directory) {
        if (file >= 0)
            close(file);
        return false;
    }
    while (!found && (entry = readdir(directory))) {
        struct stat status;
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..") ||
            (entry->d_type != DT_DIR && entry->d_type != DT_REG))
            continue;
        if (entry->d_type == DT_DIR) {
            found = deeper && walk(large, file, entry->d_name, deeper - 1, each);
        } else if (!fstatat(file, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) && status.st_size > large->size) {
            struct seen seen;
            memset(&seen, 0, sizeof seen);
            seen.device = status.st_dev;
            seen.inode = status.st_ino;
            found = each(large, &seen);
        }
    }
    closedir(directory);
    return found;
}

static bool walk_all(struct large *large, bool (*each)(struct large *large, const struct seen *seen))
{
    static const char *const places[] = {WORK, "/tmp", "/dev/shm"};
    bool found = false;
    as_job();
    for (size_t number = 0; number < COUNT(places) && !found; number++)
        found = walk(large, AT_FDCWD, places[number], DEEPEST, each);
    as_root();
    return found;
}

static bool remember(struct large *large, const struct seen *seen)
{
    if (large->count == MOST_LARGE)
        return large->too_many = true;
    if (large->count == large->room) {
        large->room = large->room ? 2 * large->room : 16;
        large->before = realloc(large->before, large->room * sizeof *seen);
        if (!large->before)
            BROKEN("no memory is left");
    }
    large->before[large->count++] = *seen;
    return false;
}

static bool is_new(struct large *large, const struct seen *seen)
{
    return !large->count || !bsearch(seen, large->before, large->count, sizeof *seen, by_number);
}

void large_begin(struct large *large, int64_t size)
{
    *large = (struct large){.size = size};
    walk_all(large, remember);
    if (large->count)
        qsort(large->before, large->count, sizeof *large->before, by_number);
}

/* Return whether there is another large file by now. Where there were too many before, nobody can tell. */
bool large_more(struct large *large)
{
    return !large->too_many && walk_all(large, is_new);
}

void large_end(struct large *large)
{
    free(large->before);
    large->before = NULL;
}

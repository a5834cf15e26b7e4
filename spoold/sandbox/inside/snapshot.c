/* What compile.sh left in the work directory, kept for the cases: each of them starts from exactly that.
 *
 * Theory of operation. Once all processes of a job are dead, its work directory is packed into an archive in memory
 * (archive.h). Each case is a new job with an empty work directory, into which the archive is unpacked. So nothing that
 * one case does is there for another, and the archive is the only thing that they share. The supervisor seals it when
 * it is whole, and from then on nobody can change it. Regular files, directories and symbolic links are kept, with
 * their names, contents, holes, hard links, modes and times. Pipes, sockets and devices are counted, but not kept.
 * Access control lists and extended attributes are not kept either.
 *
 * A process apart packs and unpacks (apart.c). It has the job's rights and walls, since the files are the job's, and
 * the archive may be too. The process's answer is not trusted either. The size of the archive is looked at here.
 *
 * Packing empties each file as it goes. So the contents are in memory once, and a job that has filled its memory with
 * files can be packed. The work directory is of no use afterwards, whether packing succeeds or not.
 */

#include "archive.h"

#include <fcntl.h>

#define AT_LONGEST 60000  /* milliseconds; packing or unpacking a full work directory takes a few seconds */

struct result {
    struct snapshot told;
    int64_t error;
    char trouble[sizeof trouble];
};

/* -- in the process apart */

size_t enter(struct place *place, const char *name)
{
    size_t before = place->size, size = strlen(name), slash = before > 0;
    if (before + slash + size > LONGEST_PATH)
        give_up(place, ENAMETOOLONG);
    memcpy(place->path + before, "/", slash);
    memcpy(place->path + before + slash, name, size + 1);
    place->size = before + slash + size;
    return before;
}

void leave_to(struct place *place, size_t size)
{
    place->path[size] = '\0';
    place->size = size;
}

static void say(const struct result *result)
{
    if (write(ANSWER, result, sizeof *result) != sizeof *result)
        _exit(1);
}

_Noreturn void give_up(const struct place *place, int number)
{
    struct result result;
    memset(&result, 0, sizeof result);
    result.error = number ? number : EIO;
    snprintf(result.trouble, sizeof result.trouble, WORK "%s%.240s", place->size ? "/" : "", place->path);
    say(&result);
    _exit(0);
}

void answer(const struct snapshot *told)
{
    struct result result;
    memset(&result, 0, sizeof result);
    result.told = *told;
    say(&result);
}

/* -- in the supervisor */

static int have_done(void (*work)(const void *about), const void *about, int archive, struct snapshot *told)
{
    struct result result;
    ssize_t size = apart(&(struct errand){work, about, archive, AT_LONGEST}, &result, sizeof result);
    if (size < 0)
        return -1;
    if (size != sizeof result || result.error < 0) {
        errno = EPROTO;
        return failing(WORK);
    }
    if (result.error) {
        result.trouble[sizeof result.trouble - 1] = '\0';
        errno = result.error;
        return failing(result.trouble);
    }
    *told = result.told;
    return 0;
}

static int64_t size_of(int archive)
{
    struct stat status;
    return fstat(archive, &status) ? failing("an archive") : status.st_size;
}

static int refused(int number)
{
    errno = number;
    return failing("an archive");
}

/* Keep the work directory in `archive`, an empty memfd that can be sealed, and seal that. The work directory is of no
 * use afterwards. No process of the job may live. EFBIG: this takes more than `most` bytes. ENAMETOOLONG: something
 * lies too deep, and `trouble` has where. Where this fails the archive is empty, unless the process that packed was not
 * itself. */
int snapshot_take(int archive, uint64_t most, struct snapshot *told)
{
    if (size_of(archive))
        return refused(EINVAL);
    if (have_done(pack, &most, archive, told)) {
        int number = errno;
        if (ftruncate(archive, 0))
            return -1;  /* it is sealed, and not by us */
        errno = number;
        return -1;
    }
    if (fcntl(archive, F_ADD_SEALS, SNAPSHOT_SEALS))
        return failing("an archive");
    told->bytes = size_of(archive);
    return told->bytes > most ? refused(EFBIG) : 0;
}

/* Unpack `archive`, which is sealed and may be in use elsewhere, into the empty work directory. EBADMSG: it is no
 * archive. Where this fails, a part of it may be there. */
int snapshot_restore(int archive, struct snapshot *told)
{
    int seals = fcntl(archive, F_GET_SEALS);
    if (seals < 0 || (seals & SNAPSHOT_SEALS) != SNAPSHOT_SEALS)
        return refused(EINVAL);
    if (have_done(unpack, NULL, archive, told))
        return -1;
    told->bytes = size_of(archive);
    return 0;
}

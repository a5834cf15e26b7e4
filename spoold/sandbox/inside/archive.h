/* The archive of a work directory. pack.c writes it and unpack.c reads it, both called by snapshot.c.
 *
 * An archive belongs to one version of this program on one machine, and lives no longer than the program. It begins
 * with a `head`. Then there is a `record` for each file, and after it the data of the file. The records of what is in a
 * directory follow the directory's own, up to its LEAVE. So there are names in the archive, and no paths. The first
 * record is that of the work directory itself, and the last is its LEAVE.
 *
 *     DIRECTORY  its name, which is empty for the work directory
 *     LEAVE      nothing
 *     REGULAR    its name, then an `extent` for each piece that is no hole, with its bytes, then one of no bytes
 *     SYMLINK    its name, then its target, of `size` bytes
 *     LINK       one more name of the shared file whose number is its `size`
 *
 * A regular file or symbolic link is `shared` where it may have more names. Shared files are numbered from 0, in their
 * order. A reader has to take an archive for the job's, since the process that wrote it had the job's rights.
 */

#ifndef ARCHIVE_H
#define ARCHIVE_H

#include "inside.h"

#include <limits.h>
#include <sys/stat.h>

#define MAGIC 0x646c6f6f7073ULL  /* its first bytes spell a name */
#define FORMAT 1
#define DEEPEST 200         /* directories below one another; the work directory is not counted */
#define LONGEST_PATH 4000   /* bytes of a path below the work directory */
#define PIECE (128 * 1024)  /* bytes that are read and written at once */
#define OWN_BITS 07777      /* of a mode, without the kind of file */

enum kind { DIRECTORY = 1, LEAVE, REGULAR, SYMLINK, LINK };

struct head {
    uint64_t magic, format, size;  /* of the whole archive */
};

struct record {
    uint8_t kind, shared;
    uint16_t name_size;
    uint32_t mode;
    uint64_t size;             /* bytes, or a number */
    struct timespec times[2];  /* of access and change, as utimensat(2) has them */
};

struct extent {
    uint64_t at, size;
};

/* Where pack.c or unpack.c is: the names from the work directory on, with slashes between them. */
struct place {
    char path[LONGEST_PATH + 1];
    size_t size;
};

/* Enter a name, and return the size for leave_to(). A path that is too long ends the process. */
size_t enter(struct place *place, const char *name);
void leave_to(struct place *place, size_t size);

/* How a process apart that packs or unpacks ends: */
_Noreturn void give_up(const struct place *place, int number);  /* with `number` as the caller's `errno`, or ... */
void answer(const struct snapshot *told);                       /* ... well. */

void pack(const void *most);
void unpack(const void *nothing);

#endif

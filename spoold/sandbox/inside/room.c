/* Which of a job's file systems in memory had no room: for another byte, or another file.
 *
 * The kernel tells that to a program that asks, and to nobody else. So the file systems are looked at whenever memory
 * is. Files that were removed again between two looks are not seen. Neither is a request for more than a file system
 * ever has.
 */

#include "inside.h"

#include <sys/statvfs.h>

static void meet(struct room *room, const char *place, const char *what, int64_t most)
{
    for (int number = 0; number < room->count; number++)
        if (room->full[number].place == place && room->full[number].what == what)
            return;
    if (most && room->count < (int)COUNT(room->full))  /* 0 comes from an engine whose file systems have no bound */
        room->full[room->count++] = (struct full){place, what, most};
}

void room_look(struct room *room)
{
    static const char *const places[] = {WORK, "/tmp", "/dev/shm"};
    static const char bytes[] = "bytes", files[] = "files";
    int64_t entries = 0;
    for (size_t number = 0; number < COUNT(places); number++) {
        struct statvfs seen;
        MUST(statvfs(places[number], &seen));
        entries += seen.f_files - seen.f_ffree;
        if (!seen.f_bfree)
            meet(room, places[number], bytes, seen.f_blocks * seen.f_frsize);
        if (!seen.f_ffree)
            meet(room, places[number], files, seen.f_files);
    }
    if (entries > room->entries)
        room->entries = entries;
}

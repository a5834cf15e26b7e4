/* A view of the Nix store in this mount namespace: a read-only tmpfs with a mount for each path that a job may see.
 *
 * The mounts are of an overlay of this namespace's own, with the store as its layer. So where locks and watches are
 * concerned, a file of the overlay is this namespace's own. Else what one job locks another would find locked, and a
 * watch would tell what others run. Memory and disk hold the file once all the same. The overlay lies on one of the
 * view's own directories until the view is there.
 */

#include "inside.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define LAYERS(whole) "lowerdir=" whole ":" EMPTY  /* overlayfs asks for a second one */

#ifndef MOVE_MOUNT_F_EMPTY_PATH
#define MOVE_MOUNT_F_EMPTY_PATH 4
#endif
#ifndef OPEN_TREE_CLONE
#define OPEN_TREE_CLONE 1
#endif
#ifndef OPEN_TREE_CLOEXEC
#define OPEN_TREE_CLOEXEC O_CLOEXEC
#endif

struct entry {
    const char *name;
    mode_t kind;
    int tree;
    char *target;  /* where a link leads; it has nothing to mount */
};

static int in(char *path, const char *directory, const char *name)
{
    if (snprintf(path, PATH_MAX, "%s/%s", directory, name) >= PATH_MAX) {
        errno = ENAMETOOLONG;
        return failing(directory);
    }
    return 0;
}

static int look_at(struct entry *entry, const char *whole, const char *name)
{
    char path[PATH_MAX], target[PATH_MAX];
    struct stat status;
    *entry = (struct entry){.name = name, .tree = -1};
    if (in(path, whole, name) || lstat(path, &status))
        return failing(path);
    entry->kind = status.st_mode & S_IFMT;
    if (entry->kind == S_IFLNK) {
        ssize_t size = readlink(path, target, sizeof target - 1);
        if (size < 0)
            return failing(path);
        target[size] = '\0';
        if (!(entry->target = strdup(target)))
            BROKEN("no memory is left");
    }
    return 0;
}

/* Write where a layer over the store is that changes nothing. Write the store itself where this kernel has no such
 * layer for us: no overlays at all, none in user namespaces (before Linux 5.11), none on this file system or so deep.
 */
static int layer(char *source, const char *whole, const struct entry *entries, size_t count)
{
    const char *layers = strcmp(whole, STORE) ? LAYERS(".") : LAYERS(STORE);
    size_t number = 0;
    snprintf(source, PATH_MAX, "%s", whole);
    while (number < count && entries[number].kind != S_IFDIR)
        number++;
    if (number == count)
        return 0;
    char place[PATH_MAX];
    in(place, whole, entries[number].name);
    if (mount("overlay", place, "overlay", MS_RDONLY | MS_NOSUID | MS_NODEV, layers))
        return errno == ENODEV || errno == EPERM || errno == EINVAL ? 0 : failing("overlay");
    snprintf(source, PATH_MAX, "%s", place);
    return 0;
}

static int clone_tree(struct entry *entry, const char *source)
{
    struct mount_attr read_only = {MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, 0, MS_PRIVATE, 0};
    char path[PATH_MAX];
    if (in(path, source, entry->name))
        return -1;
    entry->tree = syscall(SYS_open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW);
    if (entry->tree < 0 || syscall(SYS_mount_setattr, entry->tree, "", AT_EMPTY_PATH, &read_only, sizeof read_only))
        return failing(path);
    return 0;
}

static int attach(const struct entry *entry)
{
    char path[PATH_MAX];
    in(path, STORE, entry->name);
    if (entry->kind == S_IFLNK)
        return symlink(entry->target, path) ? failing(path) : 0;
    if (entry->kind == S_IFDIR ? mkdir(path, 0555) : make_file(path, "", 0444))
        return failing(path);
    if (syscall(SYS_move_mount, entry->tree, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH))
        return failing(path);
    return 0;
}

static int put_in_place(const struct entry *entries, size_t count)
{
    char options[64];
    snprintf(options, sizeof options, "mode=0755,size=1m,nr_inodes=%zu", count + 16);
    if (mounted("tmpfs", STORE, "tmpfs", CALM, options))
        return -1;
    for (size_t number = 0; number < count; number++)
        if (attach(&entries[number]))
            return -1;
    if (chmod(STORE, 0555))  /* everybody may list the view */
        return failing(STORE);
    return mounted(NULL, STORE, NULL, MS_REMOUNT | MS_RDONLY | CALM, NULL) ||
           mounted(NULL, STORE, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | CALM, NULL) ? -1 : 0;
}

/* Put a view of the entries `names` in the store's place. It is of the whole store that is there, which then goes, or
 * of the store in the working directory. */
int mount_view(const struct list *names, enum view_of of)
{
    const char *whole = of == OF_HERE ? "." : STORE;
    struct entry *entries = room_for(names->count * sizeof *entries);
    char source[PATH_MAX];
    size_t made = 0;
    int result = 0;
    for (; made < names->count && !result; made++)
        result = look_at(&entries[made], whole, names->of[made].at);
    if (!result)
        result = layer(source, whole, entries, made);
    for (size_t number = 0; number < made && !result; number++)
        if (entries[number].kind != S_IFLNK)
            result = clone_tree(&entries[number], source);
    if (!result && of == OF_THE_STORE && umount2(STORE, MNT_DETACH))
        result = failing(STORE);
    if (!result)
        result = put_in_place(entries, made);
    if (!result && of == OF_HERE && strcmp(source, whole) && umount2(source, MNT_DETACH))
        result = failing(source);
    int number = errno;
    while (made) {
        struct entry *entry = &entries[--made];
        if (entry->tree >= 0)
            close(entry->tree);
        free(entry->target);
    }
    free(entries);
    errno = number;
    return result;
}

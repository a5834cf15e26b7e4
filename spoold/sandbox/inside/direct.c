/* How a script is started without a shell before it, where it is known what the shell would pass on.
 *
 * Theory of operation. A captured environment without a hook says in `environ` what a shell that sourced its enter.sh
 * would pass on (see nix/capture.sh). So a script that the kernel can start is started at once. A script that names no
 * interpreter is started by bash, as nix-shell's own shell does. Everything else goes the long way, by enter.sh, whose
 * shell says what is wrong in its own words.
 *
 * All of this happens in the process that becomes the job, behind the job's walls. The owner of the files that it reads
 * may choose what they say, and what they start.
 */

#include "inside.h"

#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>

#define MOST (96 * 1024)  /* bytes of an environment; a larger one is left to env(1), which has words for it */
#define HEAD 256          /* bytes that tell how a script starts */

static char space[MOST + 1];  /* takes no memory while untouched */

/* Read the first bytes of a regular file; return how many, -1 where none can be read. A file of one's own keeps its
 * time of access, since that of a script says whether it was begun. */
static ssize_t first_of(const char *path, char *to, size_t room)
{
    const int flags = O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
    struct stat status;
    int file = open(path, flags | O_NOATIME);
    if (file < 0 && (file = open(path, flags)) < 0)
        return -1;
    ssize_t size = !fstat(file, &status) && S_ISREG(status.st_mode) ? read(file, to, room) : -1;
    close(file);
    return size;
}

static bool is_program(const char *path)
{
    struct stat status;
    return !stat(path, &status) && S_ISREG(status.st_mode) && !access(path, X_OK);
}

/* Return how a script starts: 1: the kernel starts it; 0: bash has to; -1: that is not known. */
static int kind_of(const char *script)
{
    char head[HEAD + 1];
    ssize_t size = is_program(script) ? first_of(script, head, HEAD) : -1;
    if (size < 0)
        return -1;
    head[size] = '\0';
    if (!memcmp(head, "\x7f" "ELF", 4))
        return 1;
    if (memcmp(head, "#!", 2))
        return 0;
    char *name = head + 2 + strspn(head + 2, " \t");
    name[strcspn(name, " \t\n")] = '\0';
    return *name ? (is_program(name) ? 1 : -1) : 0;
}

static bool same_name(const char *one, const char *other)
{
    size_t size = strcspn(one, "=");
    return !strncmp(one, other, size + 1) && one[size] == '=';
}

static void set(char **env, size_t *count, const char *pair)
{
    size_t at = 0;
    while (at < *count && !same_name(pair, env[at]))
        at++;
    env[at] = (char *)pair;
    *count += at == *count;
}

/* Return the environment that the shell of `order` would pass on, NULL where that is not known. */
static char **environment(const struct order *order, size_t wanted)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/environ", order->words.of[0].at) >= PATH_MAX)
        return NULL;
    ssize_t size = first_of(path, space, sizeof space);
    if (size <= 0 || size > MOST || space[size - 1])
        return NULL;
    size_t count = 0, all = order->env.count + wanted + 3, bytes = size;
    for (ssize_t at = 0; at < size; at++)
        all += !space[at];
    char **env = room_for(all * sizeof *env);
    for (size_t number = 0; number < order->env.count; number++)
        set(env, &count, order->env.of[number].at);
    for (char *at = space; at < space + size; at += strlen(at) + 1)
        set(env, &count, at);
    set(env, &count, "PWD=" WORK);
    set(env, &count, "SHLVL=1");
    for (size_t number = 0; number < wanted; number++) {
        set(env, &count, order->words.of[1 + number].at);
        bytes += order->words.of[1 + number].size;
    }
    env[count] = NULL;
    return bytes <= MOST ? env : NULL;
}

/* Set what is to be started, and with what; return false where only a shell knows. The work directory is the current
 * one. */
bool starts_directly(const struct order *order, struct start *start)
{
    const struct list *words = &order->words;
    size_t wanted = 0;
    while (1 + wanted < words->count && strchr(words->of[1 + wanted].at, '='))
        wanted++;
    size_t first = 1 + wanted;
    if (first >= words->count)
        return false;
    const char *script = words->of[first].at, *bash = order->argv.of[0].at;
    int kind = strncmp(script, "./", 2) ? -1 : kind_of(script);
    if (kind < 0)
        return false;
    start->env = environment(order, wanted);
    if (!start->env)
        return false;
    start->argv = room_for((words->count - first + 2) * sizeof *start->argv);
    size_t count = 0;
    if (kind == 0)
        start->argv[count++] = (char *)bash;
    for (size_t number = first; number < words->count; number++)
        start->argv[count++] = (char *)words->of[number].at;
    start->argv[count] = NULL;
    start->program = kind == 0 ? bash : script;
    return true;
}

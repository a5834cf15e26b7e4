/* Files of a job that come back to the host after a phase, whatever its outcome was.
 *
 * Theory of operation. A process apart finds and reads the files (collect.c). The supervisor passes on what that
 * process tells, in pieces, since a container may have no room for all of it. The process may be the job's by now, so
 * no more is passed on than was asked for. Where it ends too early, or takes too long, the file under way is filled up
 * with zeros, and the last message says that this file is not whole.
 *
 * Where memory is short nothing is read. Making a process takes some memory, and the kernel would end the supervisor
 * for it.
 */

#include "inside.h"

#include <poll.h>
#include <time.h>

#define AT_ONCE 65536
#define WAITING 20000000000LL /* nanoseconds of waiting for the process; waiting for the host does not count */
#define NEEDED (2 * MIB)       /* bytes of memory for the process */
#define FREEING 3000000000LL   /* nanoseconds until the kernel no longer counts what the phase held */

static int told_by;  /* the pipe by which the process tells */
static int64_t patience;  /* nanoseconds that the process has left */
static bool whole;  /* whether the last file is whole */

/* -- memory */

static bool has_room(void)
{
    bool known;
    uint64_t limit = memory_limit(&known);
    struct memory held = memory_now();
    uint64_t least = held.heap + held.files + held.kernel;  /* the cache is freed when it has to be */
    return !known || (uint64_t)held.usage + NEEDED <= limit || least + NEEDED <= limit;
}

static bool gets_room(void)
{
    const struct timespec pause = {0, 1000000};
    int64_t deadline = now() + FREEING;
    while (!has_room()) {
        if (now() > deadline)
            return false;
        nanosleep(&pause, NULL);
    }
    return true;
}

/* -- what the process tells */

/* Take some of the next bytes and return how many, 0 where the process has ended or its time is over. */
static size_t take_some(char *to, size_t most)
{
    struct pollfd waiting = {told_by, POLLIN, 0};
    int64_t began = now();
    int seen = patience > 0 ? poll(&waiting, 1, patience / 1000000 + 1) : 0;
    patience -= now() - began;
    ssize_t got = seen > 0 ? read(told_by, to, most) : 0;
    return got > 0 ? got : 0;
}

static bool take_all(void *to, size_t size)
{
    for (size_t at = 0, got; at < size; at += got)
        if (!(got = take_some((char *)to + at, size - at)))
            return false;
    return true;
}

static bool is_asked(const struct collected *head, const struct wanted *left)
{
    return head->kind == A_FILE && left->files && head->size <= (uint64_t)left->file_size &&
           head->size <= (uint64_t)left->total && head->name_size && head->name_size <= LONGEST_OUTPUT &&
           head->matched && !(head->matched >> left->patterns.count);
}

/* -- what the host is told */

static void send_head(const struct collected *head, const char *name)
{
    char space[LONGEST_OUTPUT + 256];
    struct text to = {space, 0, sizeof space};
    put_format(&to, "d5:event6:Output");
    put_integer(&to, "matched", head->matched);
    put_integer(&to, "mode", head->mode & 07777);
    put_string(&to, "name", name, head->name_size);
    put_integer(&to, "size", head->size);
    put(&to, "e", 1);
    send_frame(&to);
}

/* Pass on the bytes of a file, with zeros in the place of those that do not come. */
static void send_content(uint64_t size)
{
    static char piece[AT_ONCE];
    while (size) {
        size_t most = size < AT_ONCE ? size : AT_ONCE, got = whole ? take_some(piece, most) : 0;
        if (!got) {
            whole = false;
            memset(piece, 0, got = most);
        }
        send_bytes(piece, got);
        size -= got;
    }
}

/* Pass on one file, and take it off what is left; return false where that did not go well. */
static bool send_file(const struct collected *head, struct wanted *left)
{
    char name[LONGEST_OUTPUT];
    if (!is_asked(head, left) || !take_all(name, head->name_size))
        return false;
    send_head(head, name);
    left->files--;
    left->total -= head->size;
    send_content(head->size);
    return whole;
}

static void send_end(const struct left_out *left_out, const char *failed)
{
    char space[512];
    struct text to = {space, 0, sizeof space};
    put(&to, "d", 1);
    put_integer(&to, "closed", left_out->closed);
    put_integer(&to, "deep", left_out->deep);
    put_format(&to, "5:event7:Outputs");
    put_string(&to, "failed", failed, strlen(failed));
    put_integer(&to, "large", left_out->large);
    put_integer(&to, "many", left_out->many);
    put_integer(&to, "names", left_out->names);
    put_integer(&to, "odd", left_out->odd);
    put_integer(&to, "slow", left_out->slow);
    put_integer(&to, "total", left_out->total);
    put_integer(&to, "whole", whole);
    put(&to, "e", 1);
    send_frame(&to);
}

/* -- all of it */

static const struct left_out nothing_said;

/* Pass on everything that the process tells, and the end. */
static void pass_on(pid_t pid, struct wanted left)
{
    struct collected head;
    bool well;
    while ((well = take_all(&head, sizeof head)) && head.kind != THE_END && (well = send_file(&head, &left)))
        ;
    if (well)
        take_all(&head.kind, 1);  /* there is nothing: this waits until the process ends by itself */
    close(told_by);
    end_apart(pid);
    if (well)
        send_end(&head.left_out, "");
    else
        send_end(&nothing_said, patience > 0 ? "ended" : "time");
}

void send_outputs(const struct wanted *wanted)
{
    whole = true;
    patience = WAITING;
    if (!gets_room()) {
        send_end(&nothing_said, "memory");
        return;
    }
    pid_t pid = begin_apart(&(struct errand){collect, wanted, -1, 0}, &told_by);
    if (pid < 0)
        send_end(&nothing_said, "memory");
    else
        pass_on(pid, *wanted);
}

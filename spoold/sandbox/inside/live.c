/* Output on the way: what a phase has printed and used so far, told while it runs, where the order asks for it.
 *
 * Theory of operation. After a second, and then each second in which there is something new, one message is put
 * together: the ends of both outputs, and the times. It leaves as fast as the host takes it, whenever the pipe to the
 * host has room. Nothing here waits, since a host that reads nothing would stop the looks, and with them all limits. So
 * there is at most one message under way, and the rest of it goes before anything else is said (send_frame).
 *
 * All memory for this is touched before the phase's memory is counted, so it is the supervisor's. It takes none while
 * untouched.
 */

#include "inside.h"
#include "facts.h"

#define SECOND 1000000000LL
#define NEWS 10000000LL  /* nanoseconds of CPU time that are worth telling */
#define BEFORE 4         /* bytes of a message's length */
#define BESIDE 512       /* bytes of a message beside the outputs, at most */

static struct {
    char rings[2][TAIL];
    char message[BEFORE + BESIDE + 2 * TAIL];
    size_t size, sent;
    int64_t due, cpu;  /* when the next message is due, and what the last one told */
    size_t printed;
} live;

/* Keep the ends of these outputs, of a phase that is about to begin. A phase that talks only needs the message. */
void live_begin(struct output outputs[2], bool told)
{
    memset(&live, 0, sizeof live);
    live.cpu = -NEWS;  /* the first message is news */
    for (int number = 0; number < 2 && told; number++)
        outputs[number].ring = live.rings[number];
}

/* Return the place for the bytes that follow the kept ones, and set how much room it has. */
char *live_room(const struct output *output, size_t *room)
{
    size_t at = (output->total - output->cap) % TAIL;
    *room = TAIL - at;
    return output->ring + at;
}

/* Put the end of an output: the last kept bytes, the ring up to where it wraps, and the rest of the ring. */
static void put_tail(struct text *to, const char *key, const struct output *output)
{
    size_t size = output->total < TAIL ? output->total : TAIL;
    size_t kept = output->total < output->cap ? output->total : output->cap, after = output->total - kept;
    size_t later = after < size ? after : size, wrapped = after % TAIL, newest = later < wrapped ? later : wrapped;
    put_format(to, "%zu:%s%zu:", strlen(key), key, size);
    put(to, output->kept + kept - (size - later), size - later);
    put(to, output->ring + TAIL - (later - newest), later - newest);
    put(to, output->ring + wrapped - newest, newest);
}

struct text live_message(void)
{
    return (struct text){live.message, BEFORE, sizeof live.message};
}

void live_put(const struct text *body)
{
    put_length(live.message, body->size - BEFORE);
    live.size = body->size;
    live.sent = 0;
}

static void put_message(const struct usage *usage, const struct output outputs[2], int64_t at, int64_t cpu)
{
    struct text to = live_message();
    put(&to, "d", 1);
    put_integer(&to, "cpu", cpu);
    put_string(&to, "event", "Live", 4);
    put_integer(&to, "memory", usage->memory_peak);
    put_tail(&to, "stderr", &outputs[1]);
    put_integer(&to, "stderr_total", outputs[1].total);
    put_tail(&to, "stdout", &outputs[0]);
    put_integer(&to, "stdout_total", outputs[0].total);
    put_integer(&to, "time", at - usage->started);
    put(&to, "e", 1);
    live_put(&to);
}

/* Begin a message where one is due, none is under way, and there is something to tell. */
void live_look(const struct usage *usage, const struct output outputs[2], int64_t at)
{
    size_t printed = outputs[0].total + outputs[1].total;
    if (at < live.due || at < usage->started + PACE * SECOND || live_under_way())
        return;
    live.due = at + PACE * SECOND;
    int64_t cpu = usage_cpu(usage);
    if (printed == live.printed && cpu - live.cpu < NEWS)
        return;
    put_message(usage, outputs, at, cpu);
    live.printed = printed;
    live.cpu = cpu;
}

bool live_under_way(void)
{
    return live.sent < live.size;
}

/* Send what the host takes now. */
void live_send(void)
{
    size_t sent = 1;
    for (; live_under_way() && sent; live.sent += sent)
        sent = send_some(live.message + live.sent, live.size - live.sent);
}

/* Send the rest of a message that is under way, and wait until it has left. */
void live_finish(void)
{
    if (!live_under_way())
        return;
    size_t from = live.sent;
    live.sent = live.size;
    send_bytes(live.message + from, live.size - from);
}

/* A talk: a phase that reads what another program says while both run, and is heard by that one. The host passes on.
 *
 * Theory of operation. The program's standard input is a pipe. The host sends what is to be read there (Hear), and it is
 * written as fast as the program reads. The host is sent what the program prints (Said). Neither may be more than WINDOW
 * bytes ahead of what was taken. The output is not read beyond that until the host says that the other program has taken
 * some (Passed), and the host is told what this program has taken (Took). So a program that nobody reads has to wait, as
 * with a pipe, and nothing is kept beyond two windows.
 *
 * Passing on a message takes the host more time than writing a byte takes the program. So all that is printed shortly
 * after a message goes together, in the next one. An answer to what the other program said comes later than that.
 *
 * Nothing here waits while the program runs, since its limits hold whatever the host does. Messages leave as those of
 * live.c do. Bytes that nobody reads any more are dropped, so that no program is stopped by the end of the other.
 *
 * The host may have said more when the phase has ended here. So the supervisor then waits for the host's last word
 * (Over), and drops what comes before it.
 */

#include "inside.h"
#include "facts.h"

#include <fcntl.h>

#define WORTH (WINDOW / 4)  /* bytes taken that are worth a message */
#define SPACE 500000        /* nanoseconds between two messages with what the program printed, at least */

static struct {
    char heard[WINDOW];        /* what the program has yet to read, from `at` on */
    size_t at, size;
    int feed;                  /* the writer of its standard input, -1 once that is closed */
    bool deaf, no_more;        /* nobody reads it; the host has no more */
    size_t took;               /* bytes taken that the host has not been told of */
    size_t said, passed;       /* bytes of the output that the host was sent, and that the other program has taken */
    int64_t due;               /* when the next of these messages may be sent */
    bool begun, ended, open, over;
} talk;

/* Prepare for a phase; return the descriptor that its program reads. */
int talk_begin(void)
{
    int ends[2];
    memset(&talk, 0, sizeof talk);  /* touched before the phase's memory is counted */
    as_job();                       /* so that the job can open /dev/stdin again */
    MUST(pipe2(ends, O_CLOEXEC));
    as_root();
    MUST(fcntl(ends[1], F_SETFL, O_NONBLOCK));
    talk.feed = ends[1];
    talk.open = true;
    return ends[0];
}

/* Return how many more bytes of the output may be read now. */
size_t talk_room(const struct output *output)
{
    size_t ahead = output->total - talk.passed;
    return !talk.open ? SIZE_MAX : ahead < WINDOW ? WINDOW - ahead : 0;
}

/* Return the descriptor that waits for room for what the program has yet to read, -1 where there is nothing. */
int talk_feed(void)
{
    return talk.size ? talk.feed : -1;
}

static void close_feed(void)
{
    if (talk.feed >= 0)
        close(talk.feed);
    talk.feed = -1;
}

/* Give the program what it takes now. */
static void feed(void)
{
    while (talk.size && !talk.deaf) {
        ssize_t size = write(talk.feed, talk.heard + talk.at, talk.size);
        if (size < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        talk.deaf = size < 0;
        if (size > 0) {
            talk.at += size;
            talk.size -= size;
            talk.took += size;
        }
    }
    talk.took += talk.size;
    talk.size = 0;
    if (talk.deaf || talk.no_more)
        close_feed();
}

/* Take what the host says during a talk. */
void talk_take(const struct message *message)
{
    if (message->what == PASSED)
        talk.passed += message->passed;
    if (message->what != HEAR)
        return;
    const struct string *said = &message->hear;
    memmove(talk.heard, talk.heard + talk.at, talk.size);
    talk.at = 0;
    if (said->size > sizeof talk.heard - talk.size)
        BROKEN("the host is further ahead than it may be");
    memcpy(talk.heard + talk.size, said->at, said->size);
    talk.size += said->size;
    talk.no_more |= !said->size;
}

/* Return how much of the output may be said in all. */
static size_t sayable(const struct output *output)
{
    return output->total < output->cap ? output->total : output->cap;
}

/* Return when there is something to say that nothing but the time holds back; without such, a time that never comes. */
int64_t talk_due(const struct output *output)
{
    return talk.said < sayable(output) && !live_under_way() ? talk.due : INT64_MAX;
}

static bool say(const struct output *output)
{
    struct text to = live_message();
    size_t kept = sayable(output);
    put(&to, "d", 1);
    if (!talk.begun) {
        put_string(&to, "event", "Begun", 5);
        talk.begun = true;
    } else if (talk.took >= WORTH) {
        put_string(&to, "event", "Took", 4);
        put_integer(&to, "size", talk.took);
        talk.took = 0;
    } else if (talk.said < kept && now() < talk.due) {
        return false;
    } else if (talk.said < kept || (output->ended && !talk.ended)) {
        size_t size = kept - talk.said < WINDOW ? kept - talk.said : WINDOW;
        put_string(&to, "data", output->kept + talk.said, size);
        put_string(&to, "event", "Said", 4);
        talk.said += size;
        talk.ended = !size;
        talk.due = now() + SPACE;
    } else {
        return false;
    }
    put(&to, "e", 1);
    live_put(&to);
    return true;
}

/* Do what can be done now, in both directions. */
void talk_on(const struct output *output)
{
    feed();
    do
        live_send();
    while (!live_under_way() && say(output));
}

/* The program has ended: read what it left without a bound. The host sees in the account what it was not yet sent. */
void talk_end(void)
{
    talk.open = false;
    close_feed();
}

static void drop(const struct message *message)
{
    talk.over = message->what == OVER;
}

/* Wait for the host's last word on this talk. */
void talk_over(void)
{
    while (!talk.over)
        hear_word(CANCEL | HEAR | PASSED | OVER, drop);
}

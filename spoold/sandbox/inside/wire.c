/* The wire between host and supervisor. The host's end is sandbox/wire.py, and sandbox/messages.py has what is said.
 *
 * A message is a 4-byte length and that many bytes of bencode (integers, byte strings, lists, dictionaries). Raw bytes
 * that a message announces follow it. Every wait is bounded, except the one for the first byte of a message. The end of
 * stdin means at any time: stop everything and exit.
 *
 * The host is ours, so a wrong message is a bug. It is read as if the host were not ours: nothing of it is used that
 * was not checked to be there, whole, and of its type.
 */

#include "inside.h"
#include "facts.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>

#define CHUNK 65536
#define MOST (64 * MIB)      /* bytes of a message, at most */
#define STALL_TIMEOUT 60000  /* milliseconds without progress on the host's side of a message */
#define DEPTH 8
#define WALKING 5000000000LL /* see `struct wanted` */

void wire_begin(void)
{
    for (int file = 0; file < 2; file++) {
        int flags = MUST(fcntl(file, F_GETFL));
        MUST(fcntl(file, F_SETFL, flags | O_NONBLOCK));
    }
}

static void await(int file, short events, int timeout)
{
    struct pollfd waiting = {file, events, 0};
    int seen;
    while ((seen = poll(&waiting, 1, timeout)) < 0 && errno == EINTR)
        ;
    if (seen == 0)
        gone();
}

/* Wait for some of the next bytes, `most` at most. Another process may have to read what follows. */
static size_t read_some(char *to, size_t most, int timeout)
{
    for (;;) {
        ssize_t size = read(0, to, most);
        if (size > 0)
            return size;
        if (size == 0 || (errno != EAGAIN && errno != EINTR))
            gone();
        await(0, POLLIN, timeout);
    }
}

static void read_all(char *to, size_t size)
{
    for (size_t at = 0; at < size;)
        at += read_some(to + at, size - at, STALL_TIMEOUT);
}

size_t raw(const char **piece, size_t most)
{
    static char space[CHUNK];
    *piece = space;
    return read_some(space, most < CHUNK ? most : CHUNK, STALL_TIMEOUT);
}

size_t send_some(const char *from, size_t size)
{
    for (;;) {
        ssize_t sent = write(1, from, size < CHUNK ? size : CHUNK);
        if (sent > 0)
            return sent;
        if (sent < 0 && errno == EAGAIN)
            return 0;
        if (sent == 0 || errno != EINTR)
            gone();
    }
}

void send_bytes(const char *from, size_t size)
{
    while (size) {
        size_t sent = send_some(from, size);
        if (!sent)
            await(1, POLLOUT, STALL_TIMEOUT);
        from += sent;
        size -= sent;
    }
}

/* -- what the host says */

/* A value of bencode. The values of a list or dictionary are linked by their numbers, from its `first` on, up to 0. */
struct value {
    char kind;  /* i, s, l or d */
    int64_t integer;
    struct string string;
    size_t first, next;
};

static struct {
    char *body;
    size_t size, at;
    struct value *values;
    size_t count, room;
    void *made[8];  /* lists of the message */
    size_t makes;
} came;

static size_t value(int depth);

static size_t new_value(char kind)
{
    if (came.count + 1 >= came.room) {
        came.room = came.room ? 2 * came.room : 64;
        came.values = realloc(came.values, came.room * sizeof *came.values);
        if (!came.values)
            BROKEN("no memory is left");
    }
    came.values[++came.count] = (struct value){.kind = kind};
    return came.count;
}

static int64_t number(char end)
{
    int64_t sum = 0;
    bool negative = came.at < came.size && came.body[came.at] == '-' && end == 'e';
    size_t first = came.at += negative;
    for (; came.at < came.size && came.body[came.at] >= '0' && came.body[came.at] <= '9'; came.at++)
        if (__builtin_mul_overflow(sum, 10, &sum) || __builtin_add_overflow(sum, came.body[came.at] - '0', &sum))
            BROKEN("a number of a message is too large");
    if (came.at == first || came.at == came.size || came.body[came.at] != end)
        BROKEN("a message is not bencode: a number");
    came.at++;
    return negative ? -sum : sum;
}

static size_t values(char kind, int depth)
{
    size_t of = new_value(kind), last = 0;
    while (came.at < came.size && came.body[came.at] != 'e') {
        size_t made = value(depth - 1);
        if (last)
            came.values[last].next = made;
        else
            came.values[of].first = made;
        last = made;
    }
    if (came.at++ == came.size)
        BROKEN("a message is not bencode: it is cut off");
    return of;
}

static size_t value(int depth)
{
    char kind = came.at < came.size ? came.body[came.at] : '\0';
    if (kind == 'i') {
        came.at++;
        size_t made = new_value('i');
        came.values[made].integer = number('e');
        return made;
    }
    if (kind >= '0' && kind <= '9') {
        size_t made = new_value('s');
        uint64_t size = number(':');
        if (size > came.size - came.at)
            BROKEN("a message is not bencode: a string is cut off");
        came.values[made].string = (struct string){came.body + came.at, size};
        came.at += size;
        return made;
    }
    if ((kind != 'l' && kind != 'd') || depth == 0)
        BROKEN("a message is not bencode");
    came.at++;
    return values(kind, depth);
}

static bool same(const struct string *string, const char *word)
{
    return string->size == strlen(word) && !memcmp(string->at, word, string->size);
}

static const struct value *of(const struct value *dictionary, const char *key, char kind)
{
    for (size_t at = dictionary->first; at; at = came.values[came.values[at].next].next) {
        const struct value *found = &came.values[came.values[at].next];
        if (came.values[at].kind == 's' && same(&came.values[at].string, key) && found->kind == kind)
            return found;
    }
    BROKEN("a message lacks a field, or has it of another type");
}

/* Require that it has `fields` fields. The caller asks for as many by name, so it has no other. */
static const struct value *dictionary(const struct value *found, size_t fields)
{
    size_t count = 0;
    for (size_t at = found->kind == 'd' ? found->first : 0; at; at = came.values[at].next)
        count++;
    if (found->kind != 'd' || count != 2 * fields)
        BROKEN("a message has other fields than its own");
    return found;
}

static int64_t integer(const struct value *dictionary, const char *key)
{
    return of(dictionary, key, 'i')->integer;
}

static size_t a_size(const struct value *dictionary, const char *key)
{
    int64_t found = integer(dictionary, key);
    if (found < 0)
        BROKEN("a size of a message is negative");
    return found;
}

/* Return a string. It gets a NUL after it, in the place of a byte that has been read by now. */
static struct string string(const struct value *dictionary, const char *key)
{
    struct string found = of(dictionary, key, 's')->string;
    ((char *)found.at)[found.size] = '\0';
    if (memchr(found.at, '\0', found.size))
        BROKEN("a string of a message has a NUL in it");
    return found;
}

static void *made(size_t count, size_t size)
{
    if (came.makes == COUNT(came.made))
        BROKEN("a message has too many lists");
    return came.made[came.makes++] = room_for(count * size);
}

static size_t count_of(const struct value *list)
{
    size_t count = 0;
    for (size_t at = list->first; at; at = came.values[at].next)
        count++;
    return count;
}

static struct list strings(const struct value *dictionary, const char *key)
{
    const struct value *list = of(dictionary, key, 'l');
    struct list found = {count_of(list), NULL};
    size_t number = 0;
    found.of = made(found.count, sizeof *found.of);
    for (size_t at = list->first; at; at = came.values[at].next) {
        struct string each = came.values[at].string;
        if (came.values[at].kind != 's')
            BROKEN("a list of a message holds something else than strings");
        ((char *)each.at)[each.size] = '\0';
        if (memchr(each.at, '\0', each.size))
            BROKEN("a string of a message has a NUL in it");
        found.of[number++] = each;
    }
    return found;
}

static struct parcel parcel(const struct value *all)
{
    const struct value *list = of(dictionary(all, 4), "files", 'l');
    struct parcel found = {count_of(list), NULL, a_size(all, "archive"), a_size(all, "stdin")};
    size_t number = 0;
    found.files = made(found.count, sizeof *found.files);
    for (size_t at = list->first; at; at = came.values[at].next) {
        const struct value *each = dictionary(&came.values[at], 3);
        found.files[number++] = (struct file){string(each, "name"), a_size(each, "mode") & 07777, a_size(each, "size")};
    }
    return found;
}

static struct show show(const struct value *all)
{
    dictionary(all, 3);
    return (struct show){integer(all, "limited"), strings(all, "store")};
}

static struct wanted wanted(const struct value *all)
{
    dictionary(all, 4);
    return (struct wanted){
        .patterns = strings(all, "patterns"),
        .files = a_size(all, "files"),
        .file_size = a_size(all, "file_size"),
        .total = a_size(all, "total"),
        .walking = WALKING,
    };
}

static struct order order(const struct value *all)
{
    const struct value *limits = dictionary(of(dictionary(all, 11), "limits", 'd'), 9);
    struct string policy = string(limits, "on_output_limit");
    return (struct order){
        .argv = strings(all, "argv"),
        .words = strings(all, "words"),
        .env = strings(all, "env"),
        .script = string(all, "script"),
        .input = integer(all, "input"),
        .last = integer(all, "last"),
        .live = integer(all, "live"),
        .talks = integer(all, "talks"),
        .outputs = wanted(of(all, "outputs", 'd')),
        .limits = {
            .time = a_size(limits, "time"),
            .cpu_time = a_size(limits, "cpu_time"),
            .memory = a_size(limits, "memory"),
            .file_size = a_size(limits, "file_size"),
            .open_files = a_size(limits, "open_files"),
            .stack = a_size(limits, "stack"),
            .output = {a_size(limits, "stdout"), a_size(limits, "stderr")},
            .end_on_output = same(&policy, "end"),
        },
    };
}

static struct view view(const struct value *all)
{
    dictionary(all, 4);
    return (struct view){a_size(all, "pid"), string(all, "container"), strings(all, "paths")};
}

static void take_body(void)
{
    unsigned char head[4];
    size_t begun = read_some((char *)head, sizeof head, -1);
    read_all((char *)head + begun, sizeof head - begun);
    came.size = (size_t)head[0] << 24 | head[1] << 16 | head[2] << 8 | head[3];
    if (came.size > MOST)
        BROKEN("a message is too long");
    came.body = room_for(came.size + 1);
    read_all(came.body, came.size);
}

static void forget_message(void)
{
    while (came.makes)
        free(came.made[--came.makes]);
    free(came.body);
    free(came.values);
    memset(&came, 0, sizeof came);
}

static void read_message(struct message *found, int expected)
{
    static const struct { enum what what; const char *name; } names[] = {
        {PARCEL, "Parcel"}, {ORDER, "Order"}, {END, "End"}, {CANCEL, "Cancel"}, {GIVE_VIEW, "GiveView"},
        {SHOW, "Show"}, {KEEP, "Keep"}, {HEAR, "Hear"}, {PASSED, "Passed"}, {OVER, "Over"},
    };
    take_body();
    size_t root = value(DEPTH);
    const struct value *all = &came.values[root];
    if (all->kind != 'd' || came.at != came.size || count_of(all) % 2)
        BROKEN("a message is no dictionary");
    struct string name = string(all, "event");
    found->what = 0;
    for (size_t number = 0; number < COUNT(names); number++)
        if (names[number].what & expected && same(&name, names[number].name))
            found->what = names[number].what;
    switch (found->what) {
    case PARCEL: found->parcel = parcel(all); break;
    case SHOW: found->show = show(all); break;
    case ORDER: found->order = order(all); break;
    case GIVE_VIEW: found->view = view(all); break;
    case KEEP: found->keep = a_size(dictionary(all, 2), "most"); break;
    case HEAR: found->hear = of(dictionary(all, 2), "data", 's')->string; break;
    case PASSED: found->passed = a_size(dictionary(all, 2), "size"); break;
    case END: case CANCEL: case OVER: dictionary(all, 1); break;
    default: BROKEN("a message is none of those that are due");
    }
}

const struct message *next_message(int expected)
{
    static struct message found;
    forget_message();
    read_message(&found, expected);
    return &found;
}

/* Take a message that comes during a phase. The message before stays good. */
void hear_word(int expected, void (*take)(const struct message *))
{
    __typeof__(came) before = came;
    struct message found;
    memset(&came, 0, sizeof came);
    read_message(&found, expected);
    take(&found);
    forget_message();
    came = before;
}

/* -- what we say */

void put_integer(struct text *to, const char *key, int64_t value)
{
    put_format(to, "%zu:%si%llde", strlen(key), key, (long long)value);
}

void put_string(struct text *to, const char *key, const void *from, size_t size)
{
    put_format(to, "%zu:%s%zu:", strlen(key), key, size);
    put(to, from, size);
}

void put_length(char *to, size_t size)
{
    unsigned char head[4] = {size >> 24, size >> 16, size >> 8, size};
    memcpy(to, head, 4);
}

void send_frame(const struct text *body)
{
    char frame[4096];
    live_finish();
    put_length(frame, body->size);
    if (body->size <= sizeof frame - 4) {  /* in one piece, so the other side is woken once */
        memcpy(frame + 4, body->at, body->size);
        send_bytes(frame, 4 + body->size);
    } else {
        send_bytes(frame, 4);
        send_bytes(body->at, body->size);
    }
}

void send_word(const char *event)
{
    char space[64];
    struct text body = {space, 0, sizeof space};
    put(&body, "d", 1);
    put_string(&body, "event", event, strlen(event));
    put(&body, "e", 1);
    send_frame(&body);
}

void send_reason(const char *event, const char *reason)
{
    char space[1024];
    struct text body = {space, 0, sizeof space};
    put(&body, "d", 1);
    put_string(&body, "event", event, strlen(event));
    put_string(&body, "reason", reason, strlen(reason));
    put(&body, "e", 1);
    send_frame(&body);
}

/* Report the last failure. `refused` tells that the kernel lacks a call, or does not allow it to us. All other errors
 * are about what was asked for. */
void send_failed(void)
{
    int number = errno;
    bool refused = number == ENOSYS || number == EPERM || number == EACCES || number == EINVAL || number == ENODEV ||
                   number == EOPNOTSUPP;
    char space[1024], reason[512];
    struct text body = {space, 0, sizeof space};
    snprintf(reason, sizeof reason, "%s: %s", trouble, strerror(number));
    put_format(&body, "d5:event6:Failed");
    put_string(&body, "reason", reason, strlen(reason));
    put_integer(&body, "refused", refused);
    put(&body, "e", 1);
    send_frame(&body);
}

static struct { char space[1024]; size_t size; } ready;

static int64_t of_status(const char *text, const char *word, int base)
{
    const char *found = strstr(text, word);
    return found ? (int64_t)strtoull(found + strlen(word), NULL, base) : -1;
}

/* Note what the kernel says of this process, so that the host sees whether it got what it asked for. Kernels that are
 * not Linux (gVisor's) do not say everything. */
void make_ready(void)
{
    struct text body = {ready.space, 0, sizeof ready.space};
    char *status = contents("/proc/self/status"), *kernel = contents("/proc/sys/kernel/random/boot_id");
    bool known;
    uint64_t memory = memory_limit(&known);
    put_format(&body, "d");
    put_integer(&body, "capabilities", of_status(status, "\nCapBnd:", 16));
    put_format(&body, "5:event5:Ready");
    put_string(&body, "kernel", kernel, strcspn(kernel, "\n"));
    put_format(&body, known ? "6:memoryi%llue" : "6:memoryi-1e", (unsigned long long)memory);
    put_integer(&body, "no_new_privileges", of_status(status, "\nNoNewPrivs:", 10));
    put_integer(&body, "seccomp", of_status(status, "\nSeccomp:", 10));
    put_integer(&body, "version", VERSION);
    put_integer(&body, "weight", cpu_weight());
    put(&body, "e", 1);
    ready.size = body.size;
    free(status);
    free(kernel);
}

void send_ready(void)
{
    struct text body = {ready.space, ready.size, sizeof ready.space};
    send_frame(&body);
}

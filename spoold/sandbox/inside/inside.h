/* What the files of the supervisor share; `main.c` says what it is. `facts.h` is made from the host's own modules when
 * this is compiled (see sandbox/program.py). So what both sides have to agree on is written down once.
 *
 * A function that returns int returns -1 where the kernel refused something, with `errno`. `trouble` then has the path
 * in question. Where a refusal can only be a fault of ours, MUST ends the program, and the host is told where.
 */

#ifndef INSIDE_H
#define INSIDE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <unistd.h>

#define WORK "/job"
#define STORE "/nix/store"
#define EMPTY "/sys/proc/empty"         /* a directory that masks.c makes */
#define OWN "/own"                      /* below /sys, another one, which no job can enter */
#define WHOLE_STORE OWN "/store"
#define MIB (1024L * 1024)
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* -- trouble.c: what goes wrong */

extern char trouble[256];       /* the path of the last failure, "" where it has none */
extern int complain_to;         /* the descriptor to which a bug of ours is told; -1: the host */
extern int gone_code;           /* the exit code where the host is gone */

int failing(const char *path);  /* Remember the path and return -1. */
_Noreturn void broken(const char *file, int line, const char *what, int number);
_Noreturn void gone(void);

#define BROKEN(what) broken(__FILE__, __LINE__, (what), 0)
#define FAILED_AT(what) broken(__FILE__, __LINE__, (what), errno)
#define MUST(call)                                           \
    __extension__({                                          \
        __typeof__(call) result_ = (call);                   \
        if ((long)result_ == -1)                             \
            broken(__FILE__, __LINE__, #call, errno);        \
        result_;                                             \
    })

/* -- text.c: bytes that are put together, and files of the kernel's that are read */

struct text {
    char *at;
    size_t size, room;
};

void put(struct text *to, const void *from, size_t size);
void put_format(struct text *to, const char *format, ...) __attribute__((format(printf, 2, 3)));
int open_quietly(const char *path, int flags);              /* -1 where that fails, and `trouble` stays */
size_t read_file(int file, char *to, size_t room);          /* from its beginning, with a NUL after it; 0 on failure */
char *contents(const char *path);                           /* of up to 1 MiB, "" on failure; the caller owns it */
int64_t number_after(const char *text, const char *words);  /* the number after a line's first words, 0 where there is none */
void *room_for(size_t size);                                /* as malloc(3), or ends the program */

/* -- wire.c: the two pipes to the host, and what is said on them */

struct string {
    const char *at;  /* with a NUL after it, which is not counted */
    size_t size;
};

struct list {
    size_t count;
    struct string *of;
};

struct file {
    struct string name;
    mode_t mode;
    size_t size;
};

struct parcel {
    size_t count;
    struct file *files;
    size_t archive_size, stdin_size;
};

struct show {
    bool limited;
    struct list store;
};

struct bounds {
    int64_t time, cpu_time, memory, file_size, open_files, stack;
    size_t output[2];  /* of stdout and stderr */
    bool end_on_output;
};

/* The files of a phase that come back from the work directory: how many at most, how large each and all may be. */
struct wanted {
    struct list patterns;
    size_t files;
    int64_t file_size, total;
    int64_t walking;  /* nanoseconds of CPU time that finding them may take */
};

struct order {
    struct list argv, words, env;
    struct string script;
    bool input, last, live, talks;
    struct bounds limits;
    struct wanted outputs;
};

struct view {
    pid_t pid;
    struct string container;
    struct list paths;
};

enum what { PARCEL = 1, ORDER = 2, END = 4, CANCEL = 8, GIVE_VIEW = 16, SHOW = 32, KEEP = 64, HEAR = 128, PASSED = 256, OVER = 512 };

struct message {
    enum what what;
    union {
        struct parcel parcel;
        struct show show;
        struct order order;
        struct view view;
        uint64_t keep;  /* bytes at most */
        uint64_t passed;
        struct string hear;  /* without a NUL after it */
    };
};

void wire_begin(void);
const struct message *next_message(int expected);         /* waits; the result is good until the next call */
void hear_word(int expected, void (*take)(const struct message *));  /* waits for one; the message before stays good */
size_t raw(const char **piece, size_t most);              /* waits for the next of the bytes that a message announced */
void send_bytes(const char *from, size_t size);
size_t send_some(const char *from, size_t size);           /* what the host takes now; returns 0 if that is nothing */
void send_frame(const struct text *body);                 /* after a message under way, see live.c */
void send_word(const char *event);                        /* a message without fields */
void send_reason(const char *event, const char *reason);
void send_failed(void);                                   /* about the last failure */
void make_ready(void);                                    /* notes what the kernel says of this process now */
void send_ready(void);

void put_length(char *to, size_t size);                   /* 4 bytes, which go before the message */

/* Parts of a dictionary, key by key in their order. */
void put_integer(struct text *to, const char *key, int64_t value);
void put_string(struct text *to, const char *key, const void *from, size_t size);

/* -- kernel.c: calls that the C library has no functions for */

#define CALM (MS_NOSUID | MS_NODEV | MS_NOEXEC)

pid_t fork_into(unsigned long spaces);
int keep_capabilities(uint64_t kept);                     /* a bit for each */
void keep_bounding_set(uint64_t kept);
int mounted(const char *from, const char *on, const char *kind, unsigned long flags, const char *options);
int write_to(const char *path, const char *content);      /* a file of the kernel's */
int make_file(const char *path, const char *content, mode_t mode);

/* -- files.c: the job's files */

extern uid_t job_uid;  /* the uid, and the gid, of the job that this process serves */

void as_job(void);     /* From now on what is created belongs to the job ... */
void as_root(void);    /* ... until here. */
int receive(const struct parcel *parcel);  /* Return a descriptor of the job's input; -1 where a file has no room. */
void hand_over(uint64_t most);             /* Send the work directory, which is of no use afterwards. */

struct large {
    int64_t size;
    size_t count, room;
    bool too_many;
    struct seen { dev_t device; ino_t inode; } *before;
};

void large_begin(struct large *large, int64_t size);
bool large_more(struct large *large);
void large_end(struct large *large);

/* -- masks.c, peaks.c, store.c: what a job sees of the host, the container and the store */

void masks_read(void);
enum behind { PEAKS, WHOLE };

int masks_cover(enum behind behind);
int masks_cover_proc(void);
int masks_hide(void);

struct opened {
    int count, file[2];
};

int peaks_leave(const char *place);
struct opened peaks_left(void);
struct opened peaks_by_namespace(void);

enum view_of { OF_THE_STORE, OF_HERE };  /* the whole store at its place, which then goes; or the working directory */

int mount_view(const struct list *names, enum view_of of);

/* -- counters.c: what the kernel counts */

struct memory {
    int64_t heap, files, cache, kernel, usage;
};

struct counters {
    bool unified, resets;
    int cpu, stat, events, usage, kernel;  /* descriptors, -1 where there is none */
    int peaks, peak[2];
};

extern struct counters counters;

void counters_open(const char *root);
int64_t cpu_total(void);  /* nanoseconds without our own, -1 where nothing counts them */
struct memory memory_now(void);
void peaks_begin(struct opened opened);
void peaks_take(int64_t *usage, int64_t *kernel);
int64_t oom_kills(void);
uint64_t memory_limit(bool *known);
int64_t cpu_weight(void);

/* -- pages.c, room.c, sockets.c, usage.c: what a phase has used so far */

struct pages {
    int64_t top, kernel_top, files, own;
    struct memory last;
};

void pages_begin(struct pages *pages);
int64_t pages_look(struct pages *pages, int64_t kept, int64_t *held);  /* Return the most since the last look. */
int64_t pages_files(const struct pages *pages);
int64_t pages_unseen(const struct pages *pages);

struct full {
    const char *place, *what;
    int64_t most;
};

struct room {
    int64_t entries;
    int count;
    struct full full[6];
};

void room_look(struct room *room);

struct sockets {
    int counts[2], kinds, netlink;
    int64_t held, hidden, next;
};

void sockets_begin(struct sockets *sockets);
int64_t sockets_held(struct sockets *sockets, bool again);
void sockets_end(struct sockets *sockets);

enum hit { NOTHING, HIT_MEMORY, HIT_TIME, HIT_CPU, HIT_OUTPUT, HIT_FILE, HIT_CANCEL };

struct usage {
    const struct bounds *limits;
    enum hit hit;
    int64_t reaped_cpu, looking_cpu, draining_cpu, cpu_before, oom_before, watching_since;
    int64_t most_memory, memory_peak, files_at_most, held, started, elapsed, kept;
    struct pages pages;
    struct room room;
    struct sockets sockets;
};

int64_t now(void);      /* nanoseconds on the monotonic clock */
int64_t own_cpu(void);  /* nanoseconds of this process */
void usage_begin(struct usage *usage, const struct bounds *limits);
void usage_look(struct usage *usage, int64_t now);
int64_t usage_count_draining(struct usage *usage);
int64_t usage_cpu(const struct usage *usage);  /* so far */
int64_t usage_account(struct usage *usage);  /* Return the CPU time. A limit that was passed meanwhile is the hit. */
bool usage_oom(const struct usage *usage);

/* -- live.c: what a phase has printed so far, told on the way */

struct output {
    int reader, writer;
    size_t cap, total;
    bool ended;
    char *kept;  /* the first `cap` bytes at most */
    char *ring;  /* the last bytes after those, where they are told on the way; else NULL */
};

void live_begin(struct output outputs[2], bool told);
char *live_room(const struct output *output, size_t *room);
void live_look(const struct usage *usage, const struct output outputs[2], int64_t at);
bool live_under_way(void);
void live_send(void);
void live_finish(void);
struct text live_message(void);         /* the place for another message, where none is under way */
void live_put(const struct text *body);  /* Begin to send it. */

/* -- talk.c: a phase that talks with another program, which the host passes on */

int talk_begin(void);
size_t talk_room(const struct output *output);
int talk_feed(void);
int64_t talk_due(const struct output *output);
void talk_take(const struct message *message);
void talk_on(const struct output *output);
void talk_end(void);
void talk_over(void);

/* -- obstacles.c: what keeps a program from being started */

struct obstacle {
    char kind[12];
    uint16_t file_size, name_size;
    char file[256], name[4096];
};

#define OBSTACLES 4

void obstacles_forget(const char *script);
int obstacles_look(const char *script, int code, const struct list *words, struct obstacle *found);

/* -- confine.c: the walls that a program of a job cannot leave */

void confine_prepare(void);     /* in the mount namespace of the job */
void confine(void);             /* Let it write nowhere but to the job's own places, for good. */
void filter_calls(void);        /* Refuse it calls, for good. */
void watch_network(void);       /* From now on calls that ask for the network are reported by ... */
extern int network_calls;       /* ... this descriptor, -1 where the kernel cannot do that, ... */
void let_network_call(void);    /* ... and wait until this lets them go on. */
bool can_let_go_on(const char *release);  /* whether a kernel of this release can */
extern bool network_used;
void be_killed_first(void);     /* where memory is short; to be called before ... */
void give_up_rights(void);      /* Become the job's user, and give up the memory that is shared with the mother. */
void close_above(int last);     /* all descriptors above it */

/* -- apart.c: work on what a job left, by a process that has become the job's user */

enum { ANSWER = 0, KEPT_APART = 3 };  /* its descriptors: the pipe to the caller, and the one that it keeps */

struct errand {
    void (*work)(const void *about);  /* answers; ends the process where it fails */
    const void *about;
    int kept;      /* a descriptor; -1: it keeps none */
    int patience;  /* milliseconds until it is killed */
};

ssize_t apart(const struct errand *errand, void *to, size_t room);
pid_t begin_apart(const struct errand *errand, int *answer);  /* -1 where no process can be made */
int end_apart(pid_t pid);                                    /* Kill it, and return how it ended, as in wait(2). */

/* -- patterns.c, collect.c, outputs.c: files of a job that come back */

#define MOST_PATTERNS 16
#define DEEPEST_OUTPUT 32   /* directories above a file that comes back: no request has more */
#define LONGEST_OUTPUT 1024 /* bytes of its path below the work directory: no request has more */

struct part {
    const char *at;
    size_t size;
};

void patterns_begin(const struct list *patterns);
uint32_t patterns_all(void);
uint32_t patterns_below(uint32_t alive, const struct part *path, size_t count);
uint32_t patterns_of(uint32_t alive, const struct part *path, size_t count);

/* How many names that match do not come back, and why. */
struct left_out {
    uint32_t large, many, total;  /* too large each; too many; too much in all */
    uint32_t odd, names, closed;  /* no regular file; a name that no request has; cannot be opened */
    uint32_t deep, slow;          /* directories that were not looked into: too deep, or the time was over */
};

enum { A_FILE = 1, THE_END };

/* What the collecting process tells: before the name and the bytes of each file, and at the end, with `left_out`. */
struct collected {
    uint32_t kind, mode, matched;  /* a bit for each pattern that the name matches */
    uint32_t name_size;
    uint64_t size;
    struct left_out left_out;
};

void collect(const void *wanted);
void send_outputs(const struct wanted *wanted);

/* -- snapshot.c, pack.c, unpack.c: the work directory as compile.sh left it, for each case */

struct snapshot {
    uint64_t bytes, entries;           /* of the archive; names in it, the work directory's included */
    uint64_t room;                     /* bytes of memory that unpacking takes, about, beside the archive */
    uint64_t pipes, sockets, devices;  /* that were there and are not kept */
};

#define SNAPSHOT_SEALS (F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL)  /* of a whole archive */

int snapshot_take(int archive, uint64_t most, struct snapshot *told);
int snapshot_restore(int archive, struct snapshot *told);

/* -- direct.c: what is started */

struct start {
    const char *program;
    char **argv, **env;
};

bool starts_directly(const struct order *order, struct start *start);

/* -- child.c, phase.c, cell.c, porter.c: the programs */

void prepare_child(const struct order *order);
_Noreturn void become_job(const struct order *order, const int streams[3], int told);
void phase_prepare(void);
void run_phase(const struct order *order, int input);

_Noreturn void serve_many(uid_t holder, const char *space, const char *inodes);
/* Whether a process is the first to serve, comes after another's job, or replaces one that had the wrong view. */
enum stage { FIRST, AGAIN, VIEW_CHOSEN };

_Noreturn void serve(enum stage stage, bool in_cell);
_Noreturn void refuse(const char *event);
void choose_view(const struct show *show);
void settle(void);
_Noreturn void leave(void);
void share_nothing(void);
_Noreturn void porter(void);

#endif

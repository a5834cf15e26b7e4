/* One phase: a program of the job from its fork to the death of everything that it started, and the account of it.
 *
 * child.c is what the fork makes of itself. usage.c counts, and says which limit is passed. This file does the waiting:
 * for output, for the end, and until everything that is left is gone.
 *
 * The limit that was met is measured. No signal and no exit code ever tells it, since a program can choose these. A
 * program may write one byte more into a file than it is allowed. A file of that length at the end of the phase shows
 * that it tried.
 */

#include "inside.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>

#define SECOND 1000000000LL
#define KILL_TIMEOUT (10 * SECOND)  /* for killed processes to go; one stuck in the kernel goes with the container */
#define TICK 10000000LL             /* nanoseconds between looks, at most; memory grows by some 10 MB in that time */
#define FIRST_TICK 2000000LL
#define CHUNK 65536
#define RESERVE (64 * 1024)         /* bytes that are freed where memory is short at the report */

static struct {
    const struct order *order;
    pid_t pid;
    int status;  /* as wait(2) gives it; -1: it did not end */
    struct output outputs[2];
    struct usage usage;
    struct large large;
} phase;

static int children;  /* the descriptor that tells when a child has ended */
static char *reserve;

/* Prepare for the phases of this process: their walls, and what is needed to report on them. */
void phase_prepare(void)
{
    sigset_t of_children;
    sigemptyset(&of_children);
    sigaddset(&of_children, SIGCHLD);
    MUST(sigprocmask(SIG_BLOCK, &of_children, NULL));
    signal(SIGPIPE, SIG_IGN);
    children = MUST(signalfd(-1, &of_children, SFD_CLOEXEC | SFD_NONBLOCK));
    confine_prepare();
    reserve = room_for(RESERVE);
    for (size_t at = 0; at < RESERVE; at += 4096)
        ((volatile char *)reserve)[at] = 1;  /* touched, so that the memory is really ours */
}

/* -- its output: the first bytes are kept, all are counted, and reading never stops. The last are kept for live.c too */

static void begin_output(struct output *output, size_t cap)
{
    int ends[2];
    as_job();  /* so that the job can open /dev/stdout again */
    MUST(pipe2(ends, O_CLOEXEC));
    as_root();
    MUST(fcntl(ends[0], F_SETFL, O_NONBLOCK));
    *output = (struct output){.reader = ends[0], .writer = ends[1], .cap = cap};
    output->kept = mmap(NULL, cap ? cap : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (output->kept == MAP_FAILED)
        FAILED_AT("mmap");
    madvise(output->kept, cap, MADV_NOHUGEPAGE);  /* else a byte would take two mebibytes of the job's */
}

/* Return how many more bytes of an output may be read now. */
static size_t readable(const struct output *output)
{
    return phase.order->talks && output == &phase.outputs[0] ? talk_room(output) : SIZE_MAX;
}

static size_t kept(const struct output *output)
{
    return output->total < output->cap ? output->total : output->cap;
}

/* Read what is there, 1 MiB at most; return false at the end of the file. */
static bool drain(struct output *output)
{
    static char rest[CHUNK];
    for (int turn = 0; turn < 16; turn++) {
        size_t room = output->cap - kept(output), most = readable(output);
        char *to = rest;
        if (!most)
            break;
        if (room)
            to = output->kept + output->total;
        else if (output->ring)
            to = live_room(output, &room);
        else
            room = CHUNK;
        if (most > CHUNK)
            most = CHUNK;
        ssize_t size = read(output->reader, to, room < most ? room : most);
        if (size <= 0)
            return size < 0 && (errno == EAGAIN || errno == EINTR);
        output->total += size;
        phase.usage.kept = kept(&phase.outputs[0]) + kept(&phase.outputs[1]);
    }
    return true;
}

static bool ends_for_its_output(void)
{
    bool ends = phase.order->limits.end_on_output;
    return ((ends || phase.order->talks) && phase.outputs[0].total > phase.outputs[0].cap) ||
           (ends && phase.outputs[1].total > phase.outputs[1].cap);
}

/* Read what dead processes left in the pipes: at most a pipe's capacity each, since no writer lives. */
static void drain_rest(void)
{
    for (int number = 0; number < 2; number++) {
        struct output *output = &phase.outputs[number];
        struct pollfd more = {output->reader, POLLIN, 0};
        int64_t deadline = now() + KILL_TIMEOUT;
        while (drain(output) && now() < deadline && poll(&more, 1, 0) > 0)
            ;
        close(output->reader);
    }
}

/* -- its processes */

/* Collect children that have ended; return false when no child is left, which for process 1 means: nobody at all. */
static bool reap(void)
{
    for (;;) {
        struct rusage used;
        int status;
        pid_t pid = wait4(-1, &status, WNOHANG, &used);
        if (pid <= 0)
            return pid == 0;
        phase.usage.reaped_cpu += (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * SECOND +
                                  (used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1000LL;
        if (pid == phase.pid) {
            phase.status = status;
            phase.usage.elapsed = now() - phase.usage.started;
        }
    }
}

/* Kill everything that is left; return whether it is gone. */
static bool end_all(void)
{
    const struct timespec pause = {0, 500000};
    int64_t deadline = now() + KILL_TIMEOUT;
    while (reap()) {
        kill(-1, SIGKILL);
        if (now() > deadline)
            return false;
        nanosleep(&pause, NULL);
    }
    return true;
}

/* -- the wait */

/* Tell the host what there is so far. The CPU time for that is not the phase's. */
static void tell(void)
{
    int64_t began = usage_count_draining(&phase.usage);
    live_look(&phase.usage, phase.outputs, now());
    live_send();
    phase.usage.looking_cpu += own_cpu() - began;
}

/* Pass on what both programs of a talk say. Only reading the output counts as the phase's. */
static void talk(void)
{
    int64_t began = usage_count_draining(&phase.usage);
    talk_on(&phase.outputs[0]);
    phase.usage.looking_cpu += own_cpu() - began;
}

static void take_word(const struct message *message)
{
    if (message->what != CANCEL)
        talk_take(message);
    else if (phase.status == -1)
        phase.usage.hit = HIT_CANCEL;
}

/* During a phase nothing else is due from the host, except its end. */
static void hear_host(void)
{
    int64_t began = usage_count_draining(&phase.usage);
    hear_word(CANCEL | (phase.order->talks ? HEAR | PASSED : 0), take_word);
    phase.usage.looking_cpu += own_cpu() - began;
}

static void await(int64_t until)
{
    bool talks = phase.order->talks;
    struct output *outputs = phase.outputs;
    struct pollfd waiting[] = {
        {children, POLLIN, 0},
        {0, POLLIN, 0},
        {outputs[0].ended || !readable(&outputs[0]) ? -1 : outputs[0].reader, POLLIN, 0},
        {outputs[1].ended ? -1 : outputs[1].reader, POLLIN, 0},
        {network_calls, POLLIN, 0},
        {(phase.order->live || talks) && live_under_way() ? 1 : -1, POLLOUT, 0},
        {talks ? talk_feed() : -1, POLLOUT, 0},
    };
    if (talks && talk_due(&outputs[0]) < until)
        until = talk_due(&outputs[0]);
    int64_t left = until - now();
    struct timespec time = {left > 0 ? left / SECOND : 0, left > 0 ? left % SECOND : 0};
    if (ppoll(waiting, COUNT(waiting), &time, NULL) <= 0) {
        if (talks)
            talk();
        return;
    }
    if (waiting[1].revents)
        hear_host();
    for (int number = 0; number < 2; number++)
        if (waiting[2 + number].revents)
            outputs[number].ended = !drain(&outputs[number]);
    if (waiting[4].revents)
        let_network_call();
    if (talks)
        talk();
    else if (waiting[5].revents)
        tell();
    if (waiting[0].revents) {
        struct signalfd_siginfo who;
        while (read(children, &who, sizeof who) > 0)
            ;
        reap();
    }
}

/* Wait until the program ends, meets a limit or is cancelled. Other processes that still hold its output open do not
 * matter. */
static void watch(void)
{
    struct usage *usage = &phase.usage;
    int64_t end = usage->started + phase.order->limits.time, next_look = usage->started + FIRST_TICK, pause = FIRST_TICK;
    usage->watching_since = own_cpu();
    if (phase.order->talks)
        talk();
    while (phase.status == -1 && !usage->hit) {
        int64_t at = now();
        if (at >= (next_look < end ? next_look : end)) {
            usage_look(usage, at);
            if (phase.order->live && !usage->hit)
                tell();
            next_look = at + pause;
            pause = 2 * pause < TICK ? 2 * pause : TICK;
        }
        if (!usage->hit)
            await(next_look < end ? next_look : end);
        if (!usage->hit && ends_for_its_output()) {
            usage->hit = HIT_OUTPUT;
            usage->elapsed = now() - usage->started;
        }
    }
    usage_count_draining(usage);
}

/* -- the account */

/* Return the limit that a phase met without being ended for it. The output that its dead processes left in the pipes is
 * read by now. */
static enum hit other_limit(void)
{
    if (ends_for_its_output())
        return HIT_OUTPUT;
    return large_more(&phase.large) ? HIT_FILE : NOTHING;
}

/* Read what the child said that is not the job's fault. It is dead, or has become the job. A child that is stuck says
 * nothing. */
static size_t last_words(int from, char *said, size_t room)
{
    ssize_t size = read(from, said, room);
    close(from);
    return size < 0 ? 0 : size;
}

static void put_full(struct text *to, const struct full *full)
{
    put(to, "d", 1);
    put_integer(to, "most", full->most);
    put_string(to, "place", full->place, strlen(full->place));
    put_string(to, "what", full->what, strlen(full->what));
    put(to, "e", 1);
}

static void put_obstacle(struct text *to, const struct obstacle *obstacle)
{
    put(to, "d", 1);
    put_string(to, "file", obstacle->file, obstacle->file_size);
    put_string(to, "kind", obstacle->kind, strnlen(obstacle->kind, sizeof obstacle->kind));
    put_string(to, "name", obstacle->name, obstacle->name_size);
    put(to, "e", 1);
}

static void put_obstacles(struct text *to, bool clean)
{
    static struct obstacle found[OBSTACLES];
    int code = WIFEXITED(phase.status) && phase.status != -1 ? WEXITSTATUS(phase.status) : -1, count = 0;
    if (clean && !usage_oom(&phase.usage) && phase.usage.hit != HIT_MEMORY)  /* looking takes some memory too */
        count = obstacles_look(phase.order->script.at, code, &phase.order->words, found);
    for (int number = 0; number < count; number++)
        put_obstacle(to, &found[number]);
}

static void report(bool clean)
{
    static const char *const hits[] = {"", "memory", "time", "cpu", "output", "file", "cancel"};
    static char space[40 * 1024];
    struct text to = {space, 0, sizeof space};
    struct usage *usage = &phase.usage;
    const struct output *stdout_ = &phase.outputs[0], *stderr_ = &phase.outputs[1];
    int64_t cpu = usage_account(usage);
    if (!usage->hit)
        usage->hit = other_limit();
    put(&to, "d", 1);
    put_integer(&to, "clean", clean);
    put_integer(&to, "cpu", cpu);
    put_integer(&to, "entries", usage->room.entries);
    put_string(&to, "event", "Done", 4);
    put_integer(&to, "files", usage->files_at_most);
    put_format(&to, "4:fulll");
    for (int number = 0; number < usage->room.count; number++)
        put_full(&to, &usage->room.full[number]);
    put(&to, "e", 1);
    put_string(&to, "hit", hits[usage->hit], strlen(hits[usage->hit]));
    put_integer(&to, "left", usage->held);
    put_integer(&to, "memory", usage->memory_peak);
    put_format(&to, "9:obstaclesl");
    put_obstacles(&to, clean);
    put(&to, "e", 1);
    put_integer(&to, "oom", usage_oom(usage));
    put_integer(&to, "status", phase.status);
    put_integer(&to, "stderr", kept(stderr_));
    put_integer(&to, "stderr_total", stderr_->total);
    put_integer(&to, "stdout", kept(stdout_));
    put_integer(&to, "stdout_total", stdout_->total);
    put_integer(&to, "time", usage->elapsed);
    put_integer(&to, "unseen", pages_unseen(&usage->pages));
    put(&to, "e", 1);
    send_frame(&to);
    send_bytes(stdout_->kept, kept(stdout_));
    send_bytes(stderr_->kept, kept(stderr_));
}

static void report_broken(const char *story, size_t size)
{
    char space[2048];
    struct text to = {space, 0, sizeof space};
    put_format(&to, "d5:event6:Broken");
    put_string(&to, "story", story, size);
    put(&to, "e", 1);
    send_frame(&to);
}

static pid_t start(int input, int *told)
{
    int ends[2];
    MUST(pipe2(ends, O_CLOEXEC | O_NONBLOCK));
    pid_t pid = MUST(fork());
    if (pid == 0) {
        const int streams[3] = {input, phase.outputs[0].writer, phase.outputs[1].writer};
        become_job(phase.order, streams, ends[1]);
    }
    close(ends[1]);
    *told = ends[0];
    return pid;
}

/* Run a phase and send what came of it. */
void run_phase(const struct order *order, int input)
{
    char said[1024];
    int told;
    phase.order = order;
    phase.status = -1;
    phase.pid = 0;
    prepare_child(order);
    for (int number = 0; number < 2; number++)
        begin_output(&phase.outputs[number], order->limits.output[number]);
    if (order->live || order->talks)
        live_begin(phase.outputs, order->live);
    if (order->talks)
        input = talk_begin();
    large_begin(&phase.large, order->limits.file_size);
    usage_begin(&phase.usage, &order->limits);
    obstacles_forget(order->script.at);
    phase.pid = start(input, &told);
    for (int number = 0; number < 2; number++)
        close(phase.outputs[number].writer);
    if (order->talks)
        close(input);
    watch();
    bool clean = end_all();
    sockets_end(&phase.usage.sockets);
    if (usage_oom(&phase.usage) && reserve) {
        free(reserve);  /* files in memory may still fill it, and the report needs some */
        reserve = NULL;
    }
    if (order->talks)
        talk_end();
    drain_rest();
    size_t size = last_words(told, said, sizeof said);
    if (size)
        report_broken(said, size);
    else
        report(clean);
    large_end(&phase.large);
    for (int number = 0; number < 2; number++)
        munmap(phase.outputs[number].kept, phase.outputs[number].cap ? phase.outputs[number].cap : 1);
    if (order->outputs.patterns.count && clean && !size)
        send_outputs(&order->outputs);
    if (order->talks)
        talk_over();
}

/* The forked child, until it is the job: what it puts on, what it gives up, and whose fault it is where that fails.
 *
 * The child puts on everything that the kernel enforces by itself, on a program and on its children: the uid, the
 * Landlock rules, the limits of a process, and last the filter of calls. Each step still allows the next. The child is
 * a copy of the supervisor, so nothing here is undone and nothing returns: it becomes the job, or ends.
 */

#include "inside.h"
#include "facts.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define NO_CORE 1  /* bytes; with so few the kernel starts no handler of core dumps, and with 0 it does, see core(5) */
#define APART 64   /* above all descriptors that need certain numbers */
#define FAILED 126

static char **argv, **env;

static char **pointers(const struct list *list)
{
    char **made = room_for((list->count + 1) * sizeof *made);
    for (size_t number = 0; number < list->count; number++)
        made[number] = (char *)list->of[number].at;
    made[list->count] = NULL;
    return made;
}

/* Prepare what can be prepared before the fork, since the memory that a child takes is charged to the job. */
void prepare_child(const struct order *order)
{
    free(argv);
    free(env);
    argv = pointers(&order->argv);
    env = pointers(&order->env);
    if (!*argv)
        BROKEN("an order has no program");
}

/* Say on the job's stderr where its own limits leave too little. All other failures are no fault of the job's. */
static void need(int result, const char *what)
{
    if (result != -1)
        return;
    if (errno != ENOMEM && errno != ENOSPC && errno != E2BIG)
        FAILED_AT(what);
    dprintf(2, "spoold: the program cannot be started: %s\n", strerror(errno));
    _exit(FAILED);
}

/* Return a descriptor to read the words from. On a command line, every user of the host could read them. */
static int hold(const struct list *words)
{
    as_job();
    int memory = memfd_create("words", 0);  /* it may have the right number already, and is to stay open */
    need(memory, "memfd_create");
    for (size_t number = 0; number < words->count; number++) {
        const struct string *word = &words->of[number];
        for (size_t at = 0; at <= word->size;) {  /* with the NUL after it */
            ssize_t size = write(memory, word->at + at, word->size + 1 - at);
            need(size, "write");
            at += size;
        }
    }
    MUST(lseek(memory, 0, SEEK_SET));
    as_root();
    return memory;
}

static void reset_signals(void)
{
    sigset_t none;
    sigemptyset(&none);
    signal(SIGPIPE, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static void limit(int which, rlim_t soft, rlim_t hard)
{
    struct rlimit bound;
    MUST(getrlimit(which, &bound));
    if (bound.rlim_max == RLIM_INFINITY || hard < bound.rlim_max)
        bound.rlim_max = hard;
    bound.rlim_cur = soft < bound.rlim_max ? soft : bound.rlim_max;
    MUST(setrlimit(which, &bound));
}

/* Limit this process and its children, but not the number of processes, which the kernel would count per user. */
static void set_limits(const struct bounds *limits)
{
    rlim_t cpu = limits->cpu_time / 1000000000 + 2;  /* a backstop; the looks at the control group decide */
    limit(RLIMIT_CPU, cpu, cpu + 1);
    limit(RLIMIT_FSIZE, limits->file_size + 1, limits->file_size + 1);  /* one more shows that it tried, see phase.c */
    limit(RLIMIT_NOFILE, limits->open_files, limits->open_files);
    limit(RLIMIT_STACK, limits->stack, limits->stack);
    limit(RLIMIT_CORE, NO_CORE, NO_CORE);
}

/* Go to the work directory. An earlier phase may have closed it, which is the job's own doing. It is a mount, so the
 * job can neither remove it nor put something else there. */
static void enter_work(void)
{
    if (!chdir(WORK))
        return;
    if (errno != EACCES && errno != EPERM)
        FAILED_AT("chdir");
    dprintf(2, "spoold: the work directory cannot be entered: %s\n", strerror(errno));
    _exit(FAILED);
}

/* Start the program itself where that is possible, else the shell that reads the words. */
static _Noreturn void start(const struct order *order)
{
    struct start known;
    bool is_known = starts_directly(order, &known);
    set_limits(&order->limits);
    filter_calls();
    if (is_known)
        execve(known.program, known.argv, known.env);  /* where this fails, the shell has words for it */
    MUST(fcntl(WORDS, F_SETFD, 0));
    need(execve(argv[0], argv, env), argv[0]);
    _exit(FAILED);
}

/* Become the job, with `streams` as its first descriptors. Failures that are not the job's fault are written to `told`.
 */
_Noreturn void become_job(const struct order *order, const int streams[3], int told)
{
    complain_to = told = MUST(fcntl(told, F_DUPFD_CLOEXEC, APART));  /* out of the way of the numbers below */
    MUST(setsid());
    for (int number = 0; number < 3; number++)
        MUST(dup2(streams[number], number));
    int words = hold(&order->words);
    reset_signals();
    be_killed_first();
    umask(022);
    give_up_rights();
    confine();
    MUST(dup3(words, WORDS, O_CLOEXEC));  /* not before, since the rules may have that number */
    complain_to = MUST(dup3(told, WORDS + 1, O_CLOEXEC));
    close_above(WORDS + 1);
    enter_work();
    start(order);
}

/* Work on what a job left, by a separate process that has become the job's user, behind the walls of a job.
 *
 * Whatever goes wrong in that process is the job's own doing: its files may be made to deceive a program that takes
 * them apart. So the process has nothing of the supervisor's: no pipe to the host, no counter, no rule. It has one
 * pipe, by which it answers, and one descriptor more where the errand has one. Its answer may be the job's words, and
 * the caller checks it.
 */

#include "inside.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

static _Noreturn void be_apart(const struct errand *errand, int answer)
{
    be_killed_first();
    give_up_rights();
    confine();
    filter_calls();
    int kept = errand->kept < 0 ? -1 : MUST(fcntl(errand->kept, F_DUPFD, KEPT_APART + 1));  /* above these numbers */
    /* A program of the job would have a pipe at each of these numbers, and a link of the job's may lead there. */
    for (int number = ANSWER; number < KEPT_APART; number++)
        MUST(dup2(answer, number));
    complain_to = ANSWER;
    if (kept >= 0)
        MUST(dup2(kept, KEPT_APART));
    close_above(kept < 0 ? KEPT_APART - 1 : KEPT_APART);
    errand->work(errand->about);
    _exit(0);
}

/* Return whether the answer came to its end within its room and time. */
static bool hear(int from, int64_t deadline, char *to, size_t room, size_t *size)
{
    char more;
    *size = 0;
    for (;;) {
        struct pollfd waiting = {from, POLLIN, 0};
        int64_t left = deadline - now();
        if (left <= 0 || poll(&waiting, 1, left / 1000000 + 1) < 0)
            return false;
        if (!waiting.revents)
            continue;
        bool full = *size == room;
        ssize_t got = full ? read(from, &more, 1) : read(from, to + *size, room - *size);
        if (got <= 0)
            return got == 0;
        if (full)
            return false;
        *size += got;
    }
}

pid_t begin_apart(const struct errand *errand, int *answer)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC))
        return failing("pipe");
    pid_t pid = fork();
    if (pid == 0)
        be_apart(errand, ends[1]);
    close(ends[1]);
    if (pid < 0) {
        close(ends[0]);
        return failing("fork");
    }
    *answer = ends[0];
    return pid;
}

int end_apart(pid_t pid)
{
    int status = 0;
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    return status;
}

/* Return how many bytes of an answer came, -1 where that did not end well. ETIMEDOUT: it took too long. ENOMEM: the
 * process was killed, which the kernel does where memory is short. EPROTO: it ended in another way. */
ssize_t apart(const struct errand *errand, void *to, size_t room)
{
    int answer;
    size_t size;
    int64_t deadline = now() + errand->patience * 1000000LL;
    pid_t pid = begin_apart(errand, &answer);
    if (pid < 0)
        return -1;
    bool heard = hear(answer, deadline, to, room, &size);
    close(answer);
    int status = end_apart(pid);
    if (heard && status == 0)
        return size;
    bool killed = heard && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;  /* not by end_apart(): it had ended */
    errno = killed ? ENOMEM : now() < deadline ? EPROTO : ETIMEDOUT;
    return failing("a process apart");
}

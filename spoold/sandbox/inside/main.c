/* What runs inside the container: the supervisor, process 1, and the only process in it that is not the job's.
 *
 * Usage: supervisor HOLDER          serves one job, which runs as that uid; the container ends with the job
 *        supervisor HOLDER SPACE INODES   serves each job in a cell of its own, see cell.c
 *        supervisor porter          is another program, for a container of another kind, see porter.c
 *
 * Theory of operation. The supervisor runs as the container's root. It is one static program. So nothing else of the
 * image ever runs as root, and no job pays for the start of the supervisor. The supervisor is sent one job over its
 * stdin. It writes the job's files, then runs each phase as an unprivileged user, watches it, ends it, and reports on
 * its stdout. It outlives the job whatever the job does:
 *
 * - The job has another uid and no capability, so it can neither signal, trace nor read the supervisor. As process 1 of
 *   its namespace the supervisor inherits every orphan, so "no child left" means "nothing of the job left".
 * - The supervisor's descriptors are close-on-exec. The job prints into pipes that only the supervisor reads, never
 *   into the report.
 * - When the supervisor changes its effective uid, the kernel marks it undumpable: /proc/1 is closed.
 * - Where memory is short, the kernel kills the job first (oom_score_adj). The supervisor holds some memory in reserve,
 *   which it frees to be able to report.
 * - A process with the job's rights and walls looks into what a job wrote, see obstacles.c.
 */

#include "inside.h"
#include "facts.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>

/* Say why the job's files cannot be written, and wait for the end, since nothing else comes. */
_Noreturn void refuse(const char *event)
{
    const char *piece;
    if (event)
        send_reason(event, strerror(errno));
    for (;;)
        raw(&piece, 65536);
}

/* Run the phases of this process's one job, as the host orders them. */
_Noreturn void serve(enum stage stage, bool in_cell)
{
    phase_prepare();
    if (stage == FIRST)
        send_ready();
    else if (stage == AGAIN)
        send_word("Again");
    if (in_cell && stage != VIEW_CHOSEN)
        choose_view(&next_message(SHOW)->show);
    const struct parcel *parcel = &next_message(PARCEL)->parcel;
    if (in_cell)
        settle();
    else
        peaks_begin(peaks_left());
    int nothing = MUST(open("/dev/null", O_RDONLY | O_CLOEXEC)), input = receive(parcel);
    if (input < 0)
        refuse("Refused");
    for (;;) {
        const struct message *message = next_message(ORDER | KEEP | END);
        if (message->what == END)
            leave();
        if (message->what == KEEP) {
            hand_over(message->keep);
            continue;
        }
        bool last = message->order.last;
        run_phase(&message->order, message->order.input ? input : nothing);
        if (last)
            leave();
    }
}

/* Allow as many descriptors as possible: a view takes one for each entry, and engines differ in how many they give. */
static void open_more(void)
{
    struct rlimit files;
    MUST(getrlimit(RLIMIT_NOFILE, &files));
    files.rlim_cur = files.rlim_max;
    MUST(setrlimit(RLIMIT_NOFILE, &files));
}

/* Speak with the host by the socket that it listens on, where there is one, else by stdin and stdout. */
static void call_home(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = LINE};
    int line = MUST(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!connect(line, (struct sockaddr *)&address, sizeof address)) {
        MUST(dup2(line, 0));
        MUST(dup2(line, 1));
    }
    close(line);
}

int main(int count, char **words)
{
    if (count != 2 && count != 4)
        return 2;
    if (count == 4)
        call_home();
    wire_begin();
    open_more();
    if (!strcmp(words[1], "porter"))
        porter();
    counters_open("/sys/fs/cgroup");
    make_ready();
    if (count == 4)
        serve_many(strtoul(words[1], NULL, 10), words[2], words[3]);
    job_uid = strtoul(words[1], NULL, 10);
    serve(FIRST, false);
}

/* What runs inside the container: the supervisor, process 1, and the only process in it that is not the job's.
 *
 * Usage: supervisor HOLDER          serves one job, which runs as that uid, and the container ends with it
 *        supervisor HOLDER SPACE INODES   serves each job in a cell of its own, see cell.c
 *        supervisor porter          is another program, for a container of another kind, see porter.c
 *
 * Theory of operation. The supervisor runs as the container's root. It is one static program, so nothing else of the
 * image is ever run as root, and starting it is no part of a job's price. It is sent one job over its stdin. It writes
 * the job's files, then runs each phase as an unprivileged user, watches it, ends it, and reports on its stdout. It
 * outlives the job whatever the job does:
 *
 * - The job has another uid and no capability, so it can neither signal, trace nor read the supervisor. As process 1 of
 *   its namespace the supervisor inherits every orphan, so "no child left" means "nothing of the job left".
 * - Descriptors of the supervisor are close-on-exec: what the job prints goes into pipes that only the supervisor reads,
 *   never into the report.
 * - Changing the effective uid makes the kernel mark the supervisor undumpable: /proc/1 is closed.
 * - Under memory pressure the kernel kills the job first (oom_score_adj), and the supervisor holds some memory in reserve
 *   that it frees to be able to report.
 * - What a job wrote is looked into by a process that has the job's rights and walls, see obstacles.c.
 */

#include "inside.h"
#include "facts.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>

/* Say why the job's files cannot be written, and wait: nothing comes but the end. */
_Noreturn void refuse(const char *event)
{
    const char *piece;
    if (event)
        send_reason(event, strerror(errno));
    for (;;)
        raw(&piece, 65536);
}

/* Run the phases that the host orders of the one job of this process. */
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

/* A view takes a descriptor for each entry, and engines differ in how many they give. */
static void open_more(void)
{
    struct rlimit files;
    MUST(getrlimit(RLIMIT_NOFILE, &files));
    files.rlim_cur = files.rlim_max;
    MUST(setrlimit(RLIMIT_NOFILE, &files));
}

/* Speak with the host by the socket that it listens on, where there is one, and not by stdin and stdout. */
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

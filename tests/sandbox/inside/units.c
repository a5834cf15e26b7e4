/* Runs parts of the supervisor alone, for the tests. Each line of stdin is an order and gets one line on stdout. */

#include "inside.h"
#include "cell.c" /* the tests need its static functions. The same holds for the files below */

#include <stdlib.h>
#include <sys/mman.h>
#include <sys/sendfile.h>

#define FOUND 99 /* the exit code of a process in which a sanitizer found an error */

const char *__asan_default_options(void)
{
    return "exitcode=99";
}

const char *__ubsan_default_options(void)
{
    return "exitcode=99";
}

/* A process apart has no descriptor to which a sanitizer could print. */
static pid_t await_apart(pid_t pid, int *status)
{
    pid = waitpid(pid, status, 0);
    if (WIFEXITED(*status) && WEXITSTATUS(*status) == FOUND)
        BROKEN("a sanitizer found something in a process apart");
    return pid;
}

#define waitpid(pid, status, options) await_apart(pid, status)
#include "apart.c"
#undef waitpid
#include "live.c"
#include "obstacles.c"
#include "snapshot.c"
#include "outputs.c"

_Noreturn void serve(enum stage stage, bool in_cell) /* in place of that of main.c, which is left out here */
{
    (void)stage, (void)in_cell;
    BROKEN("there is no job here");
}

_Noreturn void refuse(const char *event) /* likewise */
{
    BROKEN(event);
}

static struct pages pages;
static struct large large;
static struct sockets sockets;

static bool is_order(const char *line, const char *order, const char **rest)
{
    size_t size = strlen(order);
    *rest = line + size + (line[size] == ' ');
    return !strncmp(line, order, size) && (line[size] == ' ' || line[size] == '\0');
}

static void answer_memory(void)
{
    struct memory memory = memory_now();
    printf("%lld %lld %lld %lld %lld\n", (long long)memory.heap, (long long)memory.files, (long long)memory.cache,
           (long long)memory.kernel, (long long)memory.usage);
}

static void answer_look(int64_t kept)
{
    int64_t held, most = pages_look(&pages, kept, &held);
    printf("%lld %lld %lld\n", (long long)held, (long long)most, (long long)pages_unseen(&pages));
}

static void answer_obstacles(const char *rest)
{
    static struct obstacle told[OBSTACLES];
    char script[256];
    int code;
    struct string word = {"/nowhere", 8};
    struct list words = {1, &word};
    if (sscanf(rest, "%255s %d", script, &code) != 2)
        BROKEN("which script and code?");
    int number = obstacles_look(script, code, &words, told);
    printf("%d", number);
    for (int index = 0; index < number; index++)
        printf(" %s:%.*s", told[index].kind, (int)told[index].name_size, told[index].name);
    printf("\n");
}

/* Tell whether the supervisor accepts what a process reports of an obstacle. */
static void answer_told(const char *rest)
{
    struct obstacle said = {.kind = ""};
    unsigned file_size, name_size;
    if (sscanf(rest, "%11s %u %u", said.kind, &file_size, &name_size) != 3)
        BROKEN("what is told?");
    said.file_size = file_size;
    said.name_size = name_size;
    printf("%d\n", is_sound(&said));
}

/* Tell how many of the names of its view a cell accepts. */
static void answer_names(const char *rest)
{
    unsigned long size;
    char last[2];
    if (sscanf(rest, "%lu %1s", &size, last) != 2)
        BROKEN("which names?");
    told = room_for(sizeof *told);
    memset(told->wanted.of, 'x', sizeof told->wanted.of);
    told->wanted.limited = true;
    told->wanted.size = size;
    if (size && size <= MOST_NAMES)
        told->wanted.of[size - 1] = *last == '0' ? '\0' : *last;
    take_names();
    printf("%zu\n", count_of(&view));
    free(told);
    told = NULL;
}

/* Answer with the facts of this process, or misbehave. */
static void errand(const void *about)
{
    char text[4096] = "";
    struct text answer = {text, 0, sizeof text};
    if (!strcmp(about, "long"))
        sleep(60);
    if (!strcmp(about, "bad"))
        BROKEN("as was asked");
    if (!strcmp(about, "killed"))
        raise(SIGKILL);
    put_format(&answer, "uid %d, killed first %.*s, filter %d, ", getuid(), 4, contents("/proc/self/oom_score_adj"),
               (int)number_after(contents("/proc/self/status"), "Seccomp:"));
    put_format(&answer, "%s elsewhere, descriptors", open_quietly("/elsewhere", O_WRONLY) < 0 ? strerror(errno) : "writes");
    for (int file = 0; file < 1024; file++)
        if (fcntl(file, F_GETFD) >= 0)
            put_format(&answer, " %d", file);
    if (write(ANSWER, text, strcmp(about, "much") ? answer.size : sizeof text) < 0)
        _exit(1);
}

static void answer_apart(const char *how)
{
    char text[256];
    int elsewhere = MUST(open("/elsewhere", O_WRONLY | O_CREAT | O_CLOEXEC, 0666));
    MUST(fchmod(elsewhere, 0666));
    close(elsewhere);
    ssize_t size = apart(&(struct errand){errand, how, strcmp(how, "kept") ? -1 : 2, strcmp(how, "long") ? 60000 : 1}, text,
                         sizeof text);
    printf("%.*s\n", size < 0 ? 256 : (int)size, size < 0 ? strerror(errno) : text);
}

static void answer_snapshot(int failed, const struct snapshot *told)
{
    for (char *at = trouble; (at = strchr(at, '\n'));)
        *at = '?';  /* an answer is one line */
    if (failed)
        printf("%s: %s\n", strerror(errno), trouble);
    else
        printf("%llu entries, without %llu pipes, %llu sockets, %llu devices\n", (unsigned long long)told->entries,
               (unsigned long long)told->pipes, (unsigned long long)told->sockets, (unsigned long long)told->devices);
}

/* Copy a whole file. The archives of the tests have up to some hundred megabytes. */
static void copy_all(int from, int to)
{
    off_t size = MUST(lseek(from, 0, SEEK_END)), at = 0;
    while (at < size)
        MUST(sendfile(to, from, &at, size - at));
}

/* Take a snapshot of at most `most` bytes. If that works, write the archive to a file. */
static void answer_take(const char *rest)
{
    char path[4096];
    unsigned long long most;
    struct snapshot told;
    int archive = MUST(memfd_create("archive", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    if (sscanf(rest, "%llu %4095s", &most, path) != 2)
        BROKEN("how much, and where to?");
    int failed = snapshot_take(archive, most, &told), number = errno;
    if (!failed) {
        int file = MUST(open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
        copy_all(archive, file);
        close(file);
        if (pwrite(archive, "x", 1, 0) > 0 || !ftruncate(archive, 0) || !ftruncate(archive, 1L << 40))
            BROKEN("the archive can be changed");
    } else if (lseek(archive, 0, SEEK_END)) {
        BROKEN("a part of an archive is left");
    }
    close(archive);
    errno = number;
    answer_snapshot(failed, &told);
}

static int archive_of(const char *path)
{
    int archive = MUST(memfd_create("archive", MFD_CLOEXEC | MFD_ALLOW_SEALING)), file = MUST(open(path, O_RDONLY | O_CLOEXEC));
    copy_all(file, archive);
    close(file);
    return archive;
}

static void answer_restore(const char *path)
{
    struct snapshot told;
    int archive = archive_of(path);
    off_t before = MUST(lseek(archive, 0, SEEK_CUR));
    MUST(fcntl(archive, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL));
    int failed = snapshot_restore(archive, &told), number = errno;
    if (MUST(lseek(archive, 0, SEEK_CUR)) != before)
        BROKEN("another reader of the archive would go on at another offset");
    close(archive);
    errno = number;
    answer_snapshot(failed, &told);
}

/* Print the errors for archives that must be refused: without seals, a plain file, and one that cannot be sealed. */
static void answer_unfit(const char *path)
{
    struct snapshot told;
    int unsealed = archive_of(path), not_to_be_sealed = MUST(memfd_create("archive", MFD_CLOEXEC));
    int file = MUST(open(path, O_RDONLY | O_CLOEXEC));
    printf("%s, ", snapshot_restore(unsealed, &told) ? strerror(errno) : "good");
    printf("%s, ", snapshot_restore(file, &told) ? strerror(errno) : "good");
    printf("%s, ", snapshot_take(unsealed, UINT64_MAX, &told) ? strerror(errno) : "good");
    printf("%s\n", snapshot_take(not_to_be_sealed, UINT64_MAX, &told) ? strerror(errno) : "good");
    close(file);
    close(unsealed);
    close(not_to_be_sealed);
}

/* Answer as no process that packs an archive does. */
static void lie(const void *about)
{
    static struct result result;
    if (!strcmp(about, "half"))
        _exit(write(ANSWER, &result, sizeof result / 2) < 0);
    result.error = strcmp(about, "minus") ? ENOSPC : -1;
    memset(result.trouble, 'x', sizeof result.trouble);
    say(&result);
}

static void answer_lie(const char *how)
{
    struct snapshot told;
    int failed = have_done(lie, how, -1, &told);
    answer_snapshot(failed, &told);
}

/* Tell whether the end of an output of `size` bytes is right. It is read in pieces, and `cap` of its bytes are kept. */
static bool tail_is_right(size_t cap, size_t size, size_t piece)
{
    static char all[8 * TAIL], kept[8 * TAIL], space[TAIL + BESIDE], wanted[TAIL + BESIDE];
    struct output outputs[2] = {{.cap = cap, .kept = kept}, {.cap = cap, .kept = kept}}, *output = &outputs[1];
    struct text told = {space, 0, sizeof space}, right = {wanted, 0, sizeof wanted};
    size_t end = size < TAIL ? size : TAIL;
    live_begin(outputs, true);
    for (size_t at = 0; at < size; at++)
        all[at] = (at * 7 + at / 251) % 251;
    while (output->total < size) {
        size_t room = output->total < cap ? cap - output->total : 0;
        char *to = room ? kept + output->total : live_room(output, &room);
        room = room < piece ? room : piece;
        room = room < size - output->total ? room : size - output->total;
        memcpy(to, all + output->total, room);
        output->total += room;
    }
    put_tail(&told, "key", output);
    put_string(&right, "key", all + size - end, end);
    return told.size == right.size && !memcmp(space, wanted, right.size);
}

/* Print how many pages of the room for live output are in memory: before a phase that asks for it, in that phase,
 * and at most. */
static void answer_touched(void)
{
    static unsigned char seen[sizeof live / 4096 + 2];
    struct output outputs[2] = {{.cap = 0}, {.cap = 0}};
    char *from = (char *)((uintptr_t)&live & ~4095UL);
    size_t pages = ((char *)(&live + 1) - from + 4095) / 4096, before = 0, after = 0;
    MUST(mincore(from, pages * 4096, seen));
    for (size_t page = 1; page < pages - 1; page++)  /* the first and the last hold other data too */
        before += seen[page] & 1;
    live_begin(outputs, true);
    MUST(mincore(from, pages * 4096, seen));
    for (size_t page = 1; page < pages - 1; page++)
        after += seen[page] & 1;
    printf("%zu %zu %zu\n", before, after, pages - 2);
}

/* Let time pass, output come and CPU time go by. Print whether the supervisor sends a message. The host takes it,
 * unless one is under way. */
static void answer_news(const char *rest)
{
    static char kept[64];
    static struct output outputs[2] = {{.cap = sizeof kept, .kept = kept}, {.cap = sizeof kept, .kept = kept}};
    static struct usage usage = {.cpu_before = -1};
    static int64_t at;
    double seconds;
    unsigned long printed;
    long long cpu;
    char more[16] = "";
    if (sscanf(rest, "%lf %lu %lld %15s", &seconds, &printed, &cpu, more) < 3)
        BROKEN("which news?");
    if (!at) {
        live_begin(outputs, true);
        at = usage.started = now();
    }
    at += (int64_t)(seconds * 1e9);
    outputs[0].total += printed;
    usage.reaped_cpu += cpu;
    live.sent -= *more != '\0';
    bool before = live_under_way();
    live_look(&usage, outputs, at);
    printf("%s\n", live_under_way() && !before ? "told" : "nothing");
    live.sent = live.size;
}

static void answer_tail(const char *rest)
{
    unsigned long cap, size, piece;
    if (sscanf(rest, "%lu %lu %lu", &cap, &size, &piece) != 3)
        BROKEN("which tail?");
    printf("%s\n", tail_is_right(cap, size, piece) ? "right" : "wrong");
}

/* Answer as a process that collects files must not. `about` names the fault: a file that is too large and ends early
 * ("large", "total"), a pattern that was not asked for ("unasked"), a file without a name ("unnamed"), with a name that
 * is too long ("long") or of an unknown kind ("odd"), too many files ("many"), or no answer for a minute ("silent"). */
static void deceive(const void *about)
{
    struct collected head = {.kind = A_FILE, .mode = 0644, .matched = 1, .name_size = 1, .size = 100000};
    const char *how = about;
    char piece[50000] = "";
    if (!strcmp(how, "large"))
        head.size = 2 * MIB;
    if (!strcmp(how, "total"))
        head.size = 1L << 40;
    if (!strcmp(how, "unasked"))
        head.matched = 1U << 31;
    if (!strcmp(how, "unnamed"))
        head.name_size = 0;
    if (!strcmp(how, "long"))
        head.name_size = 60000;
    if (!strcmp(how, "odd"))
        head.kind = 7;
    if (!strcmp(how, "silent"))
        sleep(60);
    bool many = !strcmp(how, "many");
    head.size = many ? 0 : head.size;
    for (int number = 0; number < (many ? 100 : 1); number++)
        if (write(ANSWER, &head, sizeof head) < 0 || write(ANSWER, "x", 1) < 0)
            _exit(1);
    _exit(write(ANSWER, piece, sizeof piece) < 0);
}

static void answer_outputs(const char *rest)
{
    char path[256], how[16], text[MOST_PATTERNS][256];
    struct string strings[MOST_PATTERNS];
    unsigned long files;
    long long file_size, total;
    int at = 0, more = 0;
    struct wanted wanted = {.patterns = {0, strings}};
    if (sscanf(rest, "%255s %15s %lu %lld %lld%n", path, how, &files, &file_size, &total, &at) != 5)
        BROKEN("which files?");
    wanted.files = files;
    wanted.file_size = file_size;
    wanted.total = total;
    wanted.walking = strcmp(how, "hasty") ? 60000000000LL : 0;
    for (; wanted.patterns.count < MOST_PATTERNS && sscanf(rest + at, "%255s%n", text[wanted.patterns.count], &more) == 1;
         at += more, wanted.patterns.count++)
        strings[wanted.patterns.count] = (struct string){text[wanted.patterns.count], strlen(text[wanted.patterns.count])};
    fflush(stdout);
    int kept = MUST(dup(1)), file = MUST(open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    MUST(dup2(file, 1));
    whole = true;
    patience = strcmp(how, "silent") ? 60000000000LL : 1000000;
    if (!strcmp(how, "itself") || !strcmp(how, "hasty"))
        send_outputs(&wanted);
    else
        pass_on(begin_apart(&(struct errand){deceive, how, -1, 0}, &told_by), wanted);
    MUST(dup2(kept, 1));
    close(kept);
    close(file);
    printf("done\n");
}

static void obey(const char *line)
{
    const char *rest;
    int64_t one, other;
    if (is_order(line, "counters", &rest)) {
        counters_open(rest);
        printf("done\n");
    } else if (is_order(line, "memory", &rest)) {
        answer_memory();
    } else if (is_order(line, "cpu", &rest)) {
        printf("%lld\n", (long long)cpu_total());
    } else if (is_order(line, "oom", &rest)) {
        printf("%lld\n", (long long)oom_kills());
    } else if (is_order(line, "peaks", &rest)) {
        peaks_take(&one, &other);
        printf("%lld %lld\n", (long long)one, (long long)other);
    } else if (is_order(line, "resets", &rest)) {
        peaks_begin((struct opened){1, {open(rest, O_RDWR), -1}});
        printf("%d\n", counters.resets);
    } else if (is_order(line, "pages", &rest)) {
        pages_begin(&pages);
        printf("done\n");
    } else if (is_order(line, "look", &rest)) {
        answer_look(strtoll(rest, NULL, 10));
    } else if (is_order(line, "large", &rest)) {
        large_end(&large);
        large_begin(&large, strtoll(rest, NULL, 10));
        printf("done\n");
    } else if (is_order(line, "more", &rest)) {
        printf("%d\n", large_more(&large));
    } else if (is_order(line, "sockets", &rest)) {
        sockets_begin(&sockets);
        printf("done\n");
    } else if (is_order(line, "deaf", &rest)) {
        sockets.netlink = open("/dev/null", O_RDWR);
        printf("done\n");
    } else if (is_order(line, "held", &rest)) {
        printf("%lld\n", (long long)sockets_held(&sockets, true));
    } else if (is_order(line, "begins", &rest)) {
        char space[16];
        struct piece found = read_some((struct piece){rest, strlen(rest)}, space, 9, NULL);
        printf("<%.*s>\n", (int)found.size, found.at);
    } else if (is_order(line, "forget", &rest)) {
        obstacles_forget(rest);
        printf("done\n");
    } else if (is_order(line, "apart", &rest)) {
        answer_apart(rest);
    } else if (is_order(line, "walls", &rest)) {
        confine_prepare();
        printf("done\n");
    } else if (is_order(line, "take", &rest)) {
        answer_take(rest);
    } else if (is_order(line, "restore", &rest)) {
        answer_restore(rest);
    } else if (is_order(line, "lie", &rest)) {
        answer_lie(rest);
    } else if (is_order(line, "unfit", &rest)) {
        answer_unfit(rest);
    } else if (is_order(line, "outputs", &rest)) {
        answer_outputs(rest);
    } else if (is_order(line, "obstacles", &rest)) {
        answer_obstacles(rest);
    } else if (is_order(line, "kernel", &rest)) {
        printf("%d\n", can_let_go_on(rest));
    } else if (is_order(line, "told", &rest)) {
        answer_told(rest);
    } else if (is_order(line, "touched", &rest)) {
        answer_touched();
    } else if (is_order(line, "news", &rest)) {
        answer_news(rest);
    } else if (is_order(line, "tail", &rest)) {
        answer_tail(rest);
    } else if (is_order(line, "names", &rest)) {
        answer_names(rest);
    } else {
        BROKEN("what is that?");
    }
    fflush(stdout);
}

int main(void)
{
    char line[4096];
    complain_to = 2;
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = '\0';
        obey(line);
    }
    large_end(&large);
    return 0;
}

/* What keeps a program from being started. It is seen in the job's files after a phase, when nothing of the job lives.
 *
 * Theory of operation. Where an interpreter or a loader is missing, the kernel tells a shell no more than "no such
 * file", and shells tell no more of it. So the script itself is looked at. Where the exit code is a shell's for "cannot
 * be started", the other programs beside the script are looked at too. Only regular files are looked at, a few thousand
 * bytes of each. The files of a job are neither run, nor waited for, nor trusted. A look takes half a second of CPU
 * time at most. Where that is too little, it tells nothing.
 *
 * A process that has become the job's user takes apart what the job wrote, see apart.c. The supervisor itself sees no
 * more than whether there is anything to look at, which is seldom.
 *
 * The script's access time tells whether the script was begun at all. obstacles_forget() sets that time back before the
 * phase, and reading the file sets it again. Where a file system keeps no such times, nothing is said of it.
 *
 * The host is told a fact about a file, whatever the program may have done. It has the words for that
 * (sandbox/obstacles.py).
 */

#include "inside.h"
#include "facts.h"

#include <dirent.h>
#include <elf.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>

#define HEAD 4096          /* bytes that are read of a file to see how it starts */
#define LINES 32768        /* bytes that are read to see how its lines end */
#define LARGE (256 * 1024) /* bytes of the file that sets up the environment */
#define NOT_RUN 126
#define NOT_FOUND 127      /* shells and env(1) exit with these where a program cannot be started */
#define LONGEST 252        /* bytes of an interpreter's name, which the kernel accepts */
#define PROGRAMS 200       /* files that are looked at, at most */
#define OLDEST_CLASS 43    /* of Java. The number there in a program of macOS is how many machines it is for */
#define DEPTH 4            /* interpreters of interpreters, at most */
#define PATIENCE 20000     /* milliseconds for the whole look: it waits for nothing, but the machine may stand still */
#define LOOKING 500000000LL /* nanoseconds of CPU time for it: there can be many names, and each can take long */
#define NEVER 1            /* nanosecond after the epoch: no program sets that time, and many set 0 */

/* A piece of a text, which may hold any bytes. */
struct piece {
    const char *at;
    size_t size;
};

static struct obstacle *found;
static int count;
static const char *const *places;  /* of programs; NULL where they cannot be known */
static int64_t until;              /* on the clock of this process's CPU time */

/* -- before the phase */

static bool in_work(char *path, const char *name)
{
    return snprintf(path, PATH_MAX, *name == '/' ? "%s%s" : "%s/%s", *name == '/' ? "" : WORK, name) < PATH_MAX;
}

void obstacles_forget(const char *script)
{
    char path[PATH_MAX];
    struct stat status;
    as_job();
    if (in_work(path, script) && !lstat(path, &status) && S_ISREG(status.st_mode)) {
        struct timespec times[2] = {{0, NEVER}, status.st_mtim};
        utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW);
    }
    as_root();
}

/* -- text */

static bool begins(struct piece text, const char *word)
{
    return text.size >= strlen(word) && !memcmp(text.at, word, strlen(word));
}

static bool is(struct piece text, const char *word)
{
    return text.size == strlen(word) && begins(text, word);
}

static bool has(struct piece text, char byte)
{
    return text.size && memchr(text.at, byte, text.size);
}

static struct piece after(struct piece text, size_t size)
{
    return (struct piece){text.at + size, text.size - size};
}

/* Return what comes before the first of some bytes, the whole where there is none of them. */
static struct piece before(struct piece text, const char *bytes)
{
    size_t size = 0;
    while (size < text.size && !strchr(bytes, text.at[size]))
        size++;
    return (struct piece){text.at, size};
}

static struct piece without(struct piece text, const char *bytes)
{
    while (text.size && text.at[0] && strchr(bytes, text.at[0]))
        text = after(text, 1);
    while (text.size && text.at[text.size - 1] && strchr(bytes, text.at[text.size - 1]))
        text.size--;
    return text;
}

static struct piece base(struct piece path)
{
    for (size_t size = path.size; size; size--)
        if (path.at[size - 1] == '/')
            return after(path, size);
    return path;
}

/* -- files */

static void go_on(void)
{
    if (own_cpu() > until)
        _exit(1);  /* the look took too long */
}

static bool path_of(char *path, struct piece name)
{
    if (!name.size || name.size >= PATH_MAX || has(name, '\0'))
        return false;
    return snprintf(path, PATH_MAX, "%s%.*s", name.at[0] == '/' ? "" : WORK "/", (int)name.size, name.at) < PATH_MAX;
}

/* Return whether there may be something at a path, which is relative to the work directory. */
static bool is_there(struct piece name)
{
    char path[PATH_MAX];
    struct stat status;
    go_on();
    return path_of(path, name) && (!stat(path, &status) || (errno != ENOENT && errno != ENOTDIR));
}

/* Return whether a file is there that the job may run. */
static bool can_run(struct piece name)
{
    char path[PATH_MAX];
    struct stat status;
    go_on();
    if (!path_of(path, name) || stat(path, &status))
        return false;
    return S_ISREG(status.st_mode) && status.st_mode & (status.st_uid == geteuid() ? 0100 : 0011);
}

/* Read the first bytes of a regular file. Other things are not even opened, since that may take or give something. Set
 * an open descriptor too where one is asked for, -1 where there is none. */
static struct piece read_some(struct piece name, char *to, size_t room, int *open_)
{
    char path[PATH_MAX];
    struct stat status;
    ssize_t size = 0;
    int place = path_of(path, name) ? open(path, O_PATH | O_CLOEXEC) : -1, file = -1;
    if (place >= 0 && !fstat(place, &status) && S_ISREG(status.st_mode)) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", place);
        file = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        size = file < 0 ? 0 : pread(file, to, room, 0);
    }
    if (place >= 0)
        close(place);
    if (open_)
        *open_ = file;
    else if (file >= 0)
        close(file);
    return (struct piece){to, size < 0 ? 0 : size};
}

static bool tell(const char *kind, struct piece file, struct piece name)
{
    struct obstacle *next = &found[count];
    if (count == OBSTACLES || file.size > sizeof next->file || name.size > sizeof next->name)
        return false;
    snprintf(next->kind, sizeof next->kind, "%s", kind);
    memcpy(next->file, file.at, next->file_size = file.size);
    memcpy(next->name, name.at, next->name_size = name.size);
    count++;
    return true;
}

static const struct piece none = {"", 0};

/* -- programs: see elf(5); every number in the file may be any */

static uint64_t number(const char *at, size_t size, bool big)
{
    uint64_t sum = 0;
    for (size_t index = 0; index < size; index++)
        sum = sum << 8 | (unsigned char)at[big ? index : size - 1 - index];
    return sum;
}

static bool loader_of(int file, struct piece head, char path[HEAD])
{
    char table[HEAD];
    bool wide = head.at[EI_CLASS] == ELFCLASS64, big = head.at[EI_DATA] == ELFDATA2MSB;
    size_t word = wide ? 8 : 4;
    if (head.size < sizeof(Elf64_Ehdr))
        return false;
    uint64_t headers = number(head.at + (wide ? 32 : 28), word, big), size = number(head.at + (wide ? 54 : 42), 2, big);
    uint64_t room = size * number(head.at + (wide ? 56 : 44), 2, big);
    ssize_t got = headers > INT64_MAX ? -1 : pread(file, table, room < HEAD ? room : HEAD, headers);
    for (size_t at = 0; got > 0 && size && at + 2 * word <= (size_t)got; at += size) {
        uint64_t offset = number(table + at + word, word, big);
        if (number(table + at, 4, big) != PT_INTERP || offset > INT64_MAX)
            continue;
        ssize_t length = pread(file, path, HEAD - 1, offset);
        path[length < 0 ? 0 : length] = '\0';
        return *path;
    }
    return false;
}

static bool of_elf(struct piece file, struct piece head, int open_)
{
#if defined(__x86_64__)
    const char own[] = {ELFCLASS64, ELFDATA2LSB, EM_X86_64, 0};
#elif defined(__aarch64__)
    const char own[] = {ELFCLASS64, ELFDATA2LSB, (char)EM_AARCH64, EM_AARCH64 >> 8};
#else
#error "this machine's programs are not known"
#endif
    char path[HEAD], machine[16];
    if (head.size < 20)
        return false;
    if (memcmp(head.at + EI_CLASS, own, 2) || memcmp(head.at + 18, own + 2, 2)) {
        int size = snprintf(machine, sizeof machine, "%u", (unsigned)number(head.at + 18, 2, head.at[EI_DATA] == ELFDATA2MSB));
        return tell("machine", file, (struct piece){machine, size});
    }
    if (!loader_of(open_, head, path))
        return false;
    struct piece loader = {path, strlen(path)};
    return !is_there(loader) && tell("loader", file, loader);
}

/* -- scripts */

static bool of(struct piece file, struct piece name, int depth);

/* Tell what keeps env from finding a program. Options that are not listed here are left to env. */
static bool of_env(struct piece file, struct piece rest, int depth)
{
    static const char *const alone[] = {"-", "-i", "--ignore-environment", "-v", "--debug"};
    struct piece name = rest;
    if (begins(rest, "-S") || begins(rest, "--split-string")) {
        struct piece words = after(rest, begins(rest, "-S") ? 2 : 14);
        if (before(rest, "'\"\\$#").size < rest.size)
            return false;
        while (words.size && words.at[0] == '=')
            words = after(words, 1);
        for (name = none; !name.size && words.size;) {
            struct piece word = before(words = without(words, " \t\r\v\f"), " \t\r\v\f");
            bool option = has(word, '=');
            for (size_t index = 0; index < COUNT(alone); index++)
                option |= is(word, alone[index]);
            words = after(words, word.size);
            name = option ? none : word;
        }
    } else if (has(rest, ' ') && !begins(rest, "-")) {
        return tell("one word", file, rest);
    }
    if (!name.size || begins(name, "-") || !places)
        return false;
    if (has(name, '/'))
        return of(name, name, depth + 1);
    for (const char *const *place = places; *place; place++) {
        char path[PATH_MAX];
        int size = snprintf(path, sizeof path, "%s/%.*s", *place, (int)(name.size < NAME_MAX ? name.size : NAME_MAX), name.at);
        if (size < PATH_MAX && can_run((struct piece){path, size}))
            return false;
    }
    return tell(is(name, "nix-shell") ? "nix-shell" : "package", file, name);
}

static bool of_interpreter(struct piece file, struct piece head, int depth)
{
    struct piece line = without(before(after(head, 2), "\n"), " \t"), name = before(line, " \t");
    if (line.size && line.at[line.size - 1] == '\r')
        return tell("return", file, none);
    if (!name.size || name.size > LONGEST || depth == DEPTH)
        return false;
    if (!is_there(name))
        return tell(name.at[0] == '/' ? "interpreter" : "relative", file, name);
    if (!can_run(name))
        return tell("no program", file, name);
    if (is(base(name), "env"))
        return of_env(file, without(after(line, name.size), " \t"), depth);
    return of(name, name, depth + 1);
}

/* Tell what keeps the program at `name` from being started. `file` needs that program, or is it. */
static bool of(struct piece file, struct piece name, int depth)
{
    static const struct { const char *magic, *kind; } foreign[] = {
        {"MZ", "windows"}, {"\xcf\xfa\xed\xfe", "macos"}, {"\xce\xfa\xed\xfe", "macos"},
    };
    char path[PATH_MAX], space[HEAD];
    struct stat status;
    int open_;
    if (!is_there(name))
        return tell(path_of(path, name) && !lstat(path, &status) && S_ISLNK(status.st_mode) ? "dangling" : "missing", file, none);
    if (!path_of(path, name) || stat(path, &status))
        return false;
    if (!S_ISREG(status.st_mode))
        return tell(S_ISDIR(status.st_mode) ? "directory" : "special", file, none);
    if (!can_run(name))
        return tell("mode", file, none);
    struct piece head = read_some(name, space, sizeof space, &open_);
    if (open_ < 0)
        return access(path, R_OK) && errno == EACCES && tell("unreadable", file, none);
    bool told = false;
    if (begins(head, "#!"))
        told = of_interpreter(file, head, depth);
    else if (begins(head, ELFMAG))
        told = of_elf(file, head, open_);
    else if (begins(head, "\xca\xfe\xba\xbe") && head.size >= 8)
        told = tell(number(head.at + 4, 4, true) < OLDEST_CLASS ? "macos" : "class", file, none);
    for (size_t index = 0; index < COUNT(foreign) && !told; index++)
        told = begins(head, foreign[index].magic) && tell(foreign[index].kind, file, none);
    if (open_ >= 0)
        close(open_);
    return told;
}

static int by_name(const void *one, const void *other)
{
    return strcmp(*(char *const *)one, *(char *const *)other);
}

/* Tell what keeps other programs in the work directory from being started. Files that nobody has read are left out,
 * since starting a program reads its file. */
static void beside(struct piece script)
{
    char *names[PROGRAMS], path[PATH_MAX];
    int seen = 0;
    struct stat status;
    DIR *directory = opendir(WORK);
    for (const struct dirent *entry; directory && seen < PROGRAMS && (entry = readdir(directory));)
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..") && !is(script, entry->d_name))
            names[seen++] = strdup(entry->d_name);
    if (directory)
        closedir(directory);
    qsort(names, seen, sizeof *names, by_name);
    for (int index = 0; index < seen; index++) {
        struct piece name = {names[index], strlen(names[index])};
        if (can_run(name) && path_of(path, name) && !stat(path, &status) &&
            (status.st_atim.tv_sec > status.st_mtim.tv_sec ||
             (status.st_atim.tv_sec == status.st_mtim.tv_sec && status.st_atim.tv_nsec > status.st_mtim.tv_nsec)))
            of(name, name, 0);
    }
}

static bool is_a_shells(struct piece line)
{
    static const char *const shells[] = {"sh", "bash", "dash", "ksh", "zsh"};
    for (struct piece rest = without(after(line, 2), " \t\r\v\f"), word; rest.size;
         rest = without(after(rest, word.size), " \t\r\v\f")) {
        word = before(rest, " \t\r\v\f");
        for (size_t index = 0; index < COUNT(shells); index++)
            if (is(base(word), shells[index]))
                return true;
    }
    return false;
}

static const char *mark_of(struct piece text)
{
    if (begins(text, "\xef\xbb\xbf"))
        return "mark";
    return begins(text, "\xff\xfe") || begins(text, "\xfe\xff") ? "utf-16" : NULL;
}

static bool is_late(struct piece text, int code)
{
    return code && !begins(text, "#!") && begins(without(text, " \t\r\n"), "#!");
}

/* Tell what a shell does not take as it was meant. The script may have run all the same. */
static bool of_text(struct piece file, struct piece text, int code)
{
    struct piece first = before(text, "\n");
    const char *mark = mark_of(text);
    if (is_late(text, code))
        return tell("late", file, none);
    if (mark)
        return tell(mark, file, none);
    if (has(text, '\0') || !has(text, '\r'))
        return false;
    if (begins(first, "#!")) {
        if (first.at[first.size - 1] == '\r')
            return tell("return", file, none);
        if (!is_a_shells(first))
            return false;
    }
    if (first.size == text.size && memchr(text.at, '\r', text.size - 1))
        return tell("old", file, none);
    int line = 1;
    for (size_t at = 0; at + 1 < text.size && (code || at < first.size); at++) {
        if (text.at[at] == '\r' && text.at[at + 1] == '\n') {
            char said[16];
            int size = snprintf(said, sizeof said, "%d", line);
            return tell("returns", file, (struct piece){said, size});
        }
        line += text.at[at] == '\n';
    }
    return false;
}

/* -- where programs are found */

/* Split a list of directories in place. */
static const char *const *split(char *list)
{
    size_t all = 2;
    for (const char *at = list; *at; at++)
        all += *at == ':';
    const char **made = room_for(all * sizeof *made);
    all = 0;
    for (char *each; (each = strsep(&list, ":"));)
        made[all++] = each;
    made[all] = NULL;
    return made;
}

static const char *const *all_of_the_store(void)
{
    size_t room = 64, all = 2;
    const char **made = room_for(room * sizeof *made);
    DIR *directory = opendir("/nix/store");
    if (!directory)
        return NULL;  /* the whole store is there, and nobody may list it */
    made[0] = "/bin";
    made[1] = "/usr/bin";
    for (const struct dirent *entry; (entry = readdir(directory));) {
        char path[PATH_MAX];
        if (all + 1 == room && !(made = realloc(made, (room *= 2) * sizeof *made)))
            _exit(1);
        snprintf(path, sizeof path, "/nix/store/%s/bin", entry->d_name);
        made[all++] = strdup(path);
    }
    made[all] = NULL;
    return made;
}

/* Return the directories of the PATH with which a phase began, NULL where they cannot be known. */
static const char *const *search(const struct list *words)
{
    static const char begin[] = "\ndeclare -x PATH=\"";
    char *text = room_for(LARGE + 2), path[PATH_MAX];
    for (size_t index = 1; index < words->count; index++)
        if (!strncmp(words->of[index].at, "PATH=", 5))
            return split(strdup(words->of[index].at + 5));
    int size = snprintf(path, sizeof path, "%s/enter.sh", words->count ? words->of[0].at : "");
    struct piece read_ = read_some((struct piece){path, size < PATH_MAX ? size : 0}, text + 1, LARGE, NULL);
    text[0] = '\n';
    text[1 + read_.size] = '\0';
    char *at = strstr(text, begin);
    if (at) {
        at += sizeof begin - 1;
        char *end = strstr(at, "\"\n");
        if (end) {
            *end = '\0';
            if (*at && !strpbrk(at, "\\\"$`"))
                return split(at);
        }
    }
    return all_of_the_store();
}

/* -- the look */

static struct piece text_of(struct piece script, char *space)
{
    return read_some(script, space, LINES, NULL);
}

static bool is_unread(const char *script)
{
    char path[PATH_MAX];
    struct stat status;
    return in_work(path, script) && !lstat(path, &status) && S_ISREG(status.st_mode) && status.st_size > 0 &&
           status.st_atim.tv_sec == 0 && status.st_atim.tv_nsec == NEVER;
}

struct looked_for {
    const char *script;
    int code;
    const struct list *words;
    bool unread;
};

/* Look, and answer with what was found. */
static void look(const void *about)
{
    static char space[LINES];
    static struct obstacle space_of_found[OBSTACLES];
    const struct looked_for *this = about;
    struct piece script = {this->script, strlen(this->script)};
    bool failed = this->code == NOT_RUN || this->code == NOT_FOUND;
    found = space_of_found;
    until = own_cpu() + LOOKING;
    places = this->code == NOT_FOUND ? search(this->words) : NULL;
    struct piece text = text_of(script, space);
    bool kept_unread = this->unread && !is_unread(this->script);  /* else this file system keeps no such times */
    bool told = failed && of(script, script, 0);
    if (!told)
        told = kept_unread ? tell("unread", script, none) : of_text(script, text, this->code);
    if (!told && failed)
        beside(script);
    size_t size = count * sizeof *found;
    if (size && write(ANSWER, found, size) != (ssize_t)size)
        _exit(1);
}

/* Return whether an answer is sound. The process that looked may be the job's by now. */
static bool is_sound(const struct obstacle *obstacle)
{
    bool known = false;
    for (size_t index = 0; index < COUNT(KINDS); index++)
        known |= !strncmp(obstacle->kind, KINDS[index], sizeof obstacle->kind);
    return known && obstacle->file_size <= sizeof obstacle->file && obstacle->name_size <= sizeof obstacle->name;
}

/* Set what is in the way of `script`, after a phase that exited with `code` (-1: it did not exit), and return how many
 * obstacles there are. `words` are those of the phase's order. */
int obstacles_look(const char *script, int code, const struct list *words, struct obstacle *to)
{
    static char space[LINES];
    as_job();
    bool unread = is_unread(script);
    struct piece text = none;
    if (!unread && code != NOT_RUN && code != NOT_FOUND)
        text = text_of((struct piece){script, strlen(script)}, space);
    as_root();
    if (text.at == space && !has(text, '\r') && !mark_of(text) && !is_late(text, code))
        return 0;  /* nearly all scripts end here */
    struct looked_for this = {script, code, words, unread};
    ssize_t size = apart(&(struct errand){look, &this, -1, PATIENCE}, to, OBSTACLES * sizeof *to);
    int told = 0;
    while ((told + 1) * (ssize_t)sizeof *to <= size && is_sound(&to[told]))
        told++;
    return told;
}

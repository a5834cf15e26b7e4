/* Parts of the supervisor, one at a time, for the tests: each line of stdin is an order, and gets one line on stdout. */

#include "inside.h"
#include "obstacles.c" /* for what is its own */

_Noreturn void serve(enum stage stage, bool in_cell) /* of main.c, which is not here */
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
    } else if (is_order(line, "obstacles", &rest)) {
        answer_obstacles(rest);
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

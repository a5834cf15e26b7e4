/* What the TCP and UDP sockets of a job hold: memory that cgroup v1 charges to nobody, and v2 only in part.
 *
 * Theory of operation. A job has a network namespace, so all sockets in it are the job's. The kernel says how many
 * there are (/proc/net/sockstat). While there are none, nothing else is done. By sock_diag(7) the kernel tells what
 * each of them holds: data received and not yet read, data not yet sent, options. This walks the kernel's tables, so it
 * gets a bounded share of the time. Where it cannot be asked, a socket counts with all that it may hold. That is so
 * where there are too many sockets to ask for them often enough, where the kernel lacks INET_DIAG, and for sockets that
 * no longer have an address, which are not in the tables. The last are those that neither have an address nor are Unix
 * ones. Programs have few of them.
 *
 * The kernel itself charges the job's group for what waits in Unix sockets and pipes.
 */

#include "inside.h"
#include "facts.h"

#include <fcntl.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <stdlib.h>
#include <sys/socket.h>

#define KINDS 4
#define MOST 1024               /* sockets that are asked for, at most; it takes some 5 ms */
#define FEW 8                   /* sockets without an address that count as empty */
#define SHARE 10                /* looks take a tenth of the time at most */

static const struct { const char *inuse; int family, protocol; } kinds[KINDS] = {
    {"TCP: inuse ", AF_INET, 6}, {"UDP: inuse ", AF_INET, 17}, {"TCP6: inuse ", AF_INET6, 6}, {"UDP6: inuse ", AF_INET6, 17},
};

/* Return how many sockets there are, and set how many of each kind have an address. */
static int64_t count(const struct sockets *sockets, int64_t counts[KINDS])
{
    char text[8192];
    size_t size = read_file(sockets->counts[0], text, sizeof text / 2);
    read_file(sockets->counts[1], text + size, sizeof text - size);
    for (int number = 0; number < KINDS; number++)
        counts[number] = number_after(text, kinds[number].inuse);
    return number_after(text, "sockets: used ");
}

static int64_t of_unix(const struct sockets *sockets)
{
    char text[16384], *rest = text, *line;
    int64_t all = 0;
    read_file(sockets->kinds, text, sizeof text);
    while ((line = strsep(&rest, "\n"))) {
        char name[32];
        long long number;
        if (sscanf(line, "%31s %*s %lld", name, &number) == 2 && !strncmp(name, "UNIX", 4))
            all += number;
    }
    return all;
}

static int64_t without_address(const struct sockets *sockets, int64_t used, const int64_t counts[KINDS])
{
    int64_t rest = used - sockets->hidden;
    for (int number = 0; number < KINDS; number++)
        rest -= counts[number];
    return rest > FEW ? rest - of_unix(sockets) : rest;
}

/* Return what a socket with these attributes holds. TCP has in UNDER_WAY and QUEUED what is on its way. A connection
 * that is closed and remembered for a while has no attributes. */
static int64_t memory_of(const char *at, size_t size)
{
    while (size >= sizeof(struct nlattr)) {
        struct nlattr head;
        uint32_t words[SK_MEMINFO_BACKLOG + 1];
        memcpy(&head, at, sizeof head);
        if (head.nla_len < sizeof head || head.nla_len > size)
            return 0;
        if (head.nla_type == INET_DIAG_SKMEMINFO && head.nla_len >= sizeof head + sizeof words) {
            memcpy(words, at + sizeof head, sizeof words);
            uint32_t under_way = words[SK_MEMINFO_WMEM_ALLOC], queued = words[SK_MEMINFO_WMEM_QUEUED];
            return (int64_t)words[SK_MEMINFO_RMEM_ALLOC] + (under_way > queued ? under_way : queued) +
                   words[SK_MEMINFO_OPTMEM] + words[SK_MEMINFO_BACKLOG];
        }
        size_t step = NLA_ALIGN(head.nla_len);
        if (step >= size)
            return 0;
        at += step;
        size -= step;
    }
    return 0;
}

/* Add up one answer; return 1 at the last one, -1 where the kernel does not tell. */
static int take(const char *answer, size_t size, int64_t *total)
{
    while (size >= sizeof(struct nlmsghdr)) {
        struct nlmsghdr head;
        memcpy(&head, answer, sizeof head);
        if (head.nlmsg_len < sizeof head || head.nlmsg_len > size)
            return -1;
        if (head.nlmsg_type == NLMSG_ERROR || head.nlmsg_type == NLMSG_DONE) {
            int error = 0;
            if (head.nlmsg_len >= sizeof head + sizeof error)
                memcpy(&error, answer + sizeof head, sizeof error);
            return error ? -1 : 1;
        }
        size_t fixed = NLMSG_LENGTH(sizeof(struct inet_diag_msg));
        if (head.nlmsg_len > fixed)
            *total += memory_of(answer + fixed, head.nlmsg_len - fixed);
        size_t step = NLMSG_ALIGN(head.nlmsg_len);
        if (step >= size)
            break;
        answer += step;
        size -= step;
    }
    return 0;
}

/* Add the bytes that the sockets of a kind hold. */
static int ask(struct sockets *sockets, int family, int protocol, int64_t *total)
{
    struct {
        struct nlmsghdr head;
        struct inet_diag_req_v2 body;
    } request = {
        {sizeof request, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, 0, 0},
        {.sdiag_family = family, .sdiag_protocol = protocol, .idiag_ext = 1 << (INET_DIAG_SKMEMINFO - 1), .idiag_states = ~0U},
    };
    static char answer[65536];
    int last = 0;
    if (sockets->netlink < 0)
        sockets->netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    if (write(sockets->netlink, &request, sizeof request) < 0)
        return -1;
    while (!last) {
        ssize_t size = read(sockets->netlink, answer, sizeof answer);
        last = size > 0 ? take(answer, size, total) : -1;
    }
    return last < 0 ? -1 : 0;
}

static int64_t look(struct sockets *sockets)
{
    int64_t counts[KINDS], all = 0, total = 0, used = count(sockets, counts);
    int64_t hidden = without_address(sockets, used, counts) - FEW;
    hidden = hidden > 0 ? hidden * SOCKET : 0;
    for (int number = 0; number < KINDS; number++)
        all += counts[number];
    if (!all)
        return hidden;
    bool told = all <= MOST;
    for (int number = 0; number < KINDS && told; number++)
        if (counts[number] && ask(sockets, kinds[number].family, kinds[number].protocol, &total))
            told = false;  /* the job may cause this, by using up what the kernel has */
    return hidden + (told ? total : all * SOCKET);
}

void sockets_begin(struct sockets *sockets)
{
    int64_t counts[KINDS];
    *sockets = (struct sockets){
        .counts = {open_quietly("/proc/net/sockstat", O_RDONLY), open_quietly("/proc/net/sockstat6", O_RDONLY)},
        .kinds = open_quietly("/proc/net/protocols", O_RDONLY),
        .netlink = -1,
    };
    int64_t used = count(sockets, counts);
    sockets->hidden = without_address(sockets, used, counts);  /* the sockets from before the job */
}

/* Return the bytes that they hold, as seen a little earlier, or as they are now where `again` is true. */
int64_t sockets_held(struct sockets *sockets, bool again)
{
    int64_t began = now();
    if (again || began >= sockets->next) {
        sockets->held = look(sockets);
        int64_t ended = now();
        sockets->next = sockets->held ? ended + SHARE * (ended - began) : 0;
    }
    return sockets->held;
}

void sockets_end(struct sockets *sockets)
{
    int files[] = {sockets->counts[0], sockets->counts[1], sockets->kinds, sockets->netlink};
    for (size_t number = 0; number < COUNT(files); number++)
        if (files[number] >= 0)
            close(files[number]);
}

/* Which names the patterns of a request match. Like a path, a pattern has parts, with slashes between them.
 *
 * In a part `*` stands for any bytes. A part `**` stands for any number of directories, and a pattern has at most one
 * of these. So the parts before it are the first names of a path, and the parts after it the last ones. Nothing is
 * tried twice: the pieces between two stars are looked for one after the other, each behind the one before. That takes
 * no longer than reading the name and the pattern once.
 */

#include "inside.h"

#define MOST_PARTS (DEEPEST_OUTPUT + 2)
#define ANY "**"

static struct pattern {
    bool any;
    size_t first, last;             /* parts before `**`, or all; and parts after it */
    struct part parts[MOST_PARTS];  /* without `**` */
} patterns[MOST_PATTERNS];

static size_t count;

static struct part after(struct part text, size_t size)
{
    return (struct part){text.at + size, text.size - size};
}

static bool begins(struct part text, const char *with, size_t size)
{
    return text.size >= size && !memcmp(text.at, with, size);
}

static bool is_like(struct part name, struct part like)
{
    const char *star = memchr(like.at, '*', like.size);
    if (!star)
        return name.size == like.size && begins(name, like.at, like.size);
    size_t size = star - like.at;
    if (!begins(name, like.at, size))
        return false;
    for (;;) {
        name = after(name, size);
        like = after(like, star - like.at + 1);
        star = memchr(like.at, '*', like.size);
        if (!star)
            return name.size >= like.size && begins(after(name, name.size - like.size), like.at, like.size);
        size = star - like.at;
        const char *found = memmem(name.at, name.size, like.at, size);
        if (!found)
            return false;
        size += found - name.at;
    }
}

static void split(struct pattern *to, const char *text)
{
    *to = (struct pattern){.any = false};
    for (const char *end = text; *end; text = end + (*end == '/')) {
        end = text + strcspn(text, "/");
        size_t size = end - text;
        if (size == strlen(ANY) && !memcmp(text, ANY, size)) {
            if (to->any)
                BROKEN("a pattern has a part twice that it may have once");
            to->any = true;
            continue;
        }
        if (!size || to->first + to->last == MOST_PARTS)
            BROKEN("a pattern has too many parts, or an empty one");
        to->parts[to->first + to->last] = (struct part){text, size};
        *(to->any ? &to->last : &to->first) += 1;
    }
    if (to->first + to->last == 0 || (to->any && !to->last))
        BROKEN("a pattern ends with no name");
}

/* Use these patterns from now on. They have to stay where they are. */
void patterns_begin(const struct list *of)
{
    if (of->count > MOST_PATTERNS)
        BROKEN("there are too many patterns");
    for (count = 0; count < of->count; count++)
        split(&patterns[count], of->of[count].at);
}

/* Return a bit for each pattern, since any of them may have matches below the work directory. */
uint32_t patterns_all(void)
{
    return (1U << count) - 1;
}

/* Return which of the patterns that are `alive` in its parent may have matches below a directory. */
uint32_t patterns_below(uint32_t alive, const struct part *path, size_t depth)
{
    for (size_t number = 0; number < count; number++) {
        const struct pattern *pattern = &patterns[number];
        if (!(alive & 1U << number))
            continue;
        bool has_more = pattern->any || depth < pattern->first;
        if (!has_more || (depth <= pattern->first && !is_like(path[depth - 1], pattern->parts[depth - 1])))
            alive &= ~(1U << number);
    }
    return alive;
}

static bool has_last(const struct pattern *pattern, const struct part *path, size_t depth)
{
    for (size_t back = 1; back <= pattern->last; back++)
        if (!is_like(path[depth - back], pattern->parts[pattern->first + pattern->last - back]))
            return false;
    return true;
}

/* Return which of the patterns that are `alive` in its directory match a file, whose path has `depth` names. */
uint32_t patterns_of(uint32_t alive, const struct part *path, size_t depth)
{
    uint32_t matched = 0;
    for (size_t number = 0; number < count; number++) {
        const struct pattern *pattern = &patterns[number];
        if (!(alive & 1U << number))
            continue;
        if (pattern->any ? depth >= pattern->first + pattern->last && has_last(pattern, path, depth)
                         : depth == pattern->first && is_like(path[depth - 1], pattern->parts[depth - 1]))
            matched |= 1U << number;
    }
    return matched;
}

/* What goes wrong: refusals of the kernel, which the caller handles, and bugs of ours, which end the program. */

#include "inside.h"

char trouble[256];
int complain_to = -1;
int gone_code;

int failing(const char *path)
{
    int number = errno;
    snprintf(trouble, sizeof trouble, "%s", path ? path : "");
    errno = number;
    return -1;
}

/* Tell of a bug: what was tried, the kernel's error unless `number` is 0, and where. */
_Noreturn void broken(const char *file, int line, const char *what, int number)
{
    char story[1024];
    const char *name = strrchr(file, '/'), *why = number ? strerror(number) : "";
    snprintf(story, sizeof story, "%s%s%s%s%s%s\n  %s:%d", what, number ? ": " : "", why, *trouble ? " (last of " : "",
             trouble, *trouble ? ")" : "", name ? name + 1 : file, line);
    if (complain_to >= 0) {
        dprintf(complain_to, "%s", story);
        _exit(126);
    }
    complain_to = 2;  /* where telling the host fails in turn */
    char space[1200];
    struct text body = {space, 0, sizeof space};
    put(&body, "d5:event6:Broken", 16);
    put_string(&body, "story", story, strlen(story));
    put(&body, "e", 1);
    send_frame(&body);
    _exit(1);
}

/* End, since nobody is left to report to. */
_Noreturn void gone(void)
{
    _exit(gone_code);
}

/* Takes the place of store.c, and makes every view fail: by a bug of ours, or by an end of the program (-DENDS). */

#include "inside.h"

int mount_view(const struct list *names, enum view_of of)
{
    (void)names, (void)of;
#ifdef ENDS
    _exit(1);
#else
    BROKEN("left out");
#endif
}

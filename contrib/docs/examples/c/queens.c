/* How many ways are there to put n queens on a board of n x n so that none threatens another? */

#include <stdio.h>
#include <stdlib.h>

static unsigned long ways(unsigned all, unsigned columns, unsigned left, unsigned right)
{
    unsigned long found = 0;

    if (columns == all)
        return 1;
    for (unsigned free = all & ~(columns | left | right); free; free &= free - 1) {
        unsigned here = free & -free;
        found += ways(all, columns | here, (left | here) << 1, (right | here) >> 1);
    }
    return found;
}

int main(int argc, char **argv)
{
    int n = argc > 1 ? atoi(argv[1]) : 8;

    printf("%lu ways for %d queens\n", ways((1u << n) - 1, 0, 0, 0), n);
    return 0;
}

#include <stdio.h>

int main(void)
{
    int *volatile nowhere = 0;

    puts("so far so good");
    fflush(stdout);
    return *nowhere;
}

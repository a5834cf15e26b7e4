#include <stdlib.h>
#include <string.h>

static void leaf(char *text) { text[5] = 1; }

int main(int argc, char **argv)
{
    char *text = malloc(5);

    leaf(text);
    if (argc > 1 && strcmp(argv[1], "crash") == 0)
        *(volatile int *)NULL = 1;
    return 0;
}

cat >main.c <<'END'
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int main(int count, char **words) {
    char line[80];
    printf("%d %s\n", count, words[0]);
    while (fgets(line, sizeof line, stdin)) printf("< %s", line);
    fprintf(stderr, "tty %d, %s\n", isatty(1), getenv("HOME"));
    return count > 1 ? 17 : 0;
}
END
gcc -Wall -o main main.c && ./main a b c

#include <gmp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct row { char name[32]; int score; };

static struct row rows[16];
static int count, total;

static int by_name(const void *a, const void *b) { return strcmp(((struct row *)a)->name, ((struct row *)b)->name); }

static void *add(void *unused)
{
    (void)unused;
    for (int i = 0; i < count; i++)
        total += rows[i].score;
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t thread;
    char line[64];
    mpz_t big;

    printf("%s, %s\n", argv[1], argv[argc - 1]);
    while (scanf("%31s %d", rows[count].name, &rows[count].score) == 2)
        count++;
    qsort(rows, count, sizeof *rows, by_name);
    pthread_create(&thread, NULL, add, NULL);
    pthread_join(thread, NULL);
    FILE *out = fopen("out.txt", "w+");
    for (int i = 0; i < count; i++)
        fprintf(out, "%s %d\n", rows[i].name, rows[i].score);
    rewind(out);
    while (fgets(line, sizeof line, out))
        fputs(line, stdout);
    mpz_init(big);
    mpz_ui_pow_ui(big, 2, 100);
    gmp_printf("sum %d\n2^100 = %Zd\n", total, big);
    return 0;
}

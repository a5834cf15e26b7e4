#include <stdio.h>

int main(void) {
    char word[99];
    scanf("%98s", word);
    printf("hello %s\n", word);
}

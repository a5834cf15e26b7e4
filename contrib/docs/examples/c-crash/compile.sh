gcc -o main main.c

gcc -g -O0 -o main main.c

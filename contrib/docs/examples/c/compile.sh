gcc -O2 -Wall -o queens queens.c

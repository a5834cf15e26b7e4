gcc -O2 -Wall -pthread -o main main.c -lgmp

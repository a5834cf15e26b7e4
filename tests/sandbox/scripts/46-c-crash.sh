printf 'int main(void) { volatile int *p = 0; return *p; }' >main.c
gcc -w -o main main.c
./main; echo $?
./main | cat; echo "${PIPESTATUS[0]}"
(./main)

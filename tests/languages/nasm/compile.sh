nasm -f elf64 main.asm
gcc -no-pie -o main main.o

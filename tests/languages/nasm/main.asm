; Adds the numbers on standard input, with libc.
        global main
        extern scanf, printf
        section .rodata
input:  db "%*s %ld", 0
output: db "%ld", 10, 0
        section .bss
number: resq 1
        section .text
main:   push rbx
        xor ebx, ebx
next:   mov edi, input
        mov esi, number
        xor eax, eax
        call scanf
        cmp eax, 1
        jne done
        add rbx, [number]
        jmp next
done:   mov edi, output
        mov rsi, rbx
        xor eax, eax
        call printf
        xor eax, eax
        pop rbx
        ret
        section .note.GNU-stack noalloc noexec nowrite progbits

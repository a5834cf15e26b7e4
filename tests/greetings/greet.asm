extern scanf, printf, fflush
global main

section .data
asked: db '%98s', 0
greeting: db 'hello %s', 10, 0

section .bss
name: resb 99

section .text
main:
  push rbx
  mov rdi, asked
  mov rsi, name
  xor eax, eax
  call scanf
  mov rdi, greeting
  mov rsi, name
  xor eax, eax
  call printf
  xor edi, edi
  call fflush
  xor eax, eax
  pop rbx
  ret

section .note.GNU-stack noalloc noexec nowrite progbits

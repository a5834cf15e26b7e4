; Without a C library.
global _start

section .data
greeting: db 'hello '

section .bss
name: resb 99

section .text
_start:
  mov rax, 1
  mov rdi, 1
  mov rsi, greeting
  mov rdx, 6
  syscall
  xor eax, eax
  xor edi, edi
  mov rsi, name
  mov rdx, 99
  syscall
  mov rdx, rax
  mov rax, 1
  mov rdi, 1
  mov rsi, name
  syscall
  mov rax, 60
  xor edi, edi
  syscall

extern scanf, printf, fflush
global main
section .data
in: db '%98s', 0
out: db 'hello %s', 10, 0
section .bss
word: resb 99
section .text
main:
  push rbx
  mov rdi, in
  mov rsi, word
  xor eax, eax
  call scanf
  mov rdi, out
  mov rsi, word
  xor eax, eax
  call printf
  xor edi, edi
  call fflush
  xor eax, eax
  pop rbx
  ret
section .note.GNU-stack noalloc noexec nowrite progbits

tsc --strict --target es2020 --lib es2020 main.ts

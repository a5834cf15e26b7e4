ldc2 -O main.d

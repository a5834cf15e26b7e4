exec python3 -c 'print(len(b"x" * (2 << 30)))'

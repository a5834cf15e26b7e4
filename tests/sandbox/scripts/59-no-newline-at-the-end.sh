echo a; echo b\
c; exit 6
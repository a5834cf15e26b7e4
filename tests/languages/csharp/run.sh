exec mono main.exe "$@"

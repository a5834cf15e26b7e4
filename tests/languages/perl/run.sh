exec perl main.pl "$@"

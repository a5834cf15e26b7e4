exec swipl main.pl "$@"

echo "$1, $2"
exec ./main

./main "$@"
echo "2^100 = $(echo 2^100 | bc)"

echo "$1, $2"
sort > out.txt
cat out.txt
echo "sum $(./main < out.txt)"
echo "2^100 = $(echo 2^100 | bc)"

printf "%s, %s\n" "$@"
sort > out.txt
cat out.txt
echo "sum $(cut -d " " -f 2 out.txt | paste -sd+ | bc)"
echo "2^100 = $(echo "2^100" | bc)"

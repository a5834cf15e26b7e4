read -r first; echo "first: $first"
cat
read -r more || echo "end $?"
[[ -t 0 || -t 1 || -t 2 ]] || echo "no terminal"

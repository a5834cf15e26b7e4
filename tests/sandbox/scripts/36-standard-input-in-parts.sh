head -n 1 >/dev/null
echo "rest:"; while IFS= read -r line; do echo "[$line]"; done
cat /dev/stdin | wc -c

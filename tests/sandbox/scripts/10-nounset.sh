set -u
echo "${a:-none}"
echo "$nosuchvariable"
echo never

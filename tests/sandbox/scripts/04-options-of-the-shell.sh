echo "$-"
echo "$SHELLOPTS"
echo "$BASHOPTS"
set -o
shopt

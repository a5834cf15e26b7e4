set -x
echo a; f() { echo b; }; f
(echo c)
$(echo echo d)
PS4='+ $LINENO: '
echo e

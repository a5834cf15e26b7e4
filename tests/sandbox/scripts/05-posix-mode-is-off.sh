set -o | grep posix
source lib.sh
function a-b { echo "a function with a dash"; }
a-b
kill -SIGWINCH $$
time -p true 2>&1
export -n nothing; unset -f a-b; type a-b 2>/dev/null || echo gone
readonly constant=1; constant=2; echo "goes on"
. ./none.sh; echo "goes on after a missing file"

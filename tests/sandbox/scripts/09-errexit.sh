set -euo pipefail
f() { false; echo "not reached in f"; }
if f; then echo "a condition does not end it"; fi
false | true || echo "pipefail"
echo "${unset_variable-default}"
x=$(false)
echo never

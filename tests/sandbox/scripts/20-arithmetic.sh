echo $((7 / 2)) $((-7 % 3)) $((2 ** 62)) $((0x1f + 010 + 2#101)) $((1 ? 2 : 3))
((i = 5, i++)); echo $i; let i*=2; echo $i
for ((n = 0; n < 3; n++)); do printf '%d ' $n; done; echo
echo $((9223372036854775807 + 1))
printf '%.3f %5d|%-5s|%x\n' 3.14159 42 ab 255
echo $((1 / 0))
echo "goes on"
x=global
outer() { local x=outer; inner; echo "$x"; }
inner() { echo "sees $x"; x=changed; }
outer; echo "$x"
recurse() { (($1 > 0)) && { echo -n "$1 "; recurse $(($1 - 1)); }; }; recurse 5; echo
declare -f recurse
f() { return 9; }; f; echo $?
export -f outer; bash -c 'outer 2>&1' | tail -n 1

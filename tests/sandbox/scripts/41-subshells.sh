x=1; (x=2; echo $x); echo $x
y=$(echo inside; exit 3); echo "$y $?"
echo $( (echo nested; echo "$BASH_SUBSHELL") )
{ echo group; false; } && echo no || echo yes
bash -c 'echo "$0 $1"' name word
[[ $$ == "$(echo $$)" ]] && echo "the same pid"
eval 'echo eval "$x"'
sleep 0.05 & first=$!
(exit 4) & second=$!
wait "$first"; echo $?
wait "$second"; echo $?
true & wait -n; echo "any $?"
wait; echo "all $?"
{ sleep 0.05; echo late; } & wait
coproc cat; echo through >&"${COPROC[1]}"; read -r line <&"${COPROC[0]}"; echo "$line"

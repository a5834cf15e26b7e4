locale 2>/dev/null | head -n 3
printf 'zwölf\n' | wc -m; word=zwölf; echo ${#word}
printf 'b\nA\na\nB\n' | sort | paste -sd' '
printf '%s\n' ä z a | LC_ALL=C sort | paste -sd' '
LC_ALL=C.UTF-8 bash -c 'word=zwölf; echo ${#word}'
python3 -c 'import sys, locale; print(sys.stdout.encoding, sys.getfilesystemencoding())'
printf 'x 1\ny 2\n' | awk '{ s += $2; print $1 } END { print s, ENVIRON["HOME"] }'
printf 'abc\n' | sed -E 's/(b)/<\1>/'
find . -name '*.sh' | sort; printf '3\n1\n2\n' | xargs -n 1 echo n | sort
seq 3 | tac | paste -sd+; basename /a/b.c .c; expr 3 + 4; printf '%s' abc | od -c | head -n 1
timeout 0.05 sleep 5; echo $?; nice -n 0 true; test -d /tmp; echo $?; env -i /bin/sh -c 'echo "[$HOME]"'

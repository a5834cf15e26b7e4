diff <(echo a; echo b) <(echo a; echo c)
echo "status $?"
while read -r line; do echo "got $line"; done < <(printf '1\n2\n')
tee >(cat >copy) <<<'to both'; until [[ -s copy ]]; do sleep 0.01; done; cat copy
name=world
cat <<END
Hello $name $((6 * 7)) `echo command` $(echo substitution) \$escaped
END
cat <<'END'
Hello $name `nothing`
END
cat <<-END
	tabs are gone
	END
cat <<< "a here-string $name"
read -r -d '' whole <<END
two
lines
END
echo "$whole"

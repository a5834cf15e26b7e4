printf '%s, %s\n' "$@"
gdb -batch -ex 'break leaf' -ex run -ex backtrace -ex 'print sizeof(int) - 3' main 2>&1 | grep -E '^(#|\$)' | sed 's/0x[0-9a-f]*/ADDRESS/g'
gdb -batch -ex 'python print("python in gdb")'
valgrind --leak-check=full ./main 2>&1 | sed 's/^==[0-9]*== *//' | grep -E '^(Invalid write|ERROR SUMMARY|definitely lost|   definitely)' | sed 's/^ *//'
strace -f -e trace=exit_group ./main 2>&1 | grep exited
git init -q --initial-branch main repository
cd repository
git config user.name Ada
git config user.email ada@example.org
echo one >file
git add file
git commit -q -m 'The first'
echo two >>file
git commit -q -a -m 'The second'
git log --format='%an: %s'
git diff --stat HEAD~1 | tail -n 1
git grep -c o HEAD -- file
git archive --format=zip --output=file.zip HEAD
unzip -p file.zip file
curl --silent file://"$PWD"/file
curl --version | grep -q '^Protocols:.* https'
echo 'scale=10; 4*a(1)' | bc -l

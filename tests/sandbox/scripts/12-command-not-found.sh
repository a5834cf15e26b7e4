nosuchcommand --option
echo $?
./nosuchfile; echo $?
. 2>/dev/null; echo $?
/; echo $?
nosuchcommand

bash -c 'kill -ABRT $$'
echo $?
(kill -KILL $BASHPID)
echo $?
bash -c 'kill -PIPE $$'; echo $?
python3 -c 'import os; os.kill(os.getpid(), 15)'; echo $?

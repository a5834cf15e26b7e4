ulimit -n 32; ulimit -n; ulimit -Hn
ulimit -c 0; ulimit -c
ulimit -t 3; ulimit -t
ulimit -f 8; (head -c 20000 /dev/zero >big) 2>/dev/null; echo $?; stat -c %s big

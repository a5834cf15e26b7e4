echo x >/dev/null; head -c 3 /dev/zero | od -An -tx1; head -c 4 /dev/urandom | wc -c
echo out >/dev/stdout; echo err >/dev/stderr
cat </dev/stdin | head -n 1; ls /dev/fd/ | head -n 3
(echo x >/dev/full) 2>/dev/null; echo $?
tty; [[ -e /dev/tty ]] && (: >/dev/tty) 2>/dev/null || echo "no terminal"
[[ $PPID -eq 0 ]] || echo "a parent"
read -ra stat </proc/$$/stat; ((stat[4] == stat[5])) && echo "its group leads the session"
id -u | grep -c .; hostname 2>/dev/null | wc -l; uname -s
cat /proc/$$/comm

ls /proc/self/fd
exec 7<lib.sh; read -r -u 7 line; echo "$line"; exec 7<&-
{ echo a >&3; } 3>&1; echo b >&9
exec 3>&1 >file 2>&1
echo into the file; ls nosuchfile
exec >&3 3>&-
sed 's/^/| /' file
exec < lib.sh; read -r first; echo "$first"

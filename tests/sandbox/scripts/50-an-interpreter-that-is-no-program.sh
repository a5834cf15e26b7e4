#!/job/lib.sh.txt
echo never

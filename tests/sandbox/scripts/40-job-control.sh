set -m
sleep 60 &
jobs | sed 's/  */ /g'
{ kill %1; wait %1; } 2>/dev/null; echo $?
kill %1 2>/dev/null || echo "no job"
read -ra stat </proc/$$/stat; sleep 60 & read -ra child </proc/$!/stat
((child[4] == stat[4])) || echo "a group of its own"
# Wait for it. Otherwise a race decides whether bash tells of its end.
{ kill $!; wait $!; } 2>/dev/null
echo $?

set -m
sleep 60 &
jobs | sed 's/  */ /g'
{ kill %1; wait %1; } 2>/dev/null; echo $?
kill %1 2>/dev/null || echo "no job"
read -ra stat </proc/$$/stat; sleep 60 & read -ra child </proc/$!/stat
((child[4] == stat[4])) || echo "a group of its own"
# Waited for, or whether bash tells of its end depends on which comes first.
{ kill $!; wait $!; } 2>/dev/null
echo $?

exec printf '%s\n' replaced
echo never

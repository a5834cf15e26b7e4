# Builder of the library of redirect.c, and of the place in it where the store paths go.
mkdir -p $out
gcc -std=gnu11 -O2 -Wall -Wextra -Werror -Wno-nonnull-compare -Wno-format-truncation -fPIC -shared "-DTRIPLET=\"$triplet\"" -o $out/redirect.so $source
offset=$(grep -abo @roots@ $out/redirect.so)
[ "$(echo "$offset" | wc -l)" = 1 ]
echo "${offset%%:*}" > $out/offset

[ -e "$out/bin/sh" ] || ln -s bash "$out/bin/sh" # Debian's sh is dash

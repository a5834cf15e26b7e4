[ -e "$out/bin/awk" ] || ln -s gawk "$out/bin/awk"

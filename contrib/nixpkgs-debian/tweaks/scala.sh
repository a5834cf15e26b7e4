# Debian makes these links by its alternatives.
mkdir -p "$out/bin"
for program in "$out"/share/scala-*/bin/*; do ln -s "$program" "$out/bin/${program##*/}"; done

# Builder of a Python with packages.  Run by bash, coreutils and findutils in PATH.
#
# Python finds its library beside the program, and Debian's packages beside that: so the program is a copy, and all else
# links to it.
mkdir -p $out/bin $out/lib/python3/dist-packages
for file in $python3/bin/*; do
  if [ -L "$file" ]; then cp -P "$file" $out/bin/; else cp "$file" $out/bin/; fi
done
for link in $(find $out/bin -type l); do
  target=$(readlink "$link")
  case $target in $python3/bin/*) ln -sf "${target##*/}" "$link" ;; esac
done
for entry in $python3/lib/*; do
  case ${entry##*/} in python3) ;; *) ln -s "$entry" $out/lib/ ;; esac
done

# merge FROM TO: links; a directory that several have becomes one (a package with parts, like zope)
merge() {
  local entry name inner
  for entry in "$1"/*; do
    name=${entry##*/}
    if [ ! -e "$2/$name" ]; then
      ln -s "$entry" "$2/$name"
    elif [ -d "$entry" ] && [ -d "$2/$name" ]; then
      if [ -L "$2/$name" ]; then
        inner=$(readlink "$2/$name")
        rm "$2/$name"
        mkdir "$2/$name"
        merge "$inner" "$2/$name"
      fi
      merge "$entry" "$2/$name"
    fi
  done
}
shopt -s nullglob dotglob
for package in $python3 $packages; do
  for library in "$package"/lib/python3/dist-packages "$package"/lib/python3.*/site-packages; do
    if [ -d "$library" ]; then merge "$library" $out/lib/python3/dist-packages; fi
  done
  if [ "$package" != "$python3" ]; then
    for file in "$package"/bin/*; do
      if [ ! -e "$out/bin/${file##*/}" ]; then ln -s "$file" $out/bin/; fi
    done
  fi
done
$out/bin/python3 -c 'import sys; assert sys.prefix == "'$out'"'

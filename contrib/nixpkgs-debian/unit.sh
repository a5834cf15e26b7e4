# Builder of one store path out of one or more Debian packages.  Run by busybox sh, in Nix's sandbox.
#
#   sources    the .deb files (or .tar, where busybox cannot unpack them)
#   needs      the store paths that this one may refer to: Debian's Depends
#   triplet    x86_64-linux-gnu, Debian's name for the architecture in paths
#   glibc      where the dynamic linker is; empty while glibc itself is built
#   shell      a bash for scripts and wrappers; empty for what bash needs itself
#   tweaks     a script for what only this package needs; may be empty
#   redirect   the library of redirect.c, for programs that look for their files below /usr; empty for what is
#              fetched at once, which has no use for it, and for libraries
#   brings     store paths that whoever uses this one gets into its PATH too: a compiler's linker
#
# Debian's files expect to be below / and /usr.  Here they are below $out, without the triplet in lib,
# so whatever names a file by its place has to be told: symbolic links, interpreters, run paths, linker
# scripts.  What cannot be found is an error where it would fail later (a library), and is left out
# with a word where Debian's maintainer scripts would have made it (a link to /etc/alternatives).
set -eu

mkdir -p "$TMPDIR/tools"
"$busybox" --install -s "$TMPDIR/tools"
export PATH=$TMPDIR/tools LC_ALL=C
root=$TMPDIR/root
magic_elf=$(printf '\177ELF')

say() { echo "$attribute: $*" >&2; }
die() { say "$*"; exit 1; }

patchelf() { "$bootstrap/loader" --library-path "$bootstrap/lib" "$bootstrap/bin/patchelf" "$@"; }

# Where a file that Debian has at /$1 is below a store path.
mapped() {
  local path=${1#/}
  path=${path#usr/}
  case $path in
    lib/$triplet/*) path=lib/${path#lib/$triplet/} ;;
    lib64/*) path=lib/${path#lib64/} ;;
    sbin/*) path=bin/${path#sbin/} ;;
  esac
  echo "$path"
}

# The store path's file for Debian's /$1; fails when it is in none.
find_mapped() {
  local path where
  path=$(mapped "$1")
  for where in "$out" $needs; do
    if [ -e "$where/$path" ]; then echo "$where/$path"; return; fi
  done
  return 1
}

unpack() {
  mkdir -p "$root"
  local source
  for source in $sources; do
    case $source in
      *.deb) dpkg-deb -x "$source" "$root" ;;
      *) tar -xof "$source" -C "$root" ;;
    esac
  done
  chmod -R u+w "$root"
  rm -rf "$root/usr/share/man" "$root/usr/share/info" "$root/usr/share/locale" "$root/usr/share/lintian" \
    "$root/usr/share/bug" "$root/usr/share/doc-base" "$root/usr/share/menu" "$root/usr/share/gdb/auto-load"
  [ -n "$redirect" ] || rm -rf "$root/var"
  if [ -d "$root/usr/share/doc" ]; then
    find "$root/usr/share/doc" ! -type d ! -name copyright -exec rm -f {} +
    find "$root/usr/share/doc" -depth -type d -exec rmdir {} + 2> /dev/null || true
  fi
}

# All links become absolute, and say where their target will be.
translate_links() {
  find "$root" -type l > "$TMPDIR/links"
  local link target
  while read -r link; do
    target=$(readlink "$link")
    case $target in
      /*) ;;
      *) target=${link#"$root"}; target=${target%/*}/$(readlink "$link") ;;
    esac
    target=$(echo "$target" | awk -F/ '{
      n = 0
      for (i = 1; i <= NF; i++) { if ($i == "..") { if (n) n-- } else if ($i != "" && $i != ".") part[++n] = $i }
      for (i = 1; i <= n; i++) printf "/%s", part[i]
    }')
    target=$out/$(mapped "$target")
    rm "$link"
    # A link to what is the same place here: /lib64/ld-linux-x86-64.so.2, for one.
    [ "$target" = "$out/$(mapped "${link#"$root"}")" ] || ln -s "$target" "$link"
  done < "$TMPDIR/links"
}

merge_into() { # everything in directory $1 goes into directory $2
  [ -d "$1" ] || return 0
  mkdir -p "$2"
  local entry name
  for entry in "$1"/* "$1"/.[!.]*; do
    [ -e "$entry" ] || [ -L "$entry" ] || continue
    name=${entry##*/}
    if [ -d "$entry" ] && [ ! -L "$entry" ] && [ -d "$2/$name" ]; then
      merge_into "$entry" "$2/$name"
    else
      rm -f "$2/$name"
      mv "$entry" "$2/$name"
    fi
  done
}

merge() {
  local top
  for top in "$root/usr" "$root"; do
    merge_into "$top/sbin" "$root/usr/bin"
    merge_into "$top/lib64" "$root/usr/lib"
    merge_into "$top/lib/$triplet" "$root/usr/lib"
    rm -rf "$top/sbin" "$top/lib64" "$top/lib/$triplet"
  done
  merge_into "$root/bin" "$root/usr/bin"
  merge_into "$root/lib" "$root/usr/lib"
  merge_into "$root/etc" "$root/usr/etc"
  merge_into "$root/var" "$root/usr/var"
  mkdir -p "$out"
  merge_into "$root/usr" "$out"
  if [ -d "$out/lib" ]; then ln -s . "$out/lib/$triplet"; fi
}

repair_links() {
  find "$out" -type l ! -name "$triplet" > "$TMPDIR/links"
  local link target
  while read -r link; do
    [ -e "$link" ] && continue
    target=$(readlink "$link")
    rm "$link"
    if target=$(find_mapped "${target#"$out"}"); then
      ln -s "$target" "$link"
    else
      say "left out ${link#"$out/"}: what it links to is in none of the packages"
    fi
  done < "$TMPDIR/links"
}

is_elf() { [ "$(head -c 4 "$1" 2> /dev/null | tr -d '\0')" = "$magic_elf" ]; }

# The directory that has library $1 for the file $2; the file's old run path is in $3.
library_directory() {
  local where old
  for where in "${2%/*}" "$out/lib"; do
    if [ -e "$where/$1" ]; then echo "$where"; return; fi
  done
  for old in $(echo "$3" | tr : ' '); do
    if where=$(find_mapped "$old/$1"); then echo "${where%/*}"; return; fi
  done
  for where in $needs; do
    if [ -e "$where/lib/$1" ]; then echo "$where/lib"; return; fi
  done
  # What Debian leaves to its alternatives is in a directory of its own: lib/blas/libblas.so.3.
  for where in "$out" $needs; do
    old=$(find "$where/lib" -name "$1" 2> /dev/null | head -n 1)
    if [ -n "$old" ]; then echo "${old%/*}"; return; fi
  done
  die "${2#"$out/"} needs $1, which is in none of: $out $needs
  add its Debian package to the line of $attribute in packages.txt"
}

repair_elf() {
  local file=$1 libraries interpreter old library where path= changes=
  libraries=$(patchelf --print-needed "$file" 2> /dev/null) || return 0 # static, or an object file
  # Repaired already, by another name of it: unzip and zipinfo are one file.
  case $libraries in *"${library_of_redirect:-none}"*) return 0 ;; esac
  interpreter=$(patchelf --print-interpreter "$file" 2> /dev/null) || interpreter=
  if [ -n "$interpreter" ]; then
    interpreter=${glibc:-$out}/lib/${interpreter##*/}
    if [ ! -e "$interpreter" ]; then # a helper for programs of another architecture, which are not here either
      say "left ${file#"$out/"} as it is: there is no dynamic linker $interpreter"
      return 0
    fi
    changes="--set-interpreter $interpreter"
    # By a call of its own: with --set-rpath in the same one, patchelf mixes up the two texts.
    if [ -n "$redirect" ] && [ -n "$libraries" ]; then patchelf --add-needed "$library_of_redirect" "$file"; fi
  fi
  old=$(patchelf --print-rpath "$file")
  for library in $libraries; do
    case $library in ld-linux*) continue ;; esac
    where=$(library_directory "$library" "$file" "$old")
    case :$path: in *:"$where":*) ;; *) path=$path${path:+:}$where ;; esac
  done
  if [ -n "$path" ]; then changes="$changes --set-rpath $path"; fi
  [ -z "$changes" ] || patchelf $changes "$file"
}

# This package's own copy of the library, which knows where the package is.
copy_redirect() {
  [ -n "$redirect" ] || return 0
  local where="$out $(echo $needs)"
  [ "${#where}" -lt 8000 ] || die "it needs too many packages for redirect.c: raise ROOM there"
  library_of_redirect=$out/libexec/redirect.so
  mkdir -p "$out/libexec"
  cat "$redirect/redirect.so" > "$library_of_redirect"
  printf '%s ' "$where" | dd of="$library_of_redirect" bs=1 seek="$(cat "$redirect/offset")" conv=notrunc 2> /dev/null
}

repair_elves() {
  find "$out" -type f \( -perm -100 -o -name '*.so' -o -name '*.so.*' \) ! -name '*.py' ! -name '*.pl' \
    ! -name redirect.so > "$TMPDIR/files"
  local file
  while read -r file; do
    if is_elf "$file"; then repair_elf "$file"; fi
  done < "$TMPDIR/files"
}

# "#!/bin/sh", "#!/usr/bin/perl -w" and "#!/usr/bin/env python3".
repair_shebangs() {
  find "$out" -type f -perm -100 > "$TMPDIR/files"
  local file first interpreter rest found
  while read -r file; do
    [ "$(head -c 2 "$file" | tr -d '\0')" = '#!' ] || continue
    first=$(head -n 1 "$file")
    first=${first#??}
    set -- $first
    interpreter=$1; shift
    if [ "${interpreter##*/}" = env ]; then interpreter=$1; shift; fi
    rest="$*"
    found=
    case ${interpreter##*/} in
      '') continue ;;
      sh | bash | dash) found=${shell:+$shell/bin/bash} ;;
    esac
    [ -n "$found" ] || found=$(find_mapped "bin/${interpreter##*/}") || continue
    sed -i "1s|.*|#!$found${rest:+ $rest}|" "$file"
  done < "$TMPDIR/files"
}

# Text files that ld reads in the place of a library, with absolute paths in them.
repair_linker_scripts() {
  [ -d "$out/lib" ] || return 0
  find "$out/lib" -type f \( -name '*.so' -o -name '*.a' \) -size -8k > "$TMPDIR/files"
  local file word found
  while read -r file; do
    grep -q -E '^ *(GROUP|INPUT) *\(' "$file" || continue
    for word in $(tr '() \t' '\n\n\n\n' < "$file" | grep '^/[a-z0-9]*/'); do
      case $word in /\** | "$NIX_STORE"/*) continue ;; esac
      if found=$(find_mapped "$word"); then
        sed -i "s|$word\([ )]\)|$found\1|g" "$file"
      else
        die "${file#"$out/"}: the linker script names $word, which is in none of: $out $needs"
      fi
    done
  done < "$TMPDIR/files"
  find "$out" -name '*.pc' -type f -exec sed -i "s|=/usr|=$out|; s|/lib/$triplet|/lib|" {} +
}

# Debian's alternatives name programs without their version: php8.2, ghc-9.0.2, x86_64-linux-gnu-fpc-3.2.2.
link_plain_names() {
  [ -n "$redirect" ] && [ -d "$out/bin" ] || return 0
  local program name
  for program in "$out"/bin/*[0-9]; do
    name=${program##*/}
    case $name in *-[0-9]* | *[0-9].[0-9]*) ;; *) continue ;; esac
    name=$(echo "${name#"$triplet-"}" | sed 's/-\{0,1\}[0-9][0-9.]*$//')
    [ -z "$name" ] || [ -e "$out/bin/$name" ] || ln -s "$program" "$out/bin/$name"
  done
}

# What setup.sh reads of a package in the shell's inputs.
bring() {
  [ -n "$brings" ] || return 0
  mkdir -p "$out/nix-support"
  echo "$brings" > "$out/nix-support/propagated-build-inputs"
}

# A program that needs environment variables to find its own files: wrap NAME 'export A=...'
wrap() {
  [ -n "$shell" ] || die "wrap: no bash to write a wrapper for"
  mkdir -p "$out/libexec/wrapped"
  mv "$out/bin/$1" "$out/libexec/wrapped/$1"
  printf '#!%s/bin/bash\n%s\nexec -a "$0" %s "$@"\n' "$shell" "$2" "$out/libexec/wrapped/$1" > "$out/bin/$1"
  chmod +x "$out/bin/$1"
}

unpack
translate_links
merge
repair_links
copy_redirect
repair_elves
repair_shebangs
repair_linker_scripts
link_plain_names
bring
if [ -n "$tweaks" ]; then . "$tweaks"; fi

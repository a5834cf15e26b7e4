# Keep what nix-shell needs to enter a shell, for jobs that start nix-shell itself in their sandbox. This script takes
# the place of capture.sh. Like capture.sh it runs as a builder, in Nix's build sandbox, on the attributes of a client's
# shell.
#
#   nix-shell.sh BASH COREUTILS NIX TEXT DERIVATION OUT
#
# nix-shell wants a derivation that its store holds. The store that it gets is a binary cache in files, which holds only
# DERIVATION. Such a store needs no database and is never written to. With a database nix-shell would take a tenth of a
# second to make its own. TEXT is DERIVATION without its input derivations (see shell.nix). So nix-shell asks for no
# other derivation, and jobs need not be able to read any. The inputs themselves are there: TEXT names them, so OUT
# refers to them.
#
# The output is a directory:
#   enter.sh   for bash inside the job's sandbox to source. It becomes nix-shell, which becomes bash, which runs the
#              shell hook and becomes the program
#   store      the binary cache

bash=$1 bin=$2/bin nix=$3 text=$4 derivation=$5 out=$6
digest=${derivation#/nix/store/}
digest=${digest%%-*}

# nix-shell would make realisations and log where they are missing.
"$bin/mkdir" -p "$out/store/nar" "$out/store/realisations" "$out/store/log" || exit
"$bin/env" -i "$nix/bin/nix-store" --dump "$text" > "$out/store/nar/$digest.nar" || exit
checksum=$("$bin/sha256sum" < "$out/store/nar/$digest.nar") || exit
size=$("$bin/stat" -c %s "$out/store/nar/$digest.nar") || exit

echo "StoreDir: /nix/store" > "$out/store/nix-cache-info" || exit
printf '%s: %s\n' StorePath "$derivation" URL "nar/$digest.nar" Compression none \
    NarHash "sha256:${checksum%% *}" NarSize "$size" References "" > "$out/store/$digest.narinfo" || exit

# The words for env(1) (see enter.sh of the sandbox) are passed in a file without a name. So no shell parses them, and
# the program gets neither the file nor its contents in memory. Names of store paths have no quotes in them. nix-shell
# leaves descriptor 3, its mount namespace, open, and newer versions than 2.8 descriptor 4, the root. They are closed.
"$bin/cat" > "$out/enter.sh" << END
printf '%s\\0' "\${__spoold_enter[@]:1}" > "/tmp/.spoold-\$\$" || exit
exec {__spoold_words}< "/tmp/.spoold-\$\$"
$bin/rm "/tmp/.spoold-\$\$"
export USER=job NIX_BUILD_SHELL=$bash/bin/bash NIX_CONF_DIR=/nowhere NIX_USER_CONF_FILES=
exec $nix/bin/nix-shell --store 'file://$out/store' --pure --keep NIX_PATH --keep TZDIR '$derivation' --run "
builtin mapfile -d '' -t __spoold_enter <&\$__spoold_words
[[ /proc/self/fd/3 -ef /proc/self/ns/mnt ]] && exec 3<&-
[[ /proc/self/fd/4 -ef / ]] && exec 4<&-
builtin exec /usr/bin/env -- \"\\\${__spoold_enter[@]}\" \$__spoold_words<&-"
END

# The file that Debian makes when it installs.
mkdir -p "$out/etc"
units=$(ls -d "$out"/lib/fpc/*/units/*-linux)
cat > "$out/etc/fpc.cfg" << CONFIGURATION
-Fu$units
-Fu$units/*
-Fu$units/rtl
-Fl$glibc/lib
-FL$(ls "$glibc"/lib/ld-linux*.so.*)
-k-rpath
-k$glibc/lib
-Xs
-v0
-l-
CONFIGURATION
for program in "$out"/lib/fpc/*/ppc*; do ln -sf "$program" "$out/bin/${program##*/}"; done
wrap fpc "export PPC_CONFIG_PATH=\${PPC_CONFIG_PATH:-$out/etc}"

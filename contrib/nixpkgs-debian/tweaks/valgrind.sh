# valgrind must see the symbols of the dynamic linker. Debian has them in a package beside, where valgrind looks by the
# path of the linker.
debug=$out/lib/debug
mkdir -p "$debug$glibc/lib"
for file in "$debug"/.build-id/*/*.debug; do ln -sf "$file" "$debug$glibc/lib/${file##*/}"; done
# valgrind itself is a script of Debian, which starts valgrind.bin.
wrap valgrind.bin "export VALGRIND_LIB=$out/libexec/valgrind VALGRIND_OPTS=\"--extra-debuginfo-path=$debug \${VALGRIND_OPTS-}\""

# libc loads libgcc_s when a thread exits, with no run path but its own.
patchelf --set-rpath "$out/lib" "$out/lib/libc.so.6"
# Of the 8 MB of character sets, those that a program might still meet.  GCONV_PATH has to name them, and
# LOCPATH the locales: Debian's places for both are compiled into libc, and have no room for a store path.
find "$out/lib/gconv" -name '*.so' ! -name 'ISO8859*' ! -name 'CP125*' ! -name 'UTF-*' ! -name 'UNICODE*' \
  ! -name 'KOI8*' -exec rm {} +
rm -f "$out/lib/gconv/gconv-modules.cache"

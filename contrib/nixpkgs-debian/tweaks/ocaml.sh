# The compilers hand the places of their libraries to gcc, and write that of their interpreter into what they make.
library=$out/lib/ocaml
echo "$library/stublibs" > "$library/ld.conf"
sed -i "s|/usr/|$out/|" "$library"/camlheader*
sed -i "s|=.*|=\"$library:$library/METAS\"|; s|^destdir=.*|destdir=\"$library\"|" "$out/etc/ocamlfind.conf"
mkdir -p "$out/nix-support"
echo "export OCAMLLIB=$library OCAMLFIND_CONF=$out/etc/ocamlfind.conf" > "$out/nix-support/setup-hook"
for tool in gcc as ld ar ranlib; do ln -s "${brings%% *}/bin/$tool" "$out/bin/$triplet-$tool"; done

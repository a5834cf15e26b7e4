sed -i "s|/usr/lib/$triplet|$out/lib|g; s|/usr/lib|$out/lib|g; s|/usr/include|$out/include|g" "$out/etc/ldc2.conf"

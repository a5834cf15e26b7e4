for name in lua luac; do
  for program in "$out/bin/$name"5.*; do
    if [ -e "$program" ] && [ ! -e "$out/bin/$name" ]; then ln -s "$program" "$out/bin/$name"; fi
  done
done

rm -f "$out"/bin/i386-tcc "$out"/lib/tcc/i386-*

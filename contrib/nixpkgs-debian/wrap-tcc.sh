# Builder of the tcc that people use: Debian's tcc, told where its files are.  Run by bash, coreutils in PATH.
mkdir -p $out/bin
loader=$(echo $glibc/lib/ld-linux*.so.*)
cat > $out/bin/tcc << END
#!$shell
# The start files are not where tcc looks for them, and no option says so: they are named here when it links.
before=($tcc/lib/crt1.o $tcc/lib/crti.o)
after=(-lc -ltcc1 $tcc/lib/crtn.o)
for argument; do
  case \$argument in
    -c | -E | -run | -r | -v | -vv | -h | -hh | --version | --help | -version | -nostdlib | -ar | -print-search-dirs) before=(); after=(); break ;;
    -shared) before=($tcc/lib/crti.o) ;;
  esac
done
[ \$# -gt 0 ] || after=() before=()
export LD_SO=$loader
compile=(-B$tcc/lib/tcc -nostdinc -I$tcc/lib/tcc/include)
system=(-isystem $tcc/include/$triplet -isystem $tcc/include)
link=(-L$tcc/lib -L$tcc/lib/tcc -L$glibc/lib -Wl,-rpath=$glibc/lib)
if [ \${#before[@]} -gt 0 ]; then link+=(-nostdlib); fi
for flag in \${NIX_LDFLAGS-}; do case \$flag in -L*) link+=("\$flag") ;; esac; done
exec -a "\$0" $tcc/bin/tcc "\${compile[@]}" \${NIX_CFLAGS_COMPILE-} "\${system[@]}" "\${link[@]}" "\${before[@]}" "\$@" "\${after[@]}"
END
chmod +x $out/bin/tcc

cd $TMPDIR
printf '#include <stdio.h>\nint main(void) { puts("works"); return 0; }\n' > try.c
$out/bin/tcc -o try try.c
[ "$(./try)" = works ]
[ "$($out/bin/tcc -run try.c)" = works ]

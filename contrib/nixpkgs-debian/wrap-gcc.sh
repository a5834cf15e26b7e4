# Builder of the gcc that people use: Debian's gcc, told where its files are.  Run by bash, coreutils in PATH.
mkdir -p $out/bin

# write NAME PROGRAM RUNPATH: a wrapper around one of the compilers
write() {
  cat > $out/bin/$1 << END
#!$shell
compile=(-isysroot $out -B$binutils/bin -B$gcc/lib -idirafter $gcc/include/$triplet -idirafter $gcc/include)
link=(-L$gcc/lib -L$glibc/lib)
runpath=$3
END
  # The root for headers is empty: none of the machine is ever found.  The C library's headers come last, as
  # those of C++ include them with #include_next.  A library that comes with gcc is in no other run path.
  cat >> $out/bin/$1 << END
for argument; do
  case \$argument in
    -static | -static-pie | -r | -nostdlib) interpreter= ;;
    -shared) interpreter= ;;
    -fopenmp) runpath+=:$libgomp/lib ;;
    -fsanitize=*) runpath+=:$sanitizers ;;
    -latomic) runpath+=:$libatomic/lib ;;
    -lquadmath) runpath+=:$libquadmath/lib ;;
  esac
done
link+=(\${interpreter--Wl,-dynamic-linker=$loader} -Wl,-rpath,\$runpath)
for flag in \${NIX_LDFLAGS-}; do link+=("-Wl,\$flag"); done
exec $gcc/bin/$2 "\${compile[@]}" "\$@" \${NIX_CFLAGS_COMPILE-} "\${link[@]}"
END
  chmod +x $out/bin/$1
}

loader=$(echo $glibc/lib/ld-linux*.so.*)
write gcc gcc $glibc/lib
write cpp cpp $glibc/lib
for name in cc c99 c89; do ln -s gcc $out/bin/$name; done
if [ -e $gcc/bin/g++ ]; then
  write g++ g++ $glibc/lib:$libstdcxx/lib
  ln -s g++ $out/bin/c++
fi
if [ -e $gcc/bin/gfortran ]; then write gfortran gfortran $glibc/lib:$libgfortran/lib:$libquadmath/lib; fi
for name in gcc-ar gcc-nm gcc-ranlib gcov; do
  if [ -e $gcc/bin/$name ]; then ln -s $gcc/bin/$name $out/bin/$name; fi
done
for name in ar as ld ld.bfd nm objcopy objdump ranlib readelf size strings strip; do
  if [ -e $binutils/bin/$name ]; then ln -s $binutils/bin/$name $out/bin/$name; fi
done

# It has to work, or the one who builds with it sees an error of its own making.
cd $TMPDIR
printf '#include <stdio.h>\n#include <math.h>\nint main(int n, char **v) { printf("%%.1f\\n", sqrt(n)); return 0; }\n' > try.c
printf '#include <iostream>\n#include <vector>\nint main() { std::vector<int> v{1, 2}; std::cout << v.size() << std::endl; }\n' > try.cc
$out/bin/gcc -O1 -o try-c try.c -lm
[ "$(./try-c)" = 1.0 ]
if [ -e $out/bin/g++ ]; then
  $out/bin/g++ -o try-cc try.cc
  [ "$(./try-cc)" = 2 ]
fi

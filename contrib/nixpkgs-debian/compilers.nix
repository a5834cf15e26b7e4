# The compilers as people use them: wrappers that tell Debian's where its headers and libraries are.
{ lib, lock, self, system, triplet }:

let
  wrapper = name: unwrapped: script: extra:
    let
      drv = derivation ({
        name = "${name}-${unwrapped.version}";
        inherit system triplet;
        builder = "${self.bash}/bin/bash";
        args = [ "-e" script ];
        PATH = "${self.coreutils}/bin";
        shell = "${self.bash}/bin/bash";
        inherit (self) glibc;
        preferLocalBuild = true;
      } // extra);
    in
    drv // {
      pname = name;
      inherit (unwrapped) version meta;
      passthru = { inherit unwrapped; };
      cc = unwrapped;
    };

  # gcc's own libraries carry a number that differs from release to release: libasan8.
  library = stem:
    let found = builtins.filter (name: builtins.match "${stem}[0-9]+" name != null) (builtins.attrNames lock.units);
    in if found == [ ] then "" else self.${builtins.head found};

  # A compiler of the family of gcc, with the languages that are in it.
  collection = name: unwrapped: wrapper name unwrapped ./wrap-gcc.sh {
    gcc = unwrapped;
    inherit (self) binutils;
    libstdcxx = self."libstdc++6";
    libgomp = library "libgomp";
    libatomic = library "libatomic";
    libquadmath = library "libquadmath";
    libgfortran = lib.optionals (name == "gfortran") [ (library "libgfortran") ];
    sanitizers = lib.makeLibraryPath
      (builtins.filter (path: path != "") (map library [ "libasan" "libubsan" "liblsan" "libtsan" ]));
  };
  tinycc = wrapper "tinycc" self.tinycc-unwrapped ./wrap-tcc.sh { tcc = self.tinycc-unwrapped; };
in
{
  inherit tinycc;
  gcc = collection "gcc" self.gcc-unwrapped;
  gfortran = collection "gfortran" self.gfortran-unwrapped;
}

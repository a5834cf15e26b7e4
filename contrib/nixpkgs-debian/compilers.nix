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
in
rec {
  gcc = wrapper "gcc" self.gcc-unwrapped ./wrap-gcc.sh {
    gcc = self.gcc-unwrapped;
    inherit (self) binutils;
    libstdcxx = self."libstdc++6";
    libgomp = library "libgomp";
    libatomic = library "libatomic";
    libquadmath = library "libquadmath";
    sanitizers = lib.makeLibraryPath
      (builtins.filter (path: path != "") (map library [ "libasan" "libubsan" "liblsan" "libtsan" ]));
  };
  tinycc = wrapper "tinycc" self.tinycc-unwrapped ./wrap-tcc.sh { tcc = self.tinycc-unwrapped; };
  tcc = tinycc;
}

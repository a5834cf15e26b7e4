# The attributes of `import <nixpkgs> { }`.
{ lib, lock, self, config }:

let
  debian = import ./debian.nix { inherit lock; };
  support = import ./build-support.nix { inherit lib self; inherit (debian) system; };
  # Attributes of packages.txt are public; the libraries beside them go by Debian's names.
  has = name: lock.units ? ${name};
  compilers = import ./compilers.nix { inherit lib lock self; inherit (debian) system triplet; };
  alias = name: target: lib.optionalAttrs (has target) { ${name} = self.${target}; };
in
debian.units
// support
// lib.optionalAttrs (has "gcc-unwrapped") { inherit (compilers) gcc; }
// lib.optionalAttrs (has "tinycc-unwrapped") { inherit (compilers) tinycc tcc; }
// alias "bashInteractive" "bash"
// alias "python" "python3"
// alias "lua5_4" "lua"
// alias "lua5" "lua"
// alias "patch" "gnupatch"
// {
  inherit lib config;
  inherit (debian) system;
  pkgs = self;
  targetPackages = self;
  buildPackages = self;
  callPackage = lib.callPackageWith self;
  newScope = extra: lib.callPackageWith (self // extra);
  appendOverlays = overlays: import ./. { inherit overlays config lock; };
}

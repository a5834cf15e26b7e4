# A miniature nixpkgs made from Debian packages; see README.md beside the program that made this.
#
# lock.json says which packages; the packages themselves are expected in the store (nix-store --add-fixed),
# so evaluating this reads nothing but a few small files.
{ system ? lock.system, config ? { }, overlays ? [ ], lock ? builtins.fromJSON (builtins.readFile ./lock.json), ... }:

assert system == lock.system
  || throw "this nixpkgs was made on ${lock.system} and has no packages for ${system}";

let
  lib = import ./lib;
  packages = self: import ./packages.nix { inherit lib lock self config; };
  # Overlays as nixpkgs has them: each sees the final result and the one before it.
  layers = [ (self: super: packages self) ] ++ overlays;
in
lib.fix (self: builtins.foldl' (super: layer: super // layer self super) { } layers)

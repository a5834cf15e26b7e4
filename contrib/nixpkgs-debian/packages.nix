# The attributes of `import <nixpkgs> { }`.
{ lib, lock, self, config }:

let
  debian = import ./debian.nix { inherit lock self; };
  inherit (debian) system;
  support = import ./build-support.nix { inherit lib self system; };
  compilers = import ./compilers.nix { inherit lib lock self system; inherit (debian) triplet; };
  python = import ./python.nix { inherit lib lock self system; inherit (debian.units) python3; };
  # Attributes of packages.txt are public; the libraries beside them go by Debian's names.
  has = name: debian.units ? ${name};
  unwrapped = lib.concatMapAttrs (name: value: lib.optionalAttrs (has "${name}-unwrapped") { ${name} = value; });
  # nixpkgs' other names for what is here.
  aliases = lib.concatMapAttrs
    (target: names: lib.optionalAttrs (has target || has "${target}-unwrapped" || target == "python3Packages") (lib.genAttrs names (_: self.${target})))
    {
      bash = [ "bashInteractive" ];
      gnupatch = [ "patch" ];
      lua = [ "lua5" "lua${underscored "lua"}" ];
      tinycc = [ "tcc" ];
      python3 = [ "python" "python${versioned "python3" 2}" ];
      python3Packages = [ "python${versioned "python3" 2}Packages" "pythonPackages" ];
      jdk = [ "jdk_headless" "openjdk" "jre" "jre_headless" "jdk${versioned "jdk" 1}" "openjdk${versioned "jdk" 1}" ];
      nodejs = [ "nodejs-slim" "nodejs_${versioned "nodejs" 1}" ];
      ruby = [ "ruby_${underscored "ruby"}" ];
      php = [ "php${versioned "php" 2}" ];
      sqlite = [ "sqlite-interactive" ];
      swi-prolog = [ "swiProlog" "swiPrologWithGui" ];
      guile = [ "guile_${underscored "guile"}" ];
      go = [ "go_${underscored "go"}" ];
      git = [ "gitMinimal" ];
    };
  numbers = name: count: lib.take count (builtins.splitVersion (lock.units.${name}.version or "0.0"));
  versioned = name: count: lib.concatStrings (numbers name count);
  underscored = name: lib.concatStringsSep "_" (numbers name 2);
in
debian.units
// support
// unwrapped compilers
// aliases
// {
  inherit lib config system;
  python3 = python.python;
  python3Packages = python.pkgs;
  nodePackages = lib.optionalAttrs (has "typescript") { inherit (self) typescript; };
  pkgs = self;
  targetPackages = self;
  buildPackages = self;
  callPackage = lib.callPackageWith self;
  newScope = extra: lib.callPackageWith (self // extra);
  appendOverlays = overlays: import ./. { inherit overlays config lock; };
}

# stdenv and the functions that make small derivations.
{ lib, self, system }:

let
  inherit (self) bash;
  inherit (lib) concatMap filter flatten optionalAttrs optionals;

  shell = "${bash}/bin/bash";

  platform = {
    inherit system;
    config = { x86_64-linux = "x86_64-unknown-linux-gnu"; aarch64-linux = "aarch64-unknown-linux-gnu"; }.${system};
    isLinux = true; isUnix = true; isDarwin = false; isWindows = false; is64bit = true; isMusl = false; isGnu = true;
    isx86_64 = system == "x86_64-linux"; isAarch64 = system == "aarch64-linux"; isx86 = system == "x86_64-linux";
    isStatic = false;
    extensions = { sharedLibrary = ".so"; executable = ""; };
    libc = "glibc";
  };

  initialPath = [ self.coreutils self.findutils self.diffutils self.gnugrep self.gnused self.gawk self.gnutar
    self.gzip self.bzip2 self.xz bash ];

  # A directory with the script that every derivation and every nix-shell reads first.
  makeStdenv = name: cc:
    let
      drv = derivation {
        inherit name system initialPath;
        builder = shell;
        # The tools are not in PATH yet, and bash alone cannot make a directory.
        args = [ "-c" ''
          ${self.coreutils}/bin/mkdir $out
          { printf 'initialPath=(%s)\ndefaultInputs=(%s)\nexport SHELL=%s LOCPATH=%s GCONV_PATH=%s\n' \
              "$initialPath" "$defaultInputs" "$BASH_PROGRAM" "$locales" "$charsets"; echo "$(< $setup)"; } > $out/setup
        '' ];
        setup = ./setup.sh;
        BASH_PROGRAM = shell;
        locales = "${self.glibc}/lib/locale";
        charsets = "${self.glibc}/lib/gconv";
        defaultInputs = optionals (cc != null) [ cc self.binutils self.gnumake self.gnupatch ];
        preferLocalBuild = true;
      };
    in
    drv // {
      inherit shell cc;
      hasCC = cc != null;
      isLinux = true;
      isDarwin = false;
      inherit (platform) isx86_64 isAarch64;
      hostPlatform = platform;
      buildPlatform = platform;
      targetPlatform = platform;
      meta = { };
    };
  stdenv = makeStdenv "stdenv-debian" self.gcc;
  stdenvNoCC = makeStdenv "stdenv-no-cc-debian" null;
  # Tie the knot: each mkDerivation refers to the stdenv that it came from.
  withMkDerivation = env: env // { mkDerivation = mkDerivationWith env; };

  inputNames = [ "buildInputs" "nativeBuildInputs" "propagatedBuildInputs" "propagatedNativeBuildInputs"
    "checkInputs" "nativeCheckInputs" "depsBuildBuild" ];

  mkDerivationWith = env: definition:
    let
      attrs = if lib.isFunction definition then lib.fix definition else definition;
      given = removeAttrs attrs [ "meta" "passthru" "pos" "env" "__structuredAttrs" "strictDeps" ];
      inputs = lib.genAttrs (filter (name: attrs ? ${name}) inputNames)
        (name: filter (input: input != null && input != "") (flatten attrs.${name}));
      drv = derivation ({
        builder = shell;
        args = [ "-e" ./builder.sh ];
        buildInputs = [ ];
        nativeBuildInputs = [ ];
        propagatedBuildInputs = [ ];
        propagatedNativeBuildInputs = [ ];
        inherit system;
      } // given // (attrs.env or { }) // inputs // {
        name = attrs.name or "${attrs.pname}-${attrs.version}";
        stdenv = "${env}";
      });
    in
    drv // {
      stdenv = env;
      meta = attrs.meta or { };
      passthru = attrs.passthru or { };
      inputDerivation = drv;
      overrideAttrs = change: mkDerivationWith env
        (attrs // (if lib.isFunction change
          then (let result = change attrs; in if lib.isFunction result then change { } attrs else result)
          else change));
    } // optionalAttrs (attrs ? version) { inherit (attrs) version; }
    // optionalAttrs (attrs ? pname) { inherit (attrs) pname; }
    // (attrs.passthru or { });

  mkShellWith = args@{ stdenv }: {
    __functor = _: attrs@{ name ? "nix-shell", packages ? [ ], inputsFrom ? [ ], ... }:
      let
        gather = what: (attrs.${what} or [ ])
          ++ lib.subtractLists inputsFrom (flatten (lib.catAttrs what inputsFrom));
      in
      mkDerivationWith args.stdenv (removeAttrs attrs [ "packages" "inputsFrom" ] // {
        inherit name;
        buildInputs = gather "buildInputs";
        nativeBuildInputs = packages ++ gather "nativeBuildInputs";
        propagatedBuildInputs = gather "propagatedBuildInputs";
        propagatedNativeBuildInputs = gather "propagatedNativeBuildInputs";
        shellHook = lib.concatStringsSep "\n" (lib.catAttrs "shellHook" (lib.reverseList inputsFrom ++ [ attrs ]));
        phases = attrs.phases or [ "buildPhase" ];
        # A shell is not built for its output, but building it builds and keeps what it needs.
        buildPhase = attrs.buildPhase or "export > $out";
        preferLocalBuild = attrs.preferLocalBuild or true;
      });
    override = new: mkShellWith (args // new);
  };

  runCommandWith = env: name: attrs: command: mkDerivationWith env ({
    inherit name;
    buildCommand = command;
    passAsFile = [ "buildCommand" ] ++ (attrs.passAsFile or [ ]);
  } // removeAttrs attrs [ "passAsFile" ]);

  writeTextFile = { name, text, executable ? false, destination ? "", checkPhase ? "", meta ? { }, passthru ? { }, ... }:
    runCommandWith stdenvNoCC name { inherit text executable destination meta passthru; passAsFile = [ "text" ]; } ''
      target=$out$destination
      mkdir -p "$(dirname "$target")"
      cp "$textPath" "$target"
      if [ -n "$executable" ]; then chmod +x "$target"; fi
      ${checkPhase}
    '';
  script = text: "#!${shell}\n${text}\n";

  linkAll = { name, paths, postBuild ? "", ... }@args: runCommandWith stdenvNoCC name
    (removeAttrs args [ "name" "postBuild" "passAsFile" ] // { paths = concatMap (path: flatten path) paths; }) ''
      mkdir -p $out
      for path in $paths; do
        (cd $path && find . -mindepth 1 -type d -exec mkdir -p $out/{} \; )
        (cd $path && find . ! -type d) | while IFS= read -r file; do
          [ -e "$out/$file" ] || [ -L "$out/$file" ] || ln -s "$path/$file" "$out/$file"
        done
      done
      ${postBuild}
    '';
in
{
  inherit writeTextFile;
  stdenv = withMkDerivation stdenv;
  stdenvNoCC = withMkDerivation stdenvNoCC;

  # Without a compiler, unlike nixpkgs' mkShell: see README.md.
  mkShell = mkShellWith { stdenv = stdenvNoCC; };
  mkShellNoCC = mkShellWith { stdenv = stdenvNoCC; };

  runCommand = runCommandWith stdenvNoCC;
  runCommandLocal = runCommandWith stdenvNoCC;
  runCommandCC = runCommandWith stdenv;

  writeText = name: text: writeTextFile { inherit name text; };
  writeTextDir = path: text: writeTextFile { name = builtins.baseNameOf path; inherit text; destination = "/${path}"; };
  writeScript = name: text: writeTextFile { inherit name text; executable = true; };
  writeScriptBin = name: text: writeTextFile { inherit name text; executable = true; destination = "/bin/${name}"; };
  writeShellScript = name: text: writeTextFile { inherit name; text = script text; executable = true; };
  writeShellScriptBin = name: text: writeTextFile {
    inherit name; text = script text; executable = true; destination = "/bin/${name}"; meta.mainProgram = name;
  };
  writeShellApplication = { name, text, runtimeInputs ? [ ], ... }: writeTextFile {
    inherit name; executable = true; destination = "/bin/${name}"; meta.mainProgram = name;
    text = script ''
      set -o errexit -o nounset -o pipefail
      export PATH="${lib.makeBinPath runtimeInputs}:$PATH"
      ${text}'';
  };
  symlinkJoin = linkAll;
  buildEnv = linkAll;
}

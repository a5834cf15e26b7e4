# Store paths made from Debian packages: one for each unit of the lock, built when something needs it.
{ lock, self }:

let
  inherit (lock) system;
  triplet = { x86_64-linux = "x86_64-linux-gnu"; aarch64-linux = "aarch64-linux-gnu"; }.${system};

  # A file that has to be in the store already.  Its hash makes the path, so a store that has the file
  # never runs this; the builder is there for its message.
  sourceFile = mode: entry: extra: derivation ({
    name = entry.file;
    inherit system;
    outputHashAlgo = "sha256";
    outputHashMode = mode;
    outputHash = entry.sha256;
    preferLocalBuild = true;
  } // extra);

  missing = entry: "the source ${entry.file} is not in this store: make the nixpkgs anew and add its sources";

  busyboxDir =
    let entry = lock.sources.busybox-static;
    # Nothing can run before this, so the message is the name of a builtin that Nix does not have.
    in sourceFile "recursive" entry { builder = "builtin:${missing entry}"; };
  busybox = "${busyboxDir}/bin/busybox";

  # What is fetched on demand has an address, where apt has one: a store that lacks the file may fetch it from
  # there, if whoever builds lets it.
  fetched = entry: sourceFile "flat" entry {
    builder = "builtin:fetchurl";
    system = "builtin";
    inherit (entry) url;
    urls = [ entry.url ];
  };

  source = name:
    let entry = lock.sources.${name};
    in if entry ? url then fetched entry
    else sourceFile "flat" entry { builder = busybox; args = [ "sh" "-c" "echo '${missing entry}' >&2; exit 1" ]; };

  build = name: script: extra: derivation ({
    inherit name system busybox;
    builder = busybox;
    args = [ "sh" script ];
    preferLocalBuild = true;
  } // extra);

  sourcesOf = map (attribute: map source lock.units.${attribute}.sources);

  bootstrap = build "debian-bootstrap" ./bootstrap.sh {
    sources = builtins.concatLists (sourcesOf [ "patchelf" "glibc" "libstdc++6" ]);
  };

  # Everything that bash is made of has to do without it.
  belowBash = map (item: item.key) (builtins.genericClosure {
    startSet = [ { key = "bash"; } { key = "glibc"; } ];
    operator = item: map (key: { inherit key; }) lock.units.${item.key}.needs;
  });

  unit = attribute: entry:
    let
      demanded = entry.asked != "";
      own = demanded && entry.family == ""; # not a module of a language, which has no program
      drv = build "${attribute}-${entry.version}" ./unit.sh ({
        inherit attribute bootstrap triplet;
        sources = map source entry.sources;
        needs = map (need: units.${need}) entry.needs;
        glibc = if attribute == "glibc" then "" else units.glibc;
        shell = if builtins.elem attribute belowBash then "" else units.bash;
        redirect = if own then redirect else "";
        brings = map (name: self.${name}) entry.brings;
        tweaks =
          let script = ./tweaks + "/${if builtins.pathExists (./tweaks + "/${attribute}.sh") then attribute else entry.family}.sh";
          in if builtins.pathExists script then script else "";
      } // (if demanded then { fetchedAs = entry.asked; } else { }));
    in
    drv // {
      pname = attribute;
      inherit (entry) version;
      meta = { inherit (entry) description homepage; platforms = [ system ]; debianPackages = entry.sources; };
      passthru = { };
    };

  # For programs whose files have their places compiled in.
  redirect = derivation {
    name = "redirect";
    inherit system triplet;
    builder = "${units.bash}/bin/bash";
    args = [ "-e" ./redirect.sh ];
    source = ./redirect.c;
    PATH = builtins.concatStringsSep ":" (map (input: "${input}/bin") [ self.gcc units.coreutils units.gnugrep ]);
    preferLocalBuild = true;
  };

  units = builtins.mapAttrs unit lock.units
    // builtins.mapAttrs (_: target: units.${target}) lock.aliases
    // { busybox = busyboxDir // { pname = "busybox"; inherit (lock.units.busybox) version; }; };
in
{ inherit units system triplet; }

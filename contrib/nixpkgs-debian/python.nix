# python3 with Debian's python3-* packages, under the names that nixpkgs has for them where those differ.
{ lib, lock, self, python3, system }:

let
  inherit (lock.families.python3Packages) prefix;
  isPackage = name: lib.hasPrefix prefix name && lock.units ? ${name};

  # All there are in Debian: of most of them the lock knows nothing.
  names = builtins.fromJSON (builtins.readFile ./names/python3Packages.json);
  package = name: lib.nameValuePair (lib.removePrefix prefix name) (
    if lock.units ? ${lock.aliases.${name} or name} then self.${name}
    else throw ''
      ${name} is not in this nixpkgs yet; whoever operates it adds the package with
        spoold-nixpkgs-debian --with python3Packages.${lib.removePrefix prefix name} OUT''
  );
  debian = builtins.listToAttrs (map package names);
  renamed = lib.mapAttrs (_: name: debian.${name}) (lib.filterAttrs (_: name: debian ? ${name}) {
    beautifulsoup4 = "bs4";
    pillow = "pil";
    python-dateutil = "dateutil";
    pytz = "tz";
    pyyaml = "yaml";
    scikit-learn = "sklearn";
  });

  # The packages, and what they need: of Debian's the lock says so.
  closure = packages: map (item: item.package) (builtins.genericClosure {
    startSet = map (package: { key = "${package}"; inherit package; }) packages;
    operator = item: map (name: { key = "${self.${name}}"; package = self.${name}; })
      (builtins.filter isPackage (lock.units.${item.package.pname or ""}.needs or [ ]));
  });

  withPackages = choose:
    let
      drv = derivation {
        name = "python3-${python3.version}-env";
        inherit system python3;
        builder = "${self.bash}/bin/bash";
        args = [ "-e" ./python-env.sh ];
        PATH = lib.makeBinPath [ self.coreutils self.findutils ];
        packages = closure (lib.flatten (choose pkgs));
        preferLocalBuild = true;
      };
    in
    drv // { inherit (python3) pname version meta; interpreter = "${drv}/bin/python3"; passthru = { }; };

  pkgs = debian // renamed // { python = python; python3 = python; };
  python = python3 // {
    inherit pkgs withPackages;
    interpreter = "${python3}/bin/python3";
    pythonVersion = lib.concatStringsSep "." (lib.take 2 (builtins.splitVersion python3.version));
    isPy3 = true;
  };
in
{ inherit python pkgs; }

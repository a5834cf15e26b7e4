# From a client's cutor.nix to the derivation that captures its shell. This is evaluated in the jail.
#
# bash, coreutils: store paths of the runtime. They are registered in the jail's store, but their files are not there.
# nix: where jobs are to start nix-shell themselves, the store path of Nix, registered likewise. Else "".
# script: the text of capture.sh, or of nix-shell.sh where there is a path for nix.
{ bash, coreutils, nix, script }:
let
  inherit (builtins)
    attrNames concatStringsSep elemAt filter functionArgs genList head intersectAttrs isAttrs isFunction isList isString
    length match placeholder readFile split stringLength substring toFile toXML typeOf unsafeDiscardStringContext;

  # Return text as a string that makes every derivation that holds it depend on the store path.
  referring = text: path: builtins.appendContext text { ${path} = { path = true; }; };

  fail = text: throw "cutor.nix: ${text}";
  wanted = "a derivation, such as { pkgs ? import <nixpkgs> { } }: pkgs.mkShell { }";

  # Call a function as nix-shell does: with defaults only, and with inNixShell where the function has that argument.
  called = value:
    if isAttrs value && value ? __functor then called (value.__functor value)
    else if !isFunction value then value
    else
      let
        arguments = functionArgs value;
        offered = intersectAttrs arguments { inNixShell = true; };
        missing = filter (name: !arguments.${name} && !(offered ? ${name})) (attrNames arguments);
        single = match ".*<function>[[:space:]]*<varpat name=\"([^\"]*)\".*" (toXML value);
      in
      if single != null then
        fail "it is a function of '${head single}', which nobody passes; it has to be ${wanted}"
      else if missing != [ ] then
        fail ("its argument '${head missing}' has no default, and nobody passes it one; give it one, such as "
          + "{ pkgs ? import <nixpkgs> { } }, or have pkgs.callPackage call the function")
      else value offered;

  # Return names in one text, and no more of them than a reader takes in.
  some = names:
    concatStringsSep ", " (if length names <= 5 then names else genList (elemAt names) 5 ++ [ "..." ]);

  result = called (import /job/cutor.nix);
  shell = if isList result && length result == 1 then head result else result;

  checked =
    if isList shell then
      fail ("it is a list of ${toString (length shell)}; put packages into one shell, such as "
        + "{ pkgs ? import <nixpkgs> { } }: pkgs.mkShell { packages = [ pkgs.jq ]; }")
    else if !isAttrs shell then fail "it is of the type ${typeOf shell}; it has to be ${wanted}"
    else if isFunction (shell.outputs or null) then
      fail ("it is a flake, and expressions cannot use flakes here; write its shell alone, for <nixpkgs>, such as "
        + "{ pkgs ? import <nixpkgs> { } }: pkgs.mkShell { packages = [ pkgs.jq ]; }")
    else if (shell.type or "") != "derivation" || !(shell ? drvAttrs) then
      fail ("it is a set of ${toString (length (attrNames shell))} attributes (${some (attrNames shell)}); "
        + "it has to be ${wanted}")
    else shell;

  # Attributes that change what a build may do, or what its output is. They are meant for the build of the shell itself,
  # which never happens.
  dangerous = [
    "outputHash" "outputHashAlgo" "outputHashMode" "__contentAddressed" "__impure" "__noChroot" "__impureHostDeps"
    "__propagatedImpureHostDeps" "__sandboxProfile" "__propagatedSandboxProfile" "__darwinAllowLocalNetworking"
    "impureEnvVars" "requiredSystemFeatures" "allowedReferences" "allowedRequisites" "disallowedReferences"
    "disallowedRequisites" "outputChecks" "exportReferencesGraph" "maxSize" "maxClosureSize"
    "unsafeDiscardReferences" "args"
  ];

  attributes = checked.drvAttrs;
  outputs = attributes.outputs or [ "out" ];
  output = name: "${name}=${unsafeDiscardStringContext (checked.${name}.outPath or "")}";

  # The text of the shell's own derivation, for nix-shell, without its input derivations and sources. These are the
  # second and the third list in the text. They hold only store paths and names of outputs, so a bracket always ends a
  # list.
  own = unsafeDiscardStringContext (derivation attributes).drvPath;
  whole = readFile "/s${own}";
  begin = size:
    let pieces = filter isString (split "[]],[[\"]" (substring 0 size whole)); in
    if length pieces > 3 || size > stringLength whole then pieces else begin (size * 4);
  outputsDerivationsSources = map (elemAt (begin 4096)) [ 0 1 2 ];
  afterwards = stringLength (concatStringsSep "],[" outputsDerivationsSources) + stringLength "],\"";
  text = "${head outputsDerivationsSources}],[],[],\"${substring afterwards (stringLength whole) whole}";

  common = removeAttrs attributes dangerous // {
    builder = referring "${bash}/bin/bash" bash;
    outputs = [ "out" ];
  };
  shellArguments = script: [ "--norc" "--noprofile" script ];
in
if nix != "" then derivation (common // {
  name = "nix-shell"; # a fixed name: the path becomes part of a URL, where some characters of names have other meanings
  args = shellArguments (toFile "nix-shell.sh" script) ++ [
    (referring bash bash) (referring coreutils coreutils) (referring nix nix) (toFile "derivation" text) own
    (placeholder "out")
  ];
})
else derivation (common // {
  args = shellArguments (toFile "capture.sh" script);
  __spoold_bash = referring bash bash;
  __spoold_coreutils = referring coreutils coreutils;
  # The values that these variables have in nix-shell.
  __spoold_builder = attributes.builder or "";
  __spoold_outputs = if attributes ? outputs then concatStringsSep " " outputs else "";
  __spoold_out_paths = concatStringsSep " " (map output outputs);
})

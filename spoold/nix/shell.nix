# From a client's cutor.nix to the derivation that captures its shell. Evaluated in the jail.
#
# bash, coreutils: store paths of the runtime, which are registered in the jail's store and not in the jail itself.
# nix: "", or the store path of Nix, registered as well, where jobs are to start nix-shell themselves.
# script: the text of capture.sh, or of nix-shell.sh.
{ bash, coreutils, nix, script }:
let
  inherit (builtins)
    attrNames concatStringsSep elemAt filter functionArgs head intersectAttrs isAttrs isFunction isList isString length
    match placeholder readFile split stringLength substring toFile toXML typeOf unsafeDiscardStringContext;

  # A string that makes whatever holds it depend on the store path.
  referring = text: path: builtins.appendContext text { ${path} = { path = true; }; };

  fail = text: throw "cutor.nix: ${text}";
  wanted = "a derivation, such as { pkgs ? import <nixpkgs> { } }: pkgs.mkShell { }";

  # Call a function as nix-shell does: only defaults, and inNixShell where it is asked for.
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
        fail "its argument '${head missing}' has no default; nobody passes it one"
      else value offered;

  result = called (import /job/cutor.nix);
  shell = if isList result && length result == 1 then head result else result;

  checked =
    if isList shell then fail "it is a list of ${toString (length shell)}; it has to be one derivation"
    else if !isAttrs shell then fail "it is a ${typeOf shell}; it has to be ${wanted}"
    else if (shell.type or "") != "derivation" || !(shell ? drvAttrs) then
      fail "it is a set of ${toString (length (attrNames shell))} attributes; it has to be ${wanted}"
    else shell;

  # What changes what a build may do, or what comes out of it. Such words are for the shell's own build, which never
  # happens.
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

  # The shell's own derivation, for nix-shell: its text without its input derivations and sources. These are the second
  # and the third list in it, and hold nothing but store paths and names of outputs: so lists end where brackets do.
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
  name = "nix-shell"; # its path becomes part of a URL, in which not all that a name may hold stands for itself
  args = shellArguments (toFile "nix-shell.sh" script) ++ [
    (referring bash bash) (referring coreutils coreutils) (referring nix nix) (toFile "derivation" text) own
    (placeholder "out")
  ];
})
else derivation (common // {
  args = shellArguments (toFile "capture.sh" script);
  __spoold_bash = referring bash bash;
  __spoold_coreutils = referring coreutils coreutils;
  # As nix-shell would have them.
  __spoold_builder = attributes.builder or "";
  __spoold_outputs = if attributes ? outputs then concatStringsSep " " outputs else "";
  __spoold_out_paths = concatStringsSep " " (map output outputs);
})

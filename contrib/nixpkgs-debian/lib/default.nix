# The part of nixpkgs' lib that shell expressions and small packages use.
let
  inherit (builtins) attrNames concatLists elem elemAt filter foldl' genList head isAttrs isFunction isList
    isString length listToAttrs mapAttrs replaceStrings stringLength substring tail;

  lib = rec {
    inherit (builtins) add all any attrNames attrValues catAttrs compareVersions concatLists concatMap
      concatStringsSep deepSeq elem elemAt filter foldl' fromJSON functionArgs genList getAttr hasAttr head
      intersectAttrs isAttrs isBool isFloat isFunction isInt isList isString length lessThan listToAttrs
      mapAttrs match parseDrvName partition readFile removeAttrs replaceStrings seq sort split splitVersion
      stringLength sub substring tail toJSON toPath trace typeOf;

    # functions
    id = x: x;
    const = x: _: x;
    flip = f: a: b: f b a;
    pipe = foldl' (x: f: f x);
    fix = f: let x = f x; in x;
    extends = overlay: f: self: let super = f self; in super // overlay self super;
    composeExtensions = f: g: self: super: let first = f self super; in first // g self (super // first);
    makeExtensible = f: fix (self: f self // { extend = overlay: makeExtensible (extends overlay f); });
    min = a: b: if a < b then a else b;
    max = a: b: if a > b then a else b;
    mod = base: int: base - (int * (base / int));
    boolToString = b: if b then "true" else "false";
    assertMsg = condition: message: condition || throw message;
    throwIf = condition: message: if condition then throw message else id;
    throwIfNot = condition: throwIf (!condition);
    warn = message: builtins.trace "warning: ${message}";
    warnIf = condition: message: if condition then warn message else id;
    importJSON = path: builtins.fromJSON (builtins.readFile path);
    versionOlder = a: b: builtins.compareVersions b a == 1;
    versionAtLeast = a: b: !versionOlder a b;
    getVersion = x: x.version or (builtins.parseDrvName (x.name or x)).version;
    getName = x: x.pname or (builtins.parseDrvName (x.name or x)).name;
    isDerivation = x: x.type or null == "derivation";
    toFunction = x: if isFunction x then x else _: x;

    # lists
    singleton = x: [ x ];
    toList = x: if isList x then x else [ x ];
    optional = condition: x: if condition then [ x ] else [ ];
    optionals = condition: xs: if condition then xs else [ ];
    flatten = x: if isList x then concatLists (map flatten x) else [ x ];
    foldr = f: end: xs: let go = n: if n == length xs then end else f (elemAt xs n) (go (n + 1)); in go 0;
    fold = foldr;
    imap0 = f: xs: genList (n: f n (elemAt xs n)) (length xs);
    imap1 = f: xs: genList (n: f (n + 1) (elemAt xs n)) (length xs);
    last = xs: elemAt xs (length xs - 1);
    init = xs: take (length xs - 1) xs;
    take = n: xs: genList (elemAt xs) (min n (length xs));
    drop = n: xs: let m = min n (length xs); in genList (i: elemAt xs (i + m)) (length xs - m);
    reverseList = xs: let n = length xs; in genList (i: elemAt xs (n - i - 1)) n;
    range = first: end: if first > end then [ ] else genList (n: first + n) (end - first + 1);
    remove = x: filter (y: y != x);
    subtractLists = unwanted: filter (x: !(elem x unwanted));
    intersectLists = wanted: filter (x: elem x wanted);
    unique = foldl' (seen: x: if elem x seen then seen else seen ++ [ x ]) [ ];
    findFirst = test: default: xs: let found = filter test xs; in if found == [ ] then default else head found;
    count = test: xs: length (filter test xs);
    zipListsWith = f: xs: ys: genList (n: f (elemAt xs n) (elemAt ys n)) (min (length xs) (length ys));
    zipLists = zipListsWith (fst: snd: { inherit fst snd; });
    forEach = xs: f: map f xs;

    # attribute sets
    nameValuePair = name: value: { inherit name value; };
    genAttrs = names: f: listToAttrs (map (name: nameValuePair name (f name)) names);
    mapAttrs' = f: set: listToAttrs (map (name: f name set.${name}) (attrNames set));
    mapAttrsToList = f: set: map (name: f name set.${name}) (attrNames set);
    attrsToList = mapAttrsToList nameValuePair;
    filterAttrs = test: set: listToAttrs
      (concatLists (map (n: optional (test n set.${n}) (nameValuePair n set.${n})) (attrNames set)));
    concatMapAttrs = f: set: foldl' (all: part: all // part) { } (mapAttrsToList f set);
    optionalAttrs = condition: set: if condition then set else { };
    attrByPath = path: default: set:
      if path == [ ] then set
      else if isAttrs set && set ? ${head path} then attrByPath (tail path) default set.${head path}
      else default;
    hasAttrByPath = path: set:
      path == [ ] || (isAttrs set && set ? ${head path} && hasAttrByPath (tail path) set.${head path});
    getAttrFromPath = path: set: foldl' (at: name: at.${name}) set path;
    setAttrByPath = path: value: foldr (name: at: { ${name} = at; }) value path;
    getAttrs = names: set: genAttrs names (name: set.${name});
    attrVals = names: set: map (name: set.${name}) names;
    recursiveUpdate = a: b: a // mapAttrs (name: value:
      if isAttrs value && isAttrs (a.${name} or null) then recursiveUpdate a.${name} value else value) b;
    recurseIntoAttrs = set: set // { recurseForDerivations = true; };
    zipAttrsWith = f: sets: genAttrs (unique (concatLists (map attrNames sets)))
      (name: f name (builtins.catAttrs name sets));
    mergeAttrs = a: b: a // b;

    # strings
    concatStrings = builtins.concatStringsSep "";
    concatMapStrings = f: xs: concatStrings (map f xs);
    concatMapStringsSep = separator: f: xs: builtins.concatStringsSep separator (map f xs);
    concatImapStringsSep = separator: f: xs: builtins.concatStringsSep separator (imap1 f xs);
    concatLines = concatMapStrings (line: line + "\n");
    intersperse = separator: xs:
      if length xs < 2 then xs else tail (concatLists (map (x: [ separator x ]) xs));
    optionalString = condition: text: if condition then text else "";
    hasPrefix = prefix: text: substring 0 (stringLength prefix) text == prefix;
    hasSuffix = suffix: text:
      let n = stringLength text - stringLength suffix; in n >= 0 && substring n (-1) text == suffix;
    hasInfix = infix: text: length (filter isString (builtins.split (escapeRegex infix) text)) > 1;
    removePrefix = prefix: text:
      if hasPrefix prefix text then substring (stringLength prefix) (-1) text else text;
    removeSuffix = suffix: text:
      if hasSuffix suffix text then substring 0 (stringLength text - stringLength suffix) text else text;
    stringToCharacters = text: genList (n: substring n 1 text) (stringLength text);
    splitString = separator: text: filter isString (builtins.split (escapeRegex separator) (toString text));
    escape = chars: replaceStrings chars (map (c: "\\${c}") chars);
    escapeRegex = escape (stringToCharacters "\\[{()^$?*+|.");
    escapeShellArg = arg: "'${replaceStrings [ "'" ] [ "'\\''" ] (toString arg)}'";
    escapeShellArgs = concatMapStringsSep " " escapeShellArg;
    replicate = n: x: genList (_: x) n;
    fixedWidthString = width: filler: text:
      if stringLength text >= width then text else fixedWidthString width filler (filler + text);
    lowerChars = stringToCharacters "abcdefghijklmnopqrstuvwxyz";
    upperChars = stringToCharacters "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    toLower = replaceStrings upperChars lowerChars;
    toUpper = replaceStrings lowerChars upperChars;
    trim = text: let m = builtins.match "[[:space:]]*(.*[^[:space:]])[[:space:]]*" text; in if m == null then "" else head m;
    toInt = text: let n = builtins.fromJSON text; in if builtins.isInt n then n else throw "not an integer: ${text}";
    isStorePath = x: hasPrefix (builtins.storeDir + "/") (toString x);
    sanitizeDerivationName = text:
      concatStrings (map (c: if builtins.match "[A-Za-z0-9+._?=-]" c == null then "-" else c) (stringToCharacters text));

    # packages
    getOutput = output: package: package.${output} or package.out or package;
    getBin = getOutput "bin";
    getDev = getOutput "dev";
    getLib = getOutput "lib";
    getExe = package: "${getBin package}/bin/${package.meta.mainProgram or (getName package)}";
    getExe' = package: name: "${getBin package}/bin/${name}";
    makeSearchPath = directory: packages:
      builtins.concatStringsSep ":" (map (package: "${package}/${directory}") (filter (x: x != null) packages));
    makeSearchPathOutput = output: directory: packages: makeSearchPath directory (map (getOutput output) packages);
    makeBinPath = makeSearchPathOutput "bin" "bin";
    makeLibraryPath = makeSearchPathOutput "lib" "lib";
    makeOverridable = f: args:
      let
        result = f args;
        override = new: makeOverridable f (args // (if isFunction new then new args else new));
      in
      if isAttrs result then result // { inherit override; }
      else if isFunction result then { __functor = _: result; inherit override; }
      else result;
    callPackageWith = scope: file: args:
      let f = if isFunction file then file else import file;
      in makeOverridable f (builtins.intersectAttrs (builtins.functionArgs f) scope // args);
    extendDerivation = condition: extra: drv: assert condition; drv // extra;
    addMetaAttrs = meta: drv: drv // { meta = (drv.meta or { }) // meta; };
    cleanSource = src: src;

    licenses = genAttrs [ "mit" "asl20" "bsd2" "bsd3" "gpl2" "gpl2Only" "gpl2Plus" "gpl3" "gpl3Only" "gpl3Plus"
      "lgpl21" "lgpl3" "mpl20" "isc" "zlib" "cc0" "unlicense" "free" "unfree" "publicDomain" ]
      (shortName: { inherit shortName; fullName = shortName; free = shortName != "unfree"; });
    maintainers = { };
    platforms = {
      linux = [ "x86_64-linux" "aarch64-linux" ];
      unix = platforms.linux;
      all = platforms.linux;
    };

    trivial = lib;
    lists = lib;
    attrsets = lib;
    strings = lib;
    customisation = lib;
  };
in
lib

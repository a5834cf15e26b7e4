# What nixpkgs' setup does for a build and for a nix-shell, in small: the inputs become PATH and the
# compiler's search paths, and genericBuild runs the phases.  The lines above set initialPath,
# defaultInputs and SHELL.  Read by bash only.

# --- inputs ---------------------------------------------------------------------------------------

addToSearchPath() { # addToSearchPath VARIABLE DIRECTORY
  if [ -d "$2" ]; then export "$1=${!1:+${!1}:}$2"; fi
}

addEnvHooks() { envHooks+=("$2"); } # addEnvHooks OFFSET FUNCTION; one machine builds and runs here

_seenInputs=" "
envHooks=()

_findInput() {
  local input=$1 propagated
  case $_seenInputs in *" $input "*) return ;; esac
  _seenInputs+="$input "
  if [ -f "$input" ]; then source "$input"; return; fi # a setup hook by itself
  if [ ! -d "$input" ]; then echo "build input $input does not exist" >&2; return 1; fi
  _inputs+=("$input")
  if [ -f "$input/nix-support/setup-hook" ]; then source "$input/nix-support/setup-hook"; fi
  for propagated in propagated-build-inputs propagated-native-build-inputs; do
    if [ -f "$input/nix-support/$propagated" ]; then
      for propagated in $(< "$input/nix-support/$propagated"); do _findInput "$propagated"; done
    fi
  done
}

_inputs=()
for _input in ${nativeBuildInputs-} ${buildInputs-} ${propagatedNativeBuildInputs-} ${propagatedBuildInputs-} \
  ${depsBuildBuild-} ${nativeCheckInputs-} ${checkInputs-} "${defaultInputs[@]}"; do
  _findInput "$_input"
done

PATH=
XDG_DATA_DIRS=
for _input in "${_inputs[@]}"; do
  addToSearchPath PATH "$_input/bin"
  addToSearchPath XDG_DATA_DIRS "$_input/share"
  addToSearchPath PKG_CONFIG_PATH "$_input/lib/pkgconfig"
  # Most languages take arguments and output for UTF-8 only where the locale says so.
  if [ -e "$_input/libexec/redirect.so" ]; then export LANG=${LANG:-C.UTF-8}; fi
  # A Python with packages has them beside it.
  [ -e "$_input/bin/python3" ] || addToSearchPath PYTHONPATH "$_input/lib/python3/dist-packages"
  if [ -d "$_input/include" ]; then export NIX_CFLAGS_COMPILE="${NIX_CFLAGS_COMPILE-} -isystem $_input/include"; fi
  if [ -d "$_input/lib" ]; then export NIX_LDFLAGS="${NIX_LDFLAGS-} -L$_input/lib -rpath $_input/lib"; fi
  for _hook in "${envHooks[@]}"; do "$_hook" "$_input"; done
done
for _input in "${initialPath[@]}"; do addToSearchPath PATH "$_input/bin"; done
export PATH XDG_DATA_DIRS
export CONFIG_SHELL=$SHELL SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-315532800} TZ=${TZ:-UTC}
: "${NIX_BUILD_CORES:=1}"
if [ -z "${prefix-}" ]; then prefix=${out-}; fi
unset _input _hook _seenInputs
# Also when read twice, as a nix-shell in a nix-shell does.
unset -f _findInput

# --- helpers --------------------------------------------------------------------------------------

# runHook NAME: the code in the variable, or the function, of that name, if any.
runHook() {
  if [ -n "${!1-}" ]; then eval "${!1}"; elif declare -F "$1" > /dev/null; then "$1"; fi
}

# substitute IN OUT [--replace OLD NEW | --subst-var NAME | --subst-var-by NAME VALUE]...
substitute() {
  local input=$1 output=$2 content
  shift 2
  IFS= read -r -d '' content < "$input" || true
  while [ $# -gt 0 ]; do
    case $1 in
      --replace | --replace-fail | --replace-warn | --replace-quiet) content=${content//"$2"/"$3"}; shift 3 ;;
      --subst-var) content=${content//"@$2@"/"${!2}"}; shift 2 ;;
      --subst-var-by) content=${content//"@$2@"/"$3"}; shift 3 ;;
      *) echo "substitute: unknown option $1" >&2; return 1 ;;
    esac
  done
  printf %s "$content" > "$output.substitute"
  if [ -x "$input" ]; then chmod +x "$output.substitute"; fi
  mv "$output.substitute" "$output"
}

substituteInPlace() { local file=$1; shift; substitute "$file" "$file" "$@"; }
substituteAll() { echo "substituteAll is not in this nixpkgs; use substitute --subst-var" >&2; return 1; }

patchShebangs() {
  local file first program found
  find "$@" -type f -perm -0100 | while IFS= read -r file; do
    IFS= read -r first < "$file" 2> /dev/null || continue
    [ "${first:0:2}" = '#!' ] || continue
    read -r program first <<< "${first:2}"
    if [ "${program##*/}" = env ]; then read -r program first <<< "$first"; fi
    case $program in /nix/store/*) continue ;; esac
    found=$(type -P "${program##*/}") || continue
    sed -i "1s|.*|#!$found${first:+ $first}|" "$file"
  done
}

wrapProgram() { # wrapProgram FILE [--set N V | --set-default N V | --unset N | --prefix N SEP V | --suffix N SEP V | --add-flags F]...
  local file=$1 flags= hidden
  shift
  hidden=$(dirname "$file")/.$(basename "$file")-wrapped
  mv "$file" "$hidden"
  {
    echo "#!$SHELL"
    while [ $# -gt 0 ]; do
      case $1 in
        --set) printf 'export %s=%q\n' "$2" "$3"; shift 3 ;;
        --set-default) printf ': "${%s=%q}"; export %s\n' "$2" "$3" "$2"; shift 3 ;;
        --unset) echo "unset $2"; shift 2 ;;
        --prefix) printf 'export %s=%q${%s:+%q$%s}\n' "$2" "$4" "$2" "$3" "$2"; shift 4 ;;
        --suffix) printf 'export %s=${%s:+$%s%q}%q\n' "$2" "$2" "$2" "$3" "$4"; shift 4 ;;
        --add-flags) flags+=" $2"; shift 2 ;;
        *) echo "wrapProgram: unknown option $1" >&2; return 1 ;;
      esac
    done
    echo "exec -a \"\$0\" $hidden$flags \"\$@\""
  } > "$file"
  chmod +x "$file"
}

# --- phases ---------------------------------------------------------------------------------------

unpackPhase() {
  runHook preUnpack
  local source before=" $(echo *) " entry
  for source in ${srcs:-${src-}}; do
    if [ -d "$source" ]; then
      cp -r --no-preserve=mode,ownership "$source" "$(basename "$source" | sed 's/^[a-z0-9]\{32\}-//')"
    else
      case $source in
        *.tar | *.tar.* | *.tgz | *.tbz2 | *.txz) tar -xf "$source" --no-same-owner ;;
        *) echo "unpackPhase: cannot unpack $source" >&2; return 1 ;;
      esac
    fi
  done
  if [ -z "${sourceRoot-}" ]; then
    for entry in *; do
      case $before in *" $entry "*) continue ;; esac
      if [ -d "$entry" ]; then sourceRoot=$entry; fi
    done
  fi
  if [ -z "${sourceRoot-}" ]; then echo "unpackPhase: no directory came out of the sources" >&2; return 1; fi
  cd "$sourceRoot"
  chmod -R u+w .
  runHook postUnpack
}

patchPhase() {
  runHook prePatch
  local one
  for one in ${patches-}; do
    echo "applying $one"
    patch ${patchFlags:--p1} < "$one"
  done
  runHook postPatch
}

configurePhase() {
  runHook preConfigure
  if [ -x "${configureScript:=./configure}" ]; then
    "$configureScript" "--prefix=$prefix" ${configureFlags-}
  fi
  runHook postConfigure
}

_hasMakefile() { [ -e Makefile ] || [ -e makefile ] || [ -e GNUmakefile ] || [ -n "${makefile-}" ]; }
_make() { make SHELL="$SHELL" ${makefile:+-f "$makefile"} ${makeFlags-} "$@"; }

buildPhase() {
  runHook preBuild
  if _hasMakefile; then _make ${enableParallelBuilding:+-j"$NIX_BUILD_CORES"} ${buildFlags-}; fi
  runHook postBuild
}

checkPhase() {
  runHook preCheck
  if _hasMakefile; then _make ${checkFlags-} ${checkTarget:-check}; fi
  runHook postCheck
}

installPhase() {
  runHook preInstall
  if _hasMakefile; then _make "prefix=$prefix" ${installFlags-} ${installTargets:-install}; fi
  runHook postInstall
}

fixupPhase() {
  runHook preFixup
  local name
  for name in ${outputs:-out}; do
    if [ -d "${!name}/bin" ] && [ -z "${dontPatchShebangs-}" ]; then patchShebangs "${!name}/bin"; fi
  done
  for name in propagatedBuildInputs propagatedNativeBuildInputs; do
    if [ -n "${!name-}" ]; then
      mkdir -p "$out/nix-support"
      case $name in propagatedBuildInputs) name=propagated-build-inputs; set -- $propagatedBuildInputs ;;
        *) name=propagated-native-build-inputs; set -- $propagatedNativeBuildInputs ;; esac
      echo "$*" > "$out/nix-support/$name"
    fi
  done
  if [ -n "${setupHook-}" ]; then mkdir -p "$out/nix-support"; cp "$setupHook" "$out/nix-support/setup-hook"; fi
  runHook postFixup
}

installCheckPhase() {
  runHook preInstallCheck
  runHook postInstallCheck
}

genericBuild() {
  local phase
  if [ -n "${buildCommandPath-}" ]; then source "$buildCommandPath"; return; fi
  if [ -n "${buildCommand-}" ]; then eval "$buildCommand"; return; fi
  for phase in ${phases:-${prePhases-} unpackPhase patchPhase ${preConfigurePhases-} configurePhase buildPhase checkPhase \
    installPhase fixupPhase installCheckPhase ${postPhases-}}; do
    case $phase in
      unpackPhase) [ -z "${dontUnpack-}" ] || continue ;;
      patchPhase) [ -z "${dontPatch-}" ] || continue ;;
      configurePhase) [ -z "${dontConfigure-}" ] || continue ;;
      buildPhase) [ -z "${dontBuild-}" ] || continue ;;
      checkPhase) [ -n "${doCheck-}" ] || continue ;;
      installPhase) [ -z "${dontInstall-}" ] || continue ;;
      fixupPhase) [ -z "${dontFixup-}" ] || continue ;;
      installCheckPhase) [ -n "${doInstallCheck-}" ] || continue ;;
    esac
    echo "running $phase"
    if [ -n "${!phase-}" ]; then eval "${!phase}"; else "$phase"; fi
  done
}

# shellcheck shell=bash disable=SC2154
#
# What contrib/demo and contrib/test share: from a fresh Debian or Ubuntu machine to Python, Nix, a nixpkgs and Docker.
#
# Theory of operation. Everything that is worth keeping goes into one cache directory ($SPOOLD_CACHE, or spoold/ in the
# XDG cache directory). Names there are hashes of what the files are made from. So several checkouts can share the
# cache, and none ever runs another's code or waits for another's change. Everything else is in a directory for each run
# ($work), which is removed at the end. Packages that apt-get installs stay.
#
# A private dockerd is kept on a leash: a pipe whose other end this script and its children hold. When the last of them
# has ended, by whatever signal, the pipe ends. Then the keeper stops dockerd and cleans up. dockerd lives in a mount
# namespace of its own, so no mount can outlive it.
#
# Sourced, never run: the caller has set -euo pipefail, and sets $root (the checkout) and $work (an empty directory).

: "${HOME:=$(getent passwd "$(id -u)" | cut -d: -f6)}" # some CI runners have none
export HOME
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin # an ordinary user's PATH on Debian lacks these
cache=${SPOOLD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/spoold}
# Somebody who calls this in a virtual environment means it for their own programs, not for ours.
unset PYTHONPATH PYTHONHOME PYTHONSTARTUP VIRTUAL_ENV

say() { printf '==> %s\n' "$*" >&2; }

fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

as_root() {
    if [ "$EUID" -eq 0 ]; then
        "$@"
    else
        sudo -- "$@"
    fi
}

may_become_root() { [ "$EUID" -eq 0 ] || command -v sudo >/dev/null; }

# in_own_group [ARGUMENT...]: restarts this script in a control group that is ours to divide, where systemd gives one.
#
# Without this, the builder could not bound the memory of builds on cgroup v2. A scope changes nothing else: the script
# keeps its process, its terminal and its signals.
in_own_group() {
    local scope=(systemd-run --quiet --scope --property Delegate=yes)
    [ "$EUID" -eq 0 ] || scope+=(--user)
    [ -z "${SPOOLD_SCOPE:-}" ] && [ -e /sys/fs/cgroup/cgroup.controllers ] && "${scope[@]}" true 2>/dev/null || return 0
    SPOOLD_SCOPE=yes exec "${scope[@]}" "$0" "$@"
}

# --- the system's packages

# need_packages [PROGRAM:PACKAGE...]: installs missing packages with apt-get, those of these programs too, and says so.
#
# It does not use the network when all of them are there.
need_packages() {
    local packages=() wanted
    for wanted in "$@"; do
        command -v "${wanted%:*}" >/dev/null || packages+=("${wanted#*:}")
    done
    find_python || packages+=(python3 python3-venv)
    command -v nix-store >/dev/null || packages+=(nix-bin)
    command -v bwrap >/dev/null || packages+=(bubblewrap)
    # The program of the sandboxes is compiled here, see spoold/sandbox/program.py.
    command -v cc >/dev/null || packages+=(gcc)
    [ -e /usr/include/stdio.h ] || packages+=(libc6-dev)
    some_docker || packages+=("${docker_packages[@]}")
    install_packages "${packages[@]}"
    find_python || fail "$(no_python)"
    need_build_users
}

# Builds run as users that own nothing. For root they are Nix's own. An ordinary user takes them from a range of
# subordinate ids, which useradd gives to each new user on Debian.
need_build_users() {
    local n file name
    if [ "$EUID" -ne 0 ]; then
        command -v newuidmap >/dev/null || install_packages uidmap
        name=$(id -un)
        for file in subuid subgid; do
            if ! grep -qs -e "^$name:" -e "^$EUID:" "/etc/$file"; then
                say "adding a range of subordinate ids for $name to /etc/$file: builds run as these users"
                n=$(awk -F: '{ if ($2 + $3 > n) n = $2 + $3 } END { print (n > 100000 ? n : 100000) }' "/etc/$file" || echo 100000)
                as_root usermod "--add-${file}s" "$n-$((n + 65535))" "$name"
            fi
        done
        return 0
    fi
    ! getent group nixbld >/dev/null || return 0
    say "creating the group nixbld with the users nixbld1 to nixbld16: Nix runs builds as these users"
    groupadd --system nixbld
    for n in {1..16}; do
        useradd --system --gid nixbld --groups nixbld --no-create-home --home-dir /var/empty \
            --shell /usr/sbin/nologin --comment "Nix build user $n" "nixbld$n"
    done
}

docker_packages=(docker.io)
# A kernel with AppArmor refuses containers without a profile, and dockerd loads its profile with this package's parser.
if grep -qs Y /sys/module/apparmor/parameters/enabled && ! command -v apparmor_parser >/dev/null; then
    docker_packages+=(apparmor)
fi

# Tells whether there is an engine that may answer, or one to start. start_docker finds out whether it works.
some_docker() { [ -n "${DOCKER_HOST:-}" ] || [ -S /var/run/docker.sock ] || command -v dockerd >/dev/null; }

install_packages() {
    [ $# -gt 0 ] || return 0
    command -v apt-get >/dev/null || fail "missing: $*. This system has no apt-get to install them with." \
        "Install them in your system's way, or use Debian 12 or Ubuntu 24.04, or later"
    may_become_root || fail "missing: $*. Install them as root with 'apt-get install $*', or install sudo"
    say "installing with apt-get: $*"
    update_lists
    # Recommended packages would bring a nix-daemon and other services that nobody here asks for.
    apt_get install -y --no-install-recommends "$@"
}

lists_updated=
update_lists() {
    [ -z "$lists_updated" ] || return 0
    apt_get update
    lists_updated=yes
}

apt_get() {
    local log
    log=$(mktemp)
    # Another package manager may hold the lock, such as unattended-upgrades on a machine that just booted.
    if ! as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 "$@" \
        >"$log" 2>&1 </dev/null; then
        tail -n 20 "$log" >&2
        rm -f "$log"
        fail "apt-get $* failed, see above"
    fi
    rm -f "$log"
}

# --- Python

# find_python: sets $base_python to a Python that is new enough and can make virtual environments.
find_python() {
    local name
    for name in python3 /usr/bin/python3 python3.14 python3.13 python3.12 python3.11; do
        if base_python=$(command -v "$name") && "$base_python" -c \
            'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            return 0
        fi
    done
    return 1
}

no_python() {
    local version
    version=$(python3 -c 'import platform; print(platform.python_version())' 2>/dev/null || echo missing)
    echo "Python 3.11 or newer with venv is needed, and python3 here is $version." \
        "Debian 12 and Ubuntu 24.04 have it in the packages python3 and python3-venv"
}

# make_venv [dev]: sets $python to a Python with the dependencies in pyproject.toml. With dev it has the development tools
# too, all at the versions and with the hashes that contrib/development/requirements.txt locks.
#
# The checkout itself is not installed, since checkouts with the same dependencies share the environment.
make_venv() {
    local wanted venv
    if [ "${1:-}" = dev ]; then
        wanted=$(<"$root/contrib/development/requirements.txt")
    else
        wanted=$("$base_python" -c '
import sys, tomllib
with open(sys.argv[1], "rb") as file:
    print(*tomllib.load(file)["project"]["dependencies"], sep="\n")
' "$root/pyproject.toml")
    fi
    venv=$cache/venv-$({ "$base_python" -c 'import sys; print(sys.version, sys.executable)' && echo "$wanted"; } | key)
    make_once "$venv" install_venv "$wanted"
    python=$venv/bin/python
}

install_venv() {
    "$base_python" -m venv "$1" &&
        echo "$2" >"$1/requirements.txt" &&
        "$1/bin/python" -m pip install -qq --no-input --disable-pip-version-check -r "$1/requirements.txt"
}

# make_once DIRECTORY COMMAND [ARGUMENT...]: makes DIRECTORY by COMMAND DIRECTORY ARGUMENT..., unless it is complete.
#
# Only one process at a time makes a directory of one kind, which is the name up to the first hyphen. COMMAND has to
# return its failures itself: bash ignores "set -e" in a command whose outcome is tested, as it is here.
make_once() {
    local directory=$1 kind=${1##*/}
    mkdir -p "$cache"
    if [ ! -e "$directory/complete" ]; then
        say "making $directory"
        (
            flock 9
            [ ! -e "$directory/complete" ] || exit 0 # somebody else made it meanwhile
            rm -rf "$directory" && "$2" "$directory" "${@:3}" && touch "$directory/complete"
        ) 9>"$cache/${kind%%-*}.lock" || fail "cannot make $directory, see above"
    fi
    touch "$directory" # its last use, for prune_cache
}

key() { sha256sum | cut -c 1-16; }

# make_commands: writes spoold and spoolctl, which run this checkout, into $work/bin, and puts that on the PATH.
#
# `spoold --version` reads the few lines of metadata, which an installation would leave.
make_commands() {
    local name module version
    version=$("$python" -c 'import sys, tomllib; print(tomllib.load(open(sys.argv[1], "rb"))["project"]["version"])' \
        "$root/pyproject.toml")
    mkdir -p "$work/bin" "$work/site/spoold-$version.dist-info"
    printf 'Metadata-Version: 2.1\nName: spoold\nVersion: %s\n' "$version" \
        >"$work/site/spoold-$version.dist-info/METADATA"
    for name in spoold:daemon spoolctl:ctl; do
        module=${name#*:} name=${name%:*}
        cat >"$work/bin/$name" <<END
#!$python -P
import sys

sys.path[:0] = ["$root", "$work/site"]
from spoold.cli.$module import main

main()
END
        chmod +x "$work/bin/$name"
    done
    PATH=$work/bin:$PATH
}

# --- Nix

# provide_nixpkgs [RELEASE]: sets $nixpkgs to the configured one ($SPOOLD_NIXPKGS), else to one made of Debian packages:
# those of this machine's release, or those of the release of Debian that is named.
provide_nixpkgs() {
    if [ -n "${SPOOLD_NIXPKGS:-}" ]; then
        nixpkgs=$SPOOLD_NIXPKGS
        return 0
    fi
    local recipe=$root/contrib/nixpkgs-debian apt=()
    # The name depends on the recipe, so that checkouts with different recipes do not remove each other's nixpkgs.
    nixpkgs=$(find "$recipe" -type f -print0 | LC_ALL=C sort -z | (cd "$recipe" && xargs -0 cat) | key)
    nixpkgs=$cache/nixpkgs-${1:+$1-}$nixpkgs
    if [ ! -e "$nixpkgs" ]; then
        say "making a nixpkgs out of Debian packages: $nixpkgs"
        # Without package lists apt-cache fails with a message that nobody understands.
        if [ -n "${1:-}" ]; then
            know_release "$1"
            apt=(APT_CONFIG="$cache/apt-$1/config")
        else
            compgen -G '/var/lib/apt/lists/*Packages*' >/dev/null || update_lists
        fi
        env "${apt[@]}" "$base_python" "$recipe/make" --cache "$cache/debian-packages" "$nixpkgs" ||
            fail "cannot make a nixpkgs, see above; or name one: SPOOLD_NIXPKGS=directory, tarball or URL"
    fi
    touch "$nixpkgs"
}

# know_release RELEASE: makes settings for apt that know this release of Debian alone, and fetches its package lists.
know_release() {
    local place=$cache/apt-$1
    mkdir -p "$place"/{state/lists/partial,cache/archives/partial}
    echo "deb $(debian_mirror) $1 main" >"$place/sources"
    cat >"$place/config" <<END
Dir::State "$place/state";
Dir::State::status "/dev/null";
Dir::Cache "$place/cache";
Dir::Etc::SourceList "$place/sources";
Dir::Etc::SourceParts "/dev/null";
APT::Sandbox::User "root";
END
    APT_CONFIG=$place/config apt-get -qq update || fail "cannot fetch the package lists of Debian $1, see above"
}

# claim_state NAME: sets $state to a Nix state directory that is kept warm, and that nobody else uses meanwhile.
claim_state() {
    local number
    for number in 1 2 3 4 5 6 7 8; do
        state=$cache/state-$1-$number
        mkdir -p "$state"
        exec {state_lock}>"$state.lock" # the daemons inherit it: the lock is free when the last of them has ended
        if flock -n "$state_lock"; then
            touch "$state"
            return 0
        fi
        exec {state_lock}>&-
    done
    fail "eight other runs are using $cache/state-$1-*: wait until one of them ends"
}

# prune_cache: removes directories that no run has used for a month.
prune_cache() {
    local old
    while IFS= read -r old; do
        chmod -R u+w "$old" # a Nix store's directories are read-only
        rm -rf "$old"
    done < <(find "$cache" -mindepth 1 -maxdepth 1 -type d -mtime +30 \
        \( -name 'venv-*' -o -name 'nixpkgs-*' -o -name 'apt-*' -o -name 'release-*' \
        -o -name 'debian-*' ! -name debian-packages \) 2>/dev/null)
}

# --- a Debian of its own

# debian_mirror: prints the URL of the packages of this machine's release of Debian; fails on other systems.
debian_mirror() {
    local mirror
    # The formats are apt-get's, not the shell's.
    # shellcheck disable=SC2016
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' \
        "Codename: $(debian_codename)" 2>/dev/null | head -n 1)
    [ -n "$mirror" ] && echo "$mirror"
}

debian_codename() { (. /etc/os-release && echo "${VERSION_CODENAME:-}"); }

# provide_debian PACKAGES [RELEASE]: sets $debian to a directory with a minimal Debian and these packages, separated by
# commas. The release is this machine's, or that of the codename.
provide_debian() {
    local release=${2:-$(debian_codename)}
    debian=$cache/debian-$(echo "$release $1" | key)
    make_once "$debian" unpack_debian "$1" "$release"
}

unpack_debian() {
    debootstrap --variant=minbase --include="$2" "$3" "$1" "$(debian_mirror)" >"$work/debootstrap" 2>&1 ||
        fail "debootstrap failed: $(tail -n 5 "$work/debootstrap")"
    rm -f "$1"/var/cache/apt/archives/*.deb
}

# provide_machine [RELEASE]: sets $debian to a Debian for tests/boot, with systemd and the dependencies of the package,
# or to an empty string where none can be made.
provide_machine() {
    debian=
    if [ "$EUID" -ne 0 ] || ! debian_mirror >/dev/null; then
        say "tests/boot has no Debian to boot: making one needs root, on Debian"
        return 0
    fi
    need_packages debootstrap:debootstrap systemd-nspawn:systemd-container
    # debootstrap cannot know that libdbi-perl provides what nix-bin depends on. The compiler is there because spoold,
    # when installed by pip, compiles the program of the sandboxes.
    provide_debian "systemd-sysv,dbus,procps,libdbi-perl,python3-venv,gcc,libc6-dev,$(packages_of Depends)" "$@"
}

# packages_of FIELD: prints the packages that a field of our package's control file names, separated by commas. Of
# alternatives it takes the first. debootstrap gets no versions and no substitutions.
packages_of() {
    sed -n "/^$1:/,/^[^ ]*:/{s/^$1:/ /; /^ /p}" "$root/contrib/packaging/debian/control" | tr , '\n' |
        sed -n 's/debhelper-compat/debhelper/; s/^ *\([a-z0-9][a-z0-9.-]*\).*/\1/p' | paste -sd,
}

# --- Nix and Docker Engine of other releases

# The packages of a release that are laid over this system, with all that they need. Tests make certificates by
# openssl, whose program has to fit its libraries.
release_packages="nix-bin bubblewrap docker.io docker-cli crun util-linux openssl"

# later_releases: prints the releases with newer engines than this one's, in the order of their age; nothing elsewhere.
#
# An older release cannot be laid over this one: programs here may need a newer C library than it has. forky is Debian's
# testing, where packages can be installed on each day, as they cannot in sid. On Ubuntu the release after this one
# depends on the calendar, so it has to be named.
later_releases() {
    case $(debian_codename) in
    bookworm) echo trixie forky ;;
    trixie) echo forky ;;
    esac
}

# provide_release CODENAME: sets $release to a directory with the Nix and the Docker Engine of another release of this
# distribution. Its file versions says which they are. See in_release.
provide_release() {
    release=$cache/release-$(echo "$1 $release_packages" | key)
    make_once "$release" unpack_release "$1"
}

# provide_later_releases: exports SPOOLD_TEST_RELEASES with all of them, where tests/test_releases.py can use them.
provide_later_releases() {
    local name
    if [ "$EUID" -ne 0 ] || ! debian_mirror >/dev/null; then
        say "the engines of later releases are not tested: that needs root, on Debian"
        return 0
    fi
    SPOOLD_TEST_RELEASES=
    for name in $(later_releases); do
        provide_release "$name"
        SPOOLD_TEST_RELEASES+="$name=$release "
    done
    export SPOOLD_TEST_RELEASES
}

# unpack_release DIRECTORY CODENAME: unpacks packages without installing them. That takes a tenth of what debootstrap
# takes, since nothing is configured.
unpack_release() {
    local distribution components=main mirror packages=() file
    distribution=$(. /etc/os-release && echo "$ID")
    [ "$distribution" != ubuntu ] || components="main universe"
    mirror=$(release_mirror) ||
        fail "apt-get knows no archive of $(debian_codename): run apt-get update, on Debian or Ubuntu"
    mkdir -p "$1"/apt/{lists/partial,archives/partial} "$1"/usr/{bin,sbin,lib,lib64}
    touch "$1/apt/status" # nothing is installed, so all that the packages need is fetched
    echo "deb [signed-by=/usr/share/keyrings/$distribution-archive-keyring.gpg] $mirror $2 $components" \
        >"$1/apt/sources"
    local apt=(-qq -o "Dir::Etc::sourcelist=$1/apt/sources" -o Dir::Etc::sourceparts=/dev/null
        -o Dir::Etc::preferencesparts=/dev/null -o "Dir::State=$1/apt" -o "Dir::State::status=$1/apt/status"
        -o "Dir::Cache=$1/apt" -o APT::Install-Recommends=false -o Debug::NoLocking=true)
    apt-get "${apt[@]}" update >"$work/release" 2>&1 ||
        fail "cannot read the archive of $2: $(tail -n 5 "$work/release")"
    for file in $release_packages; do # docker-cli is a package of its own since Debian 13
        ! apt-cache "${apt[@]}" show "$file" >/dev/null 2>&1 || packages+=("$file")
    done
    apt-get "${apt[@]}" install --download-only -y "${packages[@]}" >"$work/release" 2>&1 ||
        fail "cannot fetch the packages of $2: $(tail -n 5 "$work/release")"
    # As on every system with a merged /usr. Where these are links, tar writes through them.
    for file in bin sbin lib lib64; do ln -s "usr/$file" "$1/$file"; done
    for file in "$1"/apt/archives/*.deb; do
        dpkg-deb --fsys-tarfile "$file" | tar -x -C "$1" --keep-directory-symlink --exclude=./usr/share/{locale,man} ||
            fail "cannot unpack $file"
    done
    for file in nix-bin bubblewrap docker.io containerd runc crun; do
        # The format is dpkg-deb's, not the shell's.
        # shellcheck disable=SC2016
        dpkg-deb --show --showformat '${Package} ${Version}\n' "$1/apt/archives/${file}"_*.deb
    done >"$1/versions"
    rm -rf "$1/apt"
}

release_mirror() {
    # shellcheck disable=SC2016 # as above
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' "Codename: $(debian_codename)" 2>/dev/null |
        head -n 1 | grep .
}

# in_release DIRECTORY COMMAND [ARGUMENT...]: runs a command where the files of a release lie over those in /usr.
#
# So it finds the Nix, the Docker Engine and the C library of that release, and everything else as it is here. The
# mount is in a namespace of its own and ends with the command.
in_release() {
    # shellcheck disable=SC2016 # the words are the inner shell's
    unshare --mount --propagation slave bash -c '
        mount -t overlay -o "ro,lowerdir=$0/usr:/usr" release /usr && exec "$@"' "$@"
}

# --- Docker

docker_keeper=
docker_leash=

# start_docker [--private]: exports DOCKER_HOST of the engine that answers. Where none does, or with --private, it
# starts one of our own with $docker_options. The data of that engine is in $docker_place, or else in /tmp.
docker_options=()
start_docker() {
    if [ "${1:-}" != --private ] && use_running_docker; then
        return 0
    fi
    # sudo asks for its password here, where it can.
    [ "$EUID" -eq 0 ] || { may_become_root && sudo -v; } ||
        fail "no Docker Engine answers${docker_refusal:-}, and starting one needs root. Run this as root, or where you may use" \
            "sudo. Or install docker.io and join its group (usermod -aG docker NAME)"
    command -v dockerd >/dev/null || install_packages "${docker_packages[@]}"
    # The installation may have started it.
    if [ "${1:-}" != --private ] && use_running_docker; then
        return 0
    fi
    check_cgroups
    start_private_docker
}

use_running_docker() {
    local where
    for where in "${DOCKER_HOST:-}" unix:///var/run/docker.sock; do
        case $where in
        '') continue ;;
        unix://*) [ -S "${where#unix://}" ] || continue ;;
        esac
        if docker_refusal=$(ping_docker "$where" 0); then
            export DOCKER_HOST=$where
            say "using the Docker Engine at $where"
            return 0
        fi
        say "the Docker Engine at $where does not answer:$docker_refusal"
    done
    return 1
}

# ping_docker URL SECONDS [PID]: waits for up to SECONDS until the engine answers, while PID lives; else prints why it
# does not.
ping_docker() {
    "$python" -P - "$@" <<'END'
import os, sys, time
import docker

def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True

where, patience, pid = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]) if sys.argv[3:] else os.getpid()
deadline = time.monotonic() + patience
while True:
    try:
        docker.APIClient(base_url=where, version="auto", timeout=10).ping()
        sys.exit()
    except Exception as error:
        reason = str(error)
    if time.monotonic() >= deadline or not alive(pid):
        print(f" ({reason})")
        sys.exit(1)
    time.sleep(0.1)
END
}

# with_crun: makes crun known to an engine that is started later. spoold uses it there, see contrib/docs/operator.md.
with_crun() {
    command -v crun >/dev/null || install_packages crun
    docker_options+=(--add-runtime "crun=$(command -v crun)")
}

check_cgroups() {
    [ -e /sys/fs/cgroup/cgroup.controllers ] || [ -d /sys/fs/cgroup/memory ] || fail \
        "no control groups are mounted, and Docker needs them. As root, run" \
        "'mount -t cgroup2 none /sys/fs/cgroup' (for a chroot: 'mount --rbind /sys /its/sys' from outside)"
}

start_private_docker() {
    # Sockets have short paths, so this is not below the cache or $work. Containers see it neither.
    docker_run=$(mktemp -d "${docker_place:-/tmp}/spoold-docker.XXXXXX")
    local keeper
    keeper=$(declare -f keep_docker)
    say "starting a private dockerd (log: $docker_run/log)"
    mkfifo "$docker_run/leash"
    # setsid: we act on a ^C at the terminal, and dockerd is needed until all else has been stopped.
    as_root setsid --wait unshare --mount --propagation slave \
        bash -c "$keeper; keep_docker \"\$@\"" keep_docker "$docker_run" "$(id -g)" "${docker_options[@]}" \
        <"$docker_run/leash" >"$docker_run/log" 2>&1 &
    docker_keeper=$!
    exec {docker_leash}>"$docker_run/leash"
    if ! ping_docker "unix://$docker_run/socket" 300 "$docker_keeper" >"$docker_run/why"; then
        tail -n 15 "$docker_run/log" >&2
        fail "dockerd does not answer$(<"$docker_run/why"); the end of its log is above"
    fi
    export DOCKER_HOST=unix://$docker_run/socket
}

# keep_docker DIRECTORY GROUP [OPTION...]: runs dockerd until it ends by itself or the leash on stdin does.
#
# It leaves nothing behind. It runs as root in a shell of its own. tests/setups.py uses it too.
keep_docker() {
    local run=$1 group=$2 dockerd containerd pid leash directory told=''
    # If dockerd found the socket of the system's containerd, it would use that one, which cannot see our mounts. The
    # shims put their sockets here too.
    mkdir -p /run/containerd
    mount -t tmpfs tmpfs /run/containerd
    # crun refuses a host that has both versions of control groups. Where there is only one, this does nothing.
    if [[ " ${*:3}" == *' crun='* ]] && mountpoint -q /sys/fs/cgroup/unified; then umount /sys/fs/cgroup/unified; fi
    echo '{}' >"$run/daemon.json" # the system's own file may contradict the options
    # Jobs get no network, so none is set up, and the host's firewall is not touched. cgroupfs works with and without
    # systemd, and gives groups a path that we find again below.
    dockerd --config-file "$run/daemon.json" --data-root "$run/data" --exec-root "$run/exec" --pidfile "$run/pid" \
        --host "unix://$run/socket" --group "$group" --bridge none --iptables=false --ip-forward=false \
        --ip-masq=false --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent "/${run##*/}" \
        "${@:3}" </dev/null &
    dockerd=$!
    head -n 1 <&0 >/dev/null &
    leash=$!
    wait -n || :
    kill "$leash" 2>/dev/null || told=yes
    containerd=$(cat "$run/exec/containerd/containerd.pid" 2>/dev/null) || :
    kill "$dockerd" 2>/dev/null || :
    for ((pid = 0; pid < 600; pid++)); do
        kill -0 "$dockerd" 2>/dev/null || break
        sleep 0.1
    done
    kill -KILL "$dockerd" ${containerd:+"$containerd"} 2>/dev/null || :
    wait
    for directory in "/sys/fs/cgroup/${run##*/}" /sys/fs/cgroup/*/"${run##*/}"; do
        [ ! -d "$directory" ] || find "$directory" -depth -type d -exec rmdir {} + || :
    done
    # The mounts are ours alone and end with this process, but directories below them cannot be removed before that.
    grep -F " $run/" /proc/self/mounts | cut -d ' ' -f 2 | tac | xargs -r umount -l || :
    rm -rf "${run:?}/data" "$run/exec" "$run/pid" "$run/socket" "$run/daemon.json"
    [ -z "$told" ] || rm -rf "$run" # where dockerd ended by itself, somebody will want to read its log
}

# stop_docker: ends what start_docker started, if anything.
stop_docker() {
    [ -n "$docker_keeper" ] || return 0
    # To close the pipe is not enough where a child of ours is left that has it open too.
    (trap '' PIPE && echo stop >&"$docker_leash") 2>/dev/null || :
    exec {docker_leash}>&-
    wait "$docker_keeper" || :
    docker_keeper=
    rm -rf "${docker_run:?}"
}

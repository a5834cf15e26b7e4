# The builder of every derivation that does not bring its own.
source $stdenv/setup
genericBuild

{ pkgs ? import <nixpkgs> { } }:

pkgs.mkShell { packages = [ pkgs.swi-prolog ]; }

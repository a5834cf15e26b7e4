{ pkgs ? import <nixpkgs> { } }:

pkgs.mkShell { packages = [ pkgs.fpc pkgs.bc ]; }

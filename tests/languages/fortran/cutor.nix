{ pkgs ? import <nixpkgs> { } }:

pkgs.mkShell { packages = [ pkgs.gfortran pkgs.bc ]; }
